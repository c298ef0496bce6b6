package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"replicator/sandbox"
)

const (
	database = "bench"
	tables   = 4
	patience = 10 * time.Minute

	noDatabase = 1049
	noTable    = 1146
)

// result is one contender's time for one workload, the median of its rounds.
type result struct {
	flavor    sandbox.Flavor
	version   string
	workload  string
	unit      string
	count     int // units
	changes   int // rows written on all targets
	contender string
	native    bool
	laps      []lap
}

// lap is what one drain took.
type lap struct {
	took    time.Duration
	servers time.Duration // processor time of those that were written to
	usage   usage
}

func (l lap) describe(contender string, count int, unit string) string {
	return fmt.Sprintf("%-28s %6.2f s  %8.0f %s/s  (begins after %.2f s, at most %d MiB, CPU %.1f s and %.1f s of its servers)", contender,
		l.took.Seconds(), float64(count)/l.took.Seconds(), unit, l.usage.startup.Seconds(), l.usage.peak>>20, l.usage.cpu.Seconds(), l.servers.Seconds())
}

// usage is what the replicator's process took; zero for the servers' own replication, which is part of them.
type usage struct {
	startup time.Duration // until the link ran
	cpu     time.Duration // processor time
	peak    int64         // resident bytes
}

// field is one flavor's servers: a source, and targets of its own for every contender, all of them equal.
type field struct {
	options    options
	flavor     sandbox.Flavor
	version    string
	source     *sandbox.Server
	contenders []contender
	sentinel   int
	paced      int // the last row of steadyTable
	appended   int // the last entry
}

// contender drains the source into its targets.
type contender interface {
	name() string
	native() bool
	targets() []*sandbox.Server
	start(ctx context.Context) error
	stop(ctx context.Context) (usage, error)
}

type workload struct {
	name, unit string
	count      int
	changes    int // of rows, in each unit
	produce    func(ctx context.Context, f *field) error
}

// measure produces a backlog while no contender runs, and lets one after the other drain it.
func (f *field) measure(ctx context.Context, w workload) ([]result, error) {
	results := make([]result, len(f.contenders))
	for i, c := range f.contenders {
		results[i] = result{
			flavor: f.flavor, version: f.version, workload: w.name, unit: w.unit, count: w.count,
			changes: w.count * w.changes * len(c.targets()), contender: c.name(), native: c.native(),
		}
	}
	for round := range f.options.rounds {
		began := time.Now()
		if err := w.produce(ctx, f); err != nil {
			return nil, fmt.Errorf("produce %s: %w", w.name, err)
		}
		last, err := f.mark(ctx, f.source)
		if err != nil {
			return nil, err
		}
		say("%s %s, round %d: %d %s produced in %.1f s", f.flavor, w.name, round+1, w.count, w.unit, time.Since(began).Seconds())
		for i := range f.contenders {
			i = (i + round) % len(f.contenders) // nobody always comes first
			if err := f.drain(ctx, f.contenders[i], last, &results[i]); err != nil {
				return nil, fmt.Errorf("%s: drain %s: %w", f.contenders[i].name(), w.name, err)
			}
		}
	}
	return results, nil
}

// drain lets a contender work until the mark has arrived on all its targets.
func (f *field) drain(ctx context.Context, c contender, mark int, r *result) error {
	l, err := timed(ctx, c, c.targets(), func() error { return f.arrived(ctx, mark, c.targets()...) })
	if err != nil {
		return err
	}
	if err := f.equal(ctx, c.targets()...); err != nil {
		return err
	}
	r.laps = append(r.laps, l)
	say("  %s", l.describe(c.name(), r.count, r.unit))
	return nil
}

// timed lets a contender work until wait returns.
func timed(ctx context.Context, c contender, servers []*sandbox.Server, wait func() error) (l lap, err error) {
	before, err := serverTime(ctx, servers...)
	if err != nil {
		return l, err
	}
	began := time.Now()
	if err := c.start(ctx); err != nil {
		return l, err
	}
	if err := wait(); err != nil {
		return l, err
	}
	l.took = time.Since(began)
	after, err := serverTime(ctx, servers...)
	if err != nil {
		return l, err
	}
	l.servers = after - before
	l.usage, err = c.stop(ctx)
	return l, err
}

// mark writes the row by whose arrival elsewhere a server is known to have everything before it.
func (f *field) mark(ctx context.Context, on *sandbox.Server) (id int, err error) {
	f.sentinel++
	_, err = on.DB().ExecContext(ctx, "INSERT INTO "+database+".sentinel VALUES (?)", f.sentinel)
	return f.sentinel, err
}

// arrived waits until a mark is on all these servers.
func (f *field) arrived(ctx context.Context, mark int, on ...*sandbox.Server) error {
	return await(ctx, patience, func() (bool, error) {
		for len(on) > 0 {
			var n int
			err := on[0].DB().QueryRowContext(ctx, "SELECT COUNT(*) FROM "+database+".sentinel WHERE id = ?", mark).Scan(&n)
			var refused *mysql.MySQLError
			if errors.As(err, &refused) && (refused.Number == noDatabase || refused.Number == noTable) {
				return false, nil // a copy that has just begun
			}
			if err != nil || n == 0 {
				return false, err
			}
			on = on[1:]
		}
		return true, nil
	})
}

// equal compares drained targets with the source.
func (f *field) equal(ctx context.Context, targets ...*sandbox.Server) error {
	names := []string{database + ".sentinel", database + ".big", database + ".entry", database + ".posting"}
	for i := range tables {
		names = append(names, fmt.Sprintf("%s.sbtest%d", database, i+1))
	}
	list := strings.Join(names, ", ")
	want, err := checksums(ctx, f.source.DB(), list)
	if err != nil {
		return err
	}
	for _, s := range targets {
		have, err := checksums(ctx, s.DB(), list)
		if err != nil {
			return err
		}
		for table, sum := range want {
			if have[table] != sum {
				return fmt.Errorf("table %s differs after draining: checksum %d on the source, %d on %s", table, sum, have[table], s.Name())
			}
		}
	}
	return nil
}

func checksums(ctx context.Context, db *sql.DB, list string) (map[string]int64, error) {
	rows, err := db.QueryContext(ctx, "CHECKSUM TABLE "+list)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	sums := map[string]int64{}
	for rows.Next() {
		var table string
		var sum int64
		if err := rows.Scan(&table, &sum); err != nil {
			return nil, err
		}
		sums[table] = sum
	}
	return sums, rows.Err()
}

func (f *field) sysbench(ctx context.Context, on *sandbox.Server, script, verb string, more ...string) error {
	args := append([]string{
		"--tables=" + strconv.Itoa(tables), "--table-size=" + strconv.Itoa(f.options.rows), "--mysql-ignore-errors=1213,1205,1020",
	}, more...)
	cmd, err := on.Sysbench(ctx, database, script, append(args, verb)...)
	if err != nil {
		return fmt.Errorf("find sysbench: %w", err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("sysbench %s %s: %w\n%s", script, verb, err, out.String())
	}
	return nil
}

// await tries f until it says yes or fails.
func await(ctx context.Context, patience time.Duration, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := f()
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", patience, ctx.Err())
		}
	}
}
