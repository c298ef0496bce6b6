package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"replicator/api"
	"replicator/clone"
	"replicator/config"
	"replicator/mesh"
)

// clonePassword is the variable with the password of --user.
const clonePassword = "REPLICATOR_CLONE_PASSWORD"

func newCloneCommand() *cobra.Command {
	var o mesh.CloneOptions
	var user string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "clone --from SERVER --to SERVER",
		Short: "Copy all replicated tables to a server, which then joins the mesh",
		Long: "Copy all replicated tables of a server to another one, as of one moment, and have that join the mesh from there: nothing is\n" +
			"lost, nothing comes twice. The other servers are written to meanwhile, and `replicator run` goes on. Applications must not\n" +
			"write to the target until it has ended.\n\n" +
			"For a new server, and for one that was away for longer than the binlogs reach. Run again after it was interrupted, it goes on:\n" +
			"what is there and has not changed is not copied twice.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.From == "" || o.To == "":
				return usageError{errors.New("name the server to copy from and the one to copy to: --from and --to")}
			case o.From == o.To:
				return usageError{fmt.Errorf("--from and --to both name %s", o.From)}
			case o.Workers < 1:
				return usageError{errors.New("--workers must be at least 1")}
			}
			for _, what := range o.With {
				if !slices.Contains(clone.Kinds, what) {
					return usageError{fmt.Errorf("--with knows %s, not %q", strings.Join(clone.Kinds, ", "), what)}
				}
			}
			if user != "" {
				o.Account = &config.Account{User: user, Secret: config.NewSecret(os.Getenv(clonePassword))}
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			return runClone(cmd, cfg, o, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.From, "from", "", "the server to copy from")
	flags.StringVar(&o.To, "to", "", "the server to copy to")
	flags.BoolVar(&o.Replace, "replace", false, "replace what the target has")
	flags.BoolVar(&o.Force, "force", false, "also where changes of the target have not reached all other servers: they are lost there")
	flags.BoolVar(&o.Logged, "binlog", false, "write the copy to the target's binlog, for replicas of its own")
	flags.StringSliceVar(&o.With, "with", nil, "copy these, too: "+strings.Join(clone.Kinds, ", "))
	flags.IntVar(&o.Workers, "workers", max(2, runtime.NumCPU()), "copy with so many connections at once")
	flags.StringVar(&user, "user", "", "log in to both servers as this account for the copy; its password is taken from "+clonePassword)
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func runClone(cmd *cobra.Command, cfg *config.Config, o mesh.CloneOptions, asJSON bool) error {
	ctx, release := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
	defer release()
	if err := config.PrepareStateDir(cfg.StateDir); err != nil {
		return err
	}
	bar := newProgress(cmd.ErrOrStderr())
	said := ""
	o.Log = zap.NewNop()
	o.Say = func(text string) {
		if text != said {
			bar.clear()
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), text) // it is only progress
		}
		said = text
	}
	began := time.Now()
	o.Progress = func(p clone.Progress) { bar.line(cloneLine(p, time.Since(began))) }
	report, err := mesh.Clone(ctx, cfg, o)
	bar.clear()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted: %s takes no part in the mesh until the same command has been run again", o.To)
	}
	if err != nil {
		return err
	}
	if asJSON {
		return api.WriteJSON(cmd.OutOrStdout(), api.NewCloneDocument(&report, o.From, o.To, time.Since(began)))
	}
	return api.WriteClone(cmd.OutOrStdout(), &report, o.From, o.To, time.Since(began))
}

// cloneLine says how far a clone is. How many rows there are is the server's own guess.
func cloneLine(p clone.Progress, elapsed time.Duration) string {
	text := fmt.Sprintf("%d of %d tables, %d rows", p.TablesDone, p.Tables, p.Rows)
	if p.Total > 0 {
		text += fmt.Sprintf(" of about %d (%d %%)", p.Total, min(100, 100*p.Rows/p.Total))
	}
	rate := float64(p.Rows) / elapsed.Seconds()
	if rate >= 1 {
		text += fmt.Sprintf(", %.0f a second", rate)
		if left := time.Duration(float64(p.Total-p.Rows) / rate * float64(time.Second)); p.Total > p.Rows {
			text += fmt.Sprintf(", %s left", left.Round(time.Second))
		}
	}
	if p.Same > 0 {
		text += fmt.Sprintf("; %d were there", p.Same)
	}
	return text
}
