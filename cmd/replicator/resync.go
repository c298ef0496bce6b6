package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"replicator/api"
	"replicator/change"
	"replicator/config"
	"replicator/mesh"
	"replicator/resync"
	"replicator/verify"
)

func newResyncCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "resync", Short: "Make a table on one server equal to another's", Args: cobra.NoArgs,
		Long: "Make a table on one server equal to another's, while both are written to. `replicator run` carries it out; these\n" +
			"commands ask for it, watch it and end it.",
	}
	cmd.AddCommand(newResyncTableCommand(), newResyncListCommand(), newResyncCancelCommand())
	return cmd
}

func newResyncTableCommand() *cobra.Command {
	var j resync.Job
	var from string
	var to []string
	var asJSON, detach, forced, dry bool
	var o verify.Options
	cmd := &cobra.Command{
		Use:   "table DATABASE.TABLE --from SERVER [--to SERVER]...",
		Short: "Make a table equal to that of another server",
		Long: "Make a table equal to that of another server, rows that exist only on the target included: they are deleted. What is\n" +
			"overwritten or deleted is kept (`replicator conflicts list`) and can be restored. Changes that are made meanwhile, on any\n" +
			"server, survive by the ordinary rules: a row that has a later change is left to that.\n\n" +
			"The job goes on when this command is interrupted; asked again, it watches the job that is under way.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			switch {
			case from == "":
				return usageError{errors.New("name the server whose rows are right: --from")}
			case slices.Contains(to, from):
				return usageError{fmt.Errorf("--from and --to both name %s", from)}
			case j.Throttle < 0:
				return usageError{errors.New("--throttle must not be negative")}
			case o.Limit < 0:
				return usageError{errors.New("--limit must not be negative")}
			case dry && detach:
				return usageError{errors.New("--dry-run does not go with --detach")}
			}
			if j.Table, err = oneTable(args[0]); err != nil {
				return usageError{err}
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			ctx, release := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer release()
			all, err := mesh.OpenResyncs(ctx, cfg)
			if err != nil {
				return err
			}
			defer all.Close()
			if len(to) == 0 {
				if to, err = all.Targets(from); err != nil {
					return err
				}
			}
			slices.Sort(to)
			if dry {
				return differ(ctx, cmd, all, from, slices.Compact(to), j, forced, o, asJSON)
			}
			jobs, err := all.Ask(ctx, from, slices.Compact(to), j, forced)
			if err != nil {
				return err
			}
			if detach {
				return writeResyncs(cmd, jobs, asJSON)
			}
			return followResyncs(ctx, cmd, all, jobs, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&from, "from", "", "the server whose rows are right")
	flags.StringArrayVar(&to, "to", nil, "a server whose table is changed; default: every one to which a link leads from there")
	flags.StringVar(&j.Where, "where", "", "only rows that meet this condition, as behind WHERE")
	flags.Int64Var(&j.Throttle, "throttle", 0, "compare at most so many rows a second; 0: as many as the mesh allows")
	flags.BoolVar(&dry, "dry-run", false, "only compare the servers, and say what would be done")
	flags.IntVar(&o.Limit, "limit", 100, "with --dry-run: show at most so many rows; all are counted")
	flags.DurationVar(&o.Patience, "patience", time.Minute, "with --dry-run: how long to wait for a link that is behind")
	flags.BoolVar(&forced, "force", false, "also where the two servers do not receive the same changes: those of others are undone then")
	flags.BoolVar(&detach, "detach", false, "ask for it, and do not wait")
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// followResyncs shows how jobs of one table go on, until all have ended.
func followResyncs(ctx context.Context, cmd *cobra.Command, all *mesh.Resyncs, jobs []mesh.Resync, asJSON bool) error {
	err := watchResyncs(ctx, cmd, all, jobs)
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted: the resync goes on; the same command watches it again, and `replicator resync cancel %s` ends it", jobs[0].Table)
	}
	if err == nil {
		err = writeResyncs(cmd, jobs, asJSON)
	}
	if err == nil && slices.ContainsFunc(jobs, func(r mesh.Resync) bool { return r.State != resync.Done || r.Moving > 0 }) {
		return errIncomplete
	}
	return err
}

// repairTables has the tables that differ made equal to those of a server.
func repairTables(ctx context.Context, cmd *cobra.Command, cfg *config.Config, from string, report *verify.Report) error {
	all, err := mesh.OpenResyncs(ctx, cfg)
	if err != nil {
		return err
	}
	defer all.Close()
	to, err := all.Targets(from)
	if err != nil {
		return err
	}
	var jobs []mesh.Resync
	for i := range report.Tables {
		t := &report.Tables[i]
		if equal := t.Equal(); equal == nil || *equal {
			continue
		}
		asked, err := all.Ask(ctx, from, to, resync.Job{Table: t.Name}, false)
		if err != nil {
			return err
		}
		jobs = append(jobs, asked...)
	}
	if err := watchResyncs(ctx, cmd, all, jobs); err != nil {
		return err
	}
	if err := api.WriteResyncs(cmd.ErrOrStderr(), jobs); err != nil { // the answer is what was found
		return err
	}
	if slices.ContainsFunc(jobs, func(r mesh.Resync) bool { return r.State != resync.Done || r.Moving > 0 }) {
		return errIncomplete
	}
	return nil
}

// differ says what a resync would do.
func differ(ctx context.Context, cmd *cobra.Command, all *mesh.Resyncs, from string, to []string, j resync.Job, forced bool, o verify.Options, asJSON bool) error {
	bar := newProgress(cmd.ErrOrStderr())
	o.Progress = bar.show
	var plans []api.ResyncPlan
	for _, name := range to {
		report, err := all.Differ(ctx, from, name, j, forced, o)
		bar.clear()
		if errors.Is(err, context.Canceled) {
			return errors.New("interrupted")
		}
		if err != nil {
			return err
		}
		p, err := api.NewResyncPlan(&report, from, name)
		if err != nil {
			return err
		}
		plans = append(plans, p)
	}
	var err error
	if asJSON {
		err = api.WriteJSON(cmd.OutOrStdout(), plans)
	} else {
		err = api.WriteResyncPlans(cmd.OutOrStdout(), plans)
	}
	if err == nil && slices.ContainsFunc(plans, func(p api.ResyncPlan) bool { return p.Error != nil }) {
		return errIncomplete
	}
	return err
}

func newResyncListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List what is under way and what was last", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withResyncs(cmd, func(ctx context.Context, _ *config.Config, all *mesh.Resyncs) error {
				jobs, failed := all.List(ctx)
				for _, err := range failed {
					complain(cmd, err)
				}
				if err := writeResyncs(cmd, jobs, asJSON); err != nil || len(failed) == 0 {
					return err
				}
				return errIncomplete
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func newResyncCancelCommand() *cobra.Command {
	var to []string
	cmd := &cobra.Command{
		Use: "cancel DATABASE.TABLE [--to SERVER]...", Short: "End what is under way; what it has done stays", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			table, err := oneTable(args[0])
			if err != nil {
				return usageError{err}
			}
			return withResyncs(cmd, func(ctx context.Context, _ *config.Config, all *mesh.Resyncs) error {
				ended, err := all.Cancel(ctx, table, to)
				for _, r := range ended {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "resync of %s from %s to %s is ended\n", r.Table, r.From, r.To); err != nil {
						return err
					}
				}
				if err == nil && len(ended) == 0 {
					return fmt.Errorf("no resync of %s is under way", table)
				}
				return err
			})
		},
	}
	cmd.Flags().StringArrayVar(&to, "to", nil, "a server whose table is changed; default: all")
	return cmd
}

func withResyncs(cmd *cobra.Command, do func(context.Context, *config.Config, *mesh.Resyncs) error) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	ctx, release := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
	defer release()
	all, err := mesh.OpenResyncs(ctx, cfg)
	if err != nil {
		return err
	}
	defer all.Close()
	return do(ctx, cfg, all)
}

// oneTable reads the name of one table.
func oneTable(text string) (change.TableName, error) {
	database, table, ok := strings.Cut(text, ".")
	if !ok || database == "" || table == "" || strings.Contains(text, "*") {
		return change.TableName{}, fmt.Errorf("%q is not DATABASE.TABLE", text)
	}
	return change.TableName{Database: database, Table: table}, nil
}

func writeResyncs(cmd *cobra.Command, jobs []mesh.Resync, asJSON bool) error {
	if asJSON {
		return api.WriteJSON(cmd.OutOrStdout(), api.ResyncDocuments(jobs))
	}
	return api.WriteResyncs(cmd.OutOrStdout(), jobs)
}

// watchResyncs shows progress until all jobs have ended.
func watchResyncs(ctx context.Context, cmd *cobra.Command, all *mesh.Resyncs, jobs []mesh.Resync) error {
	bar := newProgress(cmd.ErrOrStderr())
	defer bar.clear()
	began, first, told := time.Now(), int64(-1), ""
	return all.Watch(ctx, jobs, func() {
		var compared, total int64
		note := ""
		for _, j := range jobs {
			compared += j.Compared
			total += max(j.Total, j.Compared)
			if j.Note != "" && !j.State.Ended() {
				note = j.To + ": " + j.Note
			}
		}
		if note != told && bar.out == nil { // on a terminal it is part of the line
			if told = note; note != "" {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), note)
			}
		}
		if first < 0 {
			first = compared
		}
		bar.line(resyncLine(compared, total, float64(compared-first)/time.Since(began).Seconds()) + suffix(note))
	})
}

func suffix(note string) string {
	if note == "" {
		return ""
	}
	return "; " + note
}

// resyncLine says how far jobs are. How many rows there are is the server's own guess.
func resyncLine(compared, total int64, rate float64) string {
	text := fmt.Sprintf("%d rows", compared)
	if total > 0 {
		text += fmt.Sprintf(" of about %d (%d %%)", total, 100*compared/total)
	}
	if rate >= 1 {
		text += fmt.Sprintf(", %.0f a second", rate)
		if left := time.Duration(float64(total-compared) / rate * float64(time.Second)); total > compared {
			text += fmt.Sprintf(", %s left", left.Round(time.Second))
		}
	}
	return text
}

// complain tells of something that did not keep the rest from being done.
func complain(cmd *cobra.Command, err error) {
	_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "replicator:", err)
}
