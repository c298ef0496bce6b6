package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"replicator/api"
	"replicator/change"
	"replicator/config"
	"replicator/fault"
	"replicator/mesh"
	"replicator/verify"
)

func newVerifyCommand() *cobra.Command {
	var o verify.Options
	var asJSON, repair bool
	var from string
	cmd := &cobra.Command{
		Use:   "verify [DATABASE.TABLE]...",
		Short: "Compare all servers, row by row, while they are written to",
		Long: "Compare all servers, row by row, while they are written to. A row that differs is read again behind every change that\n" +
			"was under way, until it is equal or has stood still; so the links must run. * in a table's name stands for any text;\n" +
			"without names all replicated tables are compared. When it is killed, the same command goes on where it was, for a day.\n" +
			"Exit code 3: rows differ; 1: something could not be compared.",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.Limit < 0:
				return usageError{errors.New("--limit must not be negative")}
			case o.Patience <= 0:
				return usageError{errors.New("--patience must be more than 0")}
			case repair != (from != ""):
				return usageError{errors.New("--repair and --from SERVER go together: name the server whose rows are right")}
			}
			patterns, err := parseTables(args)
			if err != nil {
				return usageError{err}
			}
			o.Check = func(names []change.TableName) error { return checkTables(args, patterns, names) }
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if from != "" && !slices.Contains(serverNames(cfg), from) {
				return usageError{fmt.Errorf("there is no server %q", from)}
			}
			ctx, release := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer release()
			bar := newProgress(cmd.ErrOrStderr())
			o.Progress, o.Scope = bar.show, scopeOf(args)
			o.Note = func(text string) {
				bar.clear()
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "replicator: "+text) // beside the answer
			}
			report, err := mesh.Verify(ctx, cfg, matchTables(patterns), o)
			bar.clear()
			if err != nil {
				return err
			}
			d, err := report.Document(serverNames(cfg))
			if err != nil {
				return err
			}
			err = writeVerified(cmd, d, serverNames(cfg), asJSON)
			answered := errors.Is(err, errAnswerNo)
			if repair && (answered || errors.Is(err, errIncomplete)) {
				if failed := repairTables(ctx, cmd, cfg, from, &report); failed != nil || answered {
					return failed
				}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.Quick, "quick", false, "only whether each table is equal: no differences are shown, and the first one ends its comparison")
	flags.BoolVar(&o.Anew, "anew", false, "begin at the beginning, whatever an earlier comparison has left")
	flags.BoolVar(&repair, "repair", false, "make the tables that differ equal to those of --from, as `replicator resync table` does")
	flags.StringVar(&from, "from", "", "with --repair: the server whose rows are right")
	flags.IntVar(&o.Limit, "limit", 100, "show at most so many differences of a table; all are counted")
	flags.DurationVar(&o.Patience, "patience", time.Minute, "how long to wait for a link that is behind")
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func parseTables(args []string) ([]config.Pattern, error) {
	patterns := make([]config.Pattern, len(args))
	for i, text := range args {
		var err error
		if patterns[i], err = api.ParseTables(text); err != nil {
			return nil, err
		}
	}
	return patterns, nil
}

// scopeOf is the same for the same tables, in whatever order they are named.
func scopeOf(args []string) string {
	return "command " + strings.Join(slices.Compact(slices.Sorted(slices.Values(args))), " ")
}

// matchTables accepts the named tables, and all where none is named.
func matchTables(patterns []config.Pattern) func(change.TableName) bool {
	return func(name change.TableName) bool {
		return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p config.Pattern) bool { return p.Matches(name) })
	}
}

// checkTables refuses names that mean none of the tables: an error in them must not look like an answer.
func checkTables(args []string, patterns []config.Pattern, names []change.TableName) error {
	if len(names) == 0 && len(args) == 0 {
		return fault.New(fault.Precondition, "see tables.include and tables.exclude", "no server has a replicated table")
	}
	for i, p := range patterns {
		if !slices.ContainsFunc(names, p.Matches) {
			return fault.New(fault.Precondition, "see replicator check for the tables there are; only * stands for any text",
				"no replicated table is called %s", args[i])
		}
	}
	return nil
}

func writeVerified(cmd *cobra.Command, d verify.Document, servers []string, asJSON bool) error {
	var err error
	if asJSON {
		err = api.WriteJSON(cmd.OutOrStdout(), d)
	} else {
		err = api.WriteVerified(cmd.OutOrStdout(), d, servers)
	}
	switch {
	case err != nil:
		return err
	case api.Incomplete(d):
		return errIncomplete
	case d.Equal == nil || !*d.Equal:
		return errAnswerNo
	}
	return nil
}

// progress is a line on a terminal that is written again and again.
type progress struct {
	out   io.Writer
	begin time.Time
	last  time.Time
}

func newProgress(out io.Writer) *progress {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &progress{}
	}
	return &progress{out: out, begin: time.Now()}
}

const progressEvery = 200 * time.Millisecond

func (p *progress) show(v verify.Progress) {
	text := fmt.Sprintf("%s: %d rows", v.Table, v.Rows)
	if v.Open > 0 {
		text += fmt.Sprintf(", %d to be looked at again", v.Open)
	}
	p.line(text)
}

func (p *progress) line(text string) {
	if p.out == nil || time.Since(p.last) < progressEvery {
		return
	}
	p.last = time.Now()
	_, _ = fmt.Fprintf(p.out, "\r\x1b[K%s", text) // it is only progress
}

func (p *progress) clear() {
	if p.out != nil {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
	}
}
