// Command bench measures how fast the replicator drains a backlog, beside the servers' own replication on the same
// machine, in one run. It prints a table and, with -out, writes it to a file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"replicator/sandbox"
)

type options struct {
	flavors   []sandbox.Flavor
	rounds    int
	events    int
	updates   int
	appends   int
	hot       int
	wide      int
	big       int
	conflicts int
	rows      int
	many      int
	only      string
	durable   bool
	program   string
	profile   int
	out       string
}

func main() {
	if err := run(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer release()
	o := options{}
	flavors := flag.String("flavors", "mysql-9.7,mariadb-11.8", "servers to measure on")
	flag.IntVar(&o.rounds, "rounds", 1, "how often each workload is measured; the median counts")
	flag.IntVar(&o.events, "events", 100_000, "transactions of write_only; fanout and portable have a quarter of them")
	flag.IntVar(&o.updates, "updates", 200_000, "transactions of update, each of one row")
	flag.IntVar(&o.appends, "appends", 50_000, fmt.Sprintf("transactions of append, each of %d INSERTs", 1+postings))
	flag.IntVar(&o.hot, "hot", 100_000, fmt.Sprintf("transactions of hot, each of one of %d rows", hotRows))
	flag.IntVar(&o.wide, "wide", 400, fmt.Sprintf("transactions of wide, each of %d rows", wideRows))
	flag.IntVar(&o.big, "big", 1_000_000, "rows of the large transaction; a power of ten")
	flag.IntVar(&o.conflicts, "conflicts", 20_000, "transactions on each side of conflicts, each of one row")
	flag.IntVar(&o.rows, "rows", 50_000, "rows of each of sysbench's tables at the start")
	flag.IntVar(&o.many, "many", 10_000_000, "rows of the table that recovery copies and compares")
	flag.StringVar(&o.only, "only", "", "some of the measurements: "+strings.Join(names(append(suite(o), apart()...)), ","))
	flag.BoolVar(&o.durable, "durable", false, "sync_binlog=1 and innodb_flush_log_at_trx_commit=1 on all servers")
	flag.StringVar(&o.program, "program", "", "the replicator's executable; default: build it, static")
	flag.IntVar(&o.profile, "profile", 0, "save the replicator's CPU profile of the first so many seconds of each drain as *.prof here")
	flag.StringVar(&o.out, "out", "", "also write the figures to this file")
	flag.Parse()
	for f := range strings.SplitSeq(*flavors, ",") {
		o.flavors = append(o.flavors, sandbox.Flavor(strings.TrimSpace(f)))
	}
	heats, err := only(suite(o), apart(), o.only)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sandbox.Leave()) }()
	if o.program == "" {
		dir, err := sandbox.Folder("bench")
		if err != nil {
			return err
		}
		if o.program, err = build(ctx, dir); err != nil {
			return err
		}
	}
	var all figures
	for _, f := range o.flavors {
		for _, h := range heats {
			of, err := h.run(ctx, o, f)
			all.add(of)
			if err != nil {
				return errors.Join(fmt.Errorf("measure on %s: %w", f, err), report(o, all, os.Stdout))
			}
		}
	}
	if err := report(o, all, os.Stdout); err != nil || o.out == "" {
		return err
	}
	return writeFile(o, all)
}

// build makes the ordinary static binary, the one that users run.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "replicator")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "replicator/cmd/replicator")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
}

func writeFile(o options, all figures) (err error) {
	f, err := os.Create(o.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return report(o, all, f)
}

// say reports progress.
func say(format string, args ...any) {
	_, _ = fmt.Fprintf(io.Writer(os.Stderr), format+"\n", args...)
}
