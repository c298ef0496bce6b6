package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"replicator/config"
	"replicator/notify"
	"replicator/server"
)

func newCheckCommand() *cobra.Command {
	var asJSON, all, testMail bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check every precondition of servers and tables",
		Long: "Check every precondition of servers and tables. It writes nothing. Exit code 0: nothing fails; 3: something does, and\n" +
			"its links would not start; 1: something could not be found out, as on a server that cannot be reached.\n" +
			"With --test-mail it also proves that notices of conflicts get where they should.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			ctx, release := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer release()
			return check(ctx, cfg, cmd.OutOrStdout(), checkOptions{asJSON: asJSON, all: all, testMail: testMail})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().BoolVar(&all, "all", false, "list what passed on tables too, not only its number")
	cmd.Flags().BoolVar(&testMail, "test-mail", false, "send a test mail to every contact, and a test request to the webhook")
	return cmd
}

type checkOptions struct{ asJSON, all, testMail bool }

// check prints the findings, and answers with the error that their worst stands for.
func check(ctx context.Context, cfg *config.Config, out io.Writer, o checkOptions) error {
	findings, err := preflight(ctx, cfg, o.testMail)
	if err != nil {
		return err
	}
	if o.asJSON {
		err = json.NewEncoder(out).Encode(checkDocument(findings))
	} else {
		err = writeFindings(out, findings, o.all)
	}
	if err != nil {
		return fmt.Errorf("print findings: %w", err)
	}
	if slices.ContainsFunc(findings, func(f server.Finding) bool { return f.Incomplete }) {
		return errIncomplete
	}
	if slices.ContainsFunc(findings, func(f server.Finding) bool { return f.State == server.Fail }) {
		return errAnswerNo
	}
	return nil
}

func preflight(ctx context.Context, cfg *config.Config, testMail bool) (findings []server.Finding, err error) {
	var servers []*server.Server
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, c := range cfg.Servers {
		s, err := server.Open(c, server.Options{})
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	findings = server.Preflight(ctx, servers, cfg)
	if testMail {
		told := make([]notify.Server, len(servers))
		for i, s := range servers {
			told[i] = notify.Server{Name: s.Name, DB: s.DB(), Contact: cfg.Servers[i].Contact}
		}
		findings = append(findings, notify.Prove(ctx, cfg, told)...)
	}
	return findings, ctx.Err()
}

// checkReport is the document of check --json.
type checkReport struct {
	OK       bool             `json:"ok"`
	Complete bool             `json:"complete"`
	Pass     int              `json:"pass"`
	Warn     int              `json:"warn"`
	Fail     int              `json:"fail"`
	Findings []server.Finding `json:"findings"`
}

func checkDocument(findings []server.Finding) checkReport {
	r := checkReport{Complete: true, Findings: findings}
	for _, f := range findings {
		switch f.State {
		case server.Pass:
			r.Pass++
		case server.Warn:
			r.Warn++
		case server.Fail:
			r.Fail++
		}
		r.Complete = r.Complete && !f.Incomplete
	}
	r.OK = r.Fail == 0
	return r
}

// writeFindings prints a table for people, the remedies under what they are for. Tables of which there is nothing to say
// are counted, unless all are wanted.
func writeFindings(out io.Writer, findings []server.Finding, all bool) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) } // a Builder takes everything
	line("STATE", "SERVER", "TABLE", "CHECK", "RESULT")
	passed := 0
	for _, f := range findings {
		if f.State == server.Pass && f.Table != "" && !all {
			passed++
			continue
		}
		line(string(f.State), f.Server, f.Table, f.Name, f.Message)
		if f.Remedy != "" {
			line("", "", "", "", "remedy: "+f.Remedy)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	r := checkDocument(findings)
	fmt.Fprintf(&text, "\n%d passed, %d to note, %d failed", r.Pass, r.Warn, r.Fail)
	if passed > 0 {
		fmt.Fprintf(&text, " (%d passed checks of tables are not listed: --all)", passed)
	}
	text.WriteByte('\n')
	_, err := io.WriteString(out, text.String())
	return err
}
