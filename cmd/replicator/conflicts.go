package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"replicator/api"
	"replicator/config"
	"replicator/journal"
	"replicator/mesh"
)

func newConflictsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "conflicts",
		Short: "List, show, restore and acknowledge rows that lost a conflict",
		Long: "List, show, restore and acknowledge rows that lost a conflict. The journals of all servers are asked; no process has to\n" +
			"run. Where a server cannot be asked, the exit code is 1.",
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newConflictsListCommand(), newConflictsShowCommand(), newConflictsRestoreCommand(), newConflictsAckCommand())
	return cmd
}

func newConflictsListCommand() *cobra.Command {
	var f journal.Filter
	var tables, since, until string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List conflicts, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			now := time.Now()
			if since != "" {
				f.Since, err = api.ParseMoment(since, now)
			}
			if until != "" && err == nil {
				f.Until, err = api.ParseMoment(until, now)
			}
			if tables != "" && err == nil {
				f.Table, err = api.ParseTables(tables)
			}
			if err == nil {
				err = api.CheckFilter(f)
			}
			if err != nil {
				return usageError{err}
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if err := api.CheckServer(f, serverNames(cfg)); err != nil {
				return usageError{err}
			}
			return overJournals(cmd, cfg, func(ctx context.Context, servers []journal.Server) ([]journal.Failure, error) {
				records, failed := journal.List(ctx, servers, f)
				if len(failed) == len(servers) {
					return failed, failed[0].Err
				}
				if err := noteUnknown(cmd.ErrOrStderr(), servers, f.Server); err != nil {
					return failed, err
				}
				list := journal.Documents(records, servers, failed)
				if asJSON {
					return failed, api.WriteJSON(cmd.OutOrStdout(), list)
				}
				added := func(i int) []string { return cfg.Added(records[i].Table) }
				if err := api.WriteConflicts(cmd.OutOrStdout(), list, added); err != nil {
					return failed, err
				}
				return failed, noteMore(ctx, cmd.ErrOrStderr(), servers, f, len(list))
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&tables, "table", "", "only of these tables: DATABASE.TABLE, * wildcards")
	flags.StringVar(&f.Server, "server", "", "only where this server made one of the changes, or has the conflict in its journal")
	flags.StringVar(&since, "since", "", "only from then on: 2026-01-31T10:00:00Z, 2026-01-31, or how long ago (90m, 24h, 7d)")
	flags.StringVar(&until, "until", "", "only before then")
	flags.StringVar(&f.State, "state", "", "only open, acknowledged or restored ones")
	flags.IntVar(&f.Limit, "limit", 100, "at most so many; 0 is all")
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// noteUnknown says that it is not known which changes the wanted server has made.
func noteUnknown(w io.Writer, servers []journal.Server, wanted string) error {
	for _, s := range servers {
		if s.Name != wanted || s.Err == nil || !s.ID.IsZero() {
			continue
		}
		if _, err := fmt.Fprintf(w, "replicator: the identity of %s is not known: changes of every server that is not known are listed for its own\n", wanted); err != nil {
			return fmt.Errorf("write note: %w", err)
		}
	}
	return nil
}

// noteMore says how many there are where the limit has cut the list.
func noteMore(ctx context.Context, w io.Writer, servers []journal.Server, f journal.Filter, shown int) error {
	if f.Limit == 0 || shown < f.Limit && f.State == "" {
		return nil
	}
	n, exact := journal.Found(ctx, servers, f)
	if n <= shown {
		return nil
	}
	atLeast := "at least "
	if exact {
		atLeast = ""
	}
	if _, err := fmt.Fprintf(w, "replicator: %d of %s%d; --limit N shows more, --limit 0 all\n", shown, atLeast, n); err != nil {
		return fmt.Errorf("write note: %w", err)
	}
	return nil
}

func newConflictsShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one conflict, both rows column by column",
		Long:  "Show one conflict, both rows column by column. The first digits of the ID do where they are unique.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withJournals(cmd, func(ctx context.Context, cfg *config.Config, servers []journal.Server) ([]journal.Failure, error) {
				record, failed, err := journal.Show(ctx, servers, args[0])
				if err != nil {
					return failed, err
				}
				shown := record.Shown(servers, failed)
				if asJSON {
					return failed, api.WriteJSON(cmd.OutOrStdout(), shown)
				}
				return failed, api.WriteConflict(cmd.OutOrStdout(), shown, cfg.Added(record.Table))
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func newConflictsRestoreCommand() *cobra.Command {
	var o journal.RestoreOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restore ID",
		Short: "Write the losing row back, everywhere",
		Long: "Write the losing row back, as a new change on the server that the losing change came from; it replicates like any\n" +
			"application's change. A losing delete is carried out again. --dry-run does all of it and rolls back.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("columns") && len(o.Columns) == 0 {
				return usageError{errors.New("--columns names no column; leave it out to restore all that was lost")}
			}
			for i, name := range o.Columns { // people write "a, b"
				o.Columns[i] = strings.TrimSpace(name)
			}
			return withJournals(cmd, func(ctx context.Context, cfg *config.Config, servers []journal.Server) ([]journal.Failure, error) {
				return restore(ctx, cmd, cfg, servers, args[0], o, asJSON)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.On, "on", "", "the server that writes it; default: where the losing change was made")
	flags.StringSliceVar(&o.Columns, "columns", nil, "only these columns; the row must exist")
	flags.BoolVar(&o.DryRun, "dry-run", false, "print the SQL and the row that it would replace, and keep nothing")
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func restore(ctx context.Context, cmd *cobra.Command, cfg *config.Config, servers []journal.Server, id string, o journal.RestoreOptions, asJSON bool) ([]journal.Failure, error) {
	record, failed, err := journal.Show(ctx, servers, id)
	if err != nil {
		return failed, err
	}
	o.Added = cfg.Added(record.Table)
	done, err := journal.Restore(ctx, servers, record, o)
	if err != nil {
		return failed, err
	}
	return done.Failed, writeRestoration(cmd, done.Document(record), asJSON)
}

func writeRestoration(cmd *cobra.Command, d journal.RestorationDocument, asJSON bool) error {
	if asJSON {
		return api.WriteJSON(cmd.OutOrStdout(), d)
	}
	return api.WriteRestoration(cmd.OutOrStdout(), d)
}

// keepPatience is how long `ack --keep loser` waits for the winning change to arrive.
const keepPatience = 30 * time.Second

func newConflictsAckCommand() *cobra.Command {
	var keep string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ack ID",
		Short: "Acknowledge a conflict, on all servers",
		Long: "Acknowledge a conflict, on all servers. Under the policy halt this releases the links that wait for the decision. With\n" +
			"--keep loser the losing row is then restored, as soon as the winning change has arrived where it is written.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keep != "" && keep != "winner" && keep != "loser" {
				return usageError{fmt.Errorf("--keep takes winner or loser, not %q", keep)}
			}
			return withJournals(cmd, func(ctx context.Context, cfg *config.Config, servers []journal.Server) ([]journal.Failure, error) {
				record, failed, err := journal.Show(ctx, servers, args[0])
				if err != nil {
					return failed, err
				}
				if keep == "loser" {
					done, err := journal.Keep(ctx, servers, record, journal.RestoreOptions{Added: cfg.Added(record.Table)}, keepPatience)
					if err != nil {
						return failed, err
					}
					return done.Failed, writeRestoration(cmd, done.Document(record), asJSON)
				}
				told, failed := journal.Acknowledge(ctx, servers, record)
				return failed, api.WriteAcknowledged(cmd.OutOrStdout(), record.Document(servers, failed), told, failed, asJSON)
			})
		},
	}
	cmd.Flags().StringVar(&keep, "keep", "", "winner: leave all as it is; loser: restore the losing row")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// withJournals runs f over the journals of the configured servers, and says which could not be asked.
func withJournals(cmd *cobra.Command, f func(context.Context, *config.Config, []journal.Server) ([]journal.Failure, error)) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	return overJournals(cmd, cfg, func(ctx context.Context, servers []journal.Server) ([]journal.Failure, error) {
		return f(ctx, cfg, servers)
	})
}

func overJournals(cmd *cobra.Command, cfg *config.Config, f func(context.Context, []journal.Server) ([]journal.Failure, error)) error {
	journals, err := mesh.OpenJournals(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	defer journals.Close()
	servers := journals.Servers()
	identify(cmd.Context(), cfg, servers)
	failed, err := f(cmd.Context(), servers)
	if err != nil {
		return err
	}
	for _, x := range failed {
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "replicator: %s could not be asked: %v\n", x.Server, x.Err); err != nil {
			return fmt.Errorf("write note: %w", err)
		}
	}
	if len(failed) > 0 {
		return errIncomplete
	}
	return nil
}

// identify asks the process, if one answers, for the identities of servers that cannot be asked themselves.
func identify(ctx context.Context, cfg *config.Config, servers []journal.Server) {
	if !slices.ContainsFunc(servers, func(s journal.Server) bool { return s.ID.IsZero() }) {
		return
	}
	client, err := api.NewClient(cfg.HTTP, os.Getenv(api.PasswordVariable))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	known, err := client.Identities(ctx, cfg.Mesh)
	if err != nil {
		return // origins show as identities, and everything else goes on
	}
	for i := range servers {
		if servers[i].ID.IsZero() {
			servers[i].ID = known[servers[i].Name]
		}
	}
}

func serverNames(cfg *config.Config) []string {
	names := make([]string, len(cfg.Servers))
	for i, s := range cfg.Servers {
		names[i] = s.Name
	}
	return names
}
