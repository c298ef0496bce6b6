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
	database  = "bench"
	tables    = 4
	tableRows = 50_000
	patience  = 10 * time.Minute

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
	contender string
	native    bool
	times     []time.Duration
	target    []time.Duration // processor time of the target
	usages    []usage
}

// usage is what the replicator's process took; zero for the servers' own replication, which is part of them.
type usage struct {
	startup time.Duration // until the link ran
	cpu     time.Duration // processor time
	peak    int64         // resident bytes
}

// field is one flavor's servers: a source, and a target of its own for every contender, all of them equal.
type field struct {
	options    options
	flavor     sandbox.Flavor
	version    string
	source     *sandbox.Server
	contenders []contender
	sentinel   int
	paced      int // the last row of steadyTable
}

// contender drains the source into its target.
type contender interface {
	name() string
	native() bool
	target() *sandbox.Server
	start(ctx context.Context) error
	stop(ctx context.Context) (usage, error)
}

type workload struct {
	name, unit string
	count      int
	produce    func(ctx context.Context) error
}

// figures are what was measured on one flavor or several.
type figures struct {
	results   []result
	latencies []latency
}

func benchmark(ctx context.Context, o options, flavor sandbox.Flavor) (all figures, err error) {
	f := &field{options: o, flavor: flavor}
	defer f.close()
	if err := f.prepare(ctx); err != nil {
		return all, err
	}
	workloads := []workload{
		{"write_only", "transactions", o.events, func(ctx context.Context) error {
			return f.sysbench(ctx, "oltp_write_only", "run", "--threads=8", "--time=0", "--events="+strconv.Itoa(o.events))
		}},
		{"update", "transactions", o.events, func(ctx context.Context) error {
			return f.sysbench(ctx, "oltp_update_non_index", "run", "--threads=8", "--time=0", "--events="+strconv.Itoa(o.events))
		}},
		{"large", "rows", o.big, f.largeTransaction},
	}
	for _, w := range workloads {
		if o.only != "" && o.only != w.name {
			continue
		}
		r, err := f.measure(ctx, w)
		if err != nil {
			return all, err
		}
		all.results = append(all.results, r...)
	}
	if o.only == "" || o.only == "latency" {
		all.latencies, err = f.latencies(ctx)
	}
	return all, err
}

// measure produces a backlog while no contender runs, and lets one after the other drain it.
func (f *field) measure(ctx context.Context, w workload) ([]result, error) {
	results := make([]result, len(f.contenders))
	for i, c := range f.contenders {
		results[i] = result{flavor: f.flavor, version: f.version, workload: w.name, unit: w.unit, count: w.count, contender: c.name(), native: c.native()}
	}
	for round := range f.options.rounds {
		began := time.Now()
		if err := w.produce(ctx); err != nil {
			return nil, fmt.Errorf("produce %s: %w", w.name, err)
		}
		if err := f.mark(ctx); err != nil {
			return nil, err
		}
		say("%s %s, round %d: %d %s produced in %.1f s", f.flavor, w.name, round+1, w.count, w.unit, time.Since(began).Seconds())
		for i := range f.contenders {
			i = (i + round) % len(f.contenders) // nobody always comes first
			if err := f.drain(ctx, f.contenders[i], &results[i]); err != nil {
				return nil, fmt.Errorf("%s: drain %s: %w", f.contenders[i].name(), w.name, err)
			}
		}
	}
	return results, nil
}

func (f *field) drain(ctx context.Context, c contender, r *result) error {
	before, err := serverTime(ctx, c.target())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.start(ctx); err != nil {
		return err
	}
	if err := f.arrived(ctx, c.target()); err != nil {
		return err
	}
	took := time.Since(began)
	spent, err := serverTime(ctx, c.target())
	if err != nil {
		return err
	}
	spent -= before
	u, err := c.stop(ctx)
	if err != nil {
		return err
	}
	if err := f.equal(ctx, c.target()); err != nil {
		return err
	}
	r.times, r.target, r.usages = append(r.times, took), append(r.target, spent), append(r.usages, u)
	say("  %-28s %6.2f s  %8.0f %s/s  (begins after %.2f s, at most %d MiB, CPU %.1f s and %.1f s of the target)", c.name(), took.Seconds(),
		float64(r.count)/took.Seconds(), r.unit, u.startup.Seconds(), u.peak>>20, u.cpu.Seconds(), spent.Seconds())
	return nil
}

// mark writes the row by whose arrival a target is known to have everything before it.
func (f *field) mark(ctx context.Context) error {
	f.sentinel++
	_, err := f.source.DB().ExecContext(ctx, "INSERT INTO "+database+".sentinel VALUES (?)", f.sentinel)
	return err
}

func (f *field) arrived(ctx context.Context, s *sandbox.Server) error {
	return await(ctx, patience, func() (bool, error) {
		var n int
		err := s.DB().QueryRowContext(ctx, "SELECT COUNT(*) FROM "+database+".sentinel WHERE id = ?", f.sentinel).Scan(&n)
		var refused *mysql.MySQLError
		if errors.As(err, &refused) && (refused.Number == noDatabase || refused.Number == noTable) {
			return false, nil // a copy that has just begun
		}
		return n == 1, err
	})
}

// equal compares a drained target with the source.
func (f *field) equal(ctx context.Context, s *sandbox.Server) error {
	names := []string{database + ".sentinel", database + ".big"}
	for i := range tables {
		names = append(names, fmt.Sprintf("%s.sbtest%d", database, i+1))
	}
	list := strings.Join(names, ", ")
	want, err := checksums(ctx, f.source.DB(), list)
	if err != nil {
		return err
	}
	have, err := checksums(ctx, s.DB(), list)
	if err != nil {
		return err
	}
	for table, sum := range want {
		if have[table] != sum {
			return fmt.Errorf("table %s differs after draining: checksum %d on the source, %d on the target", table, sum, have[table])
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

// largeTransaction inserts rows in one statement.
func (f *field) largeTransaction(ctx context.Context) error {
	digits := 0
	for n := f.options.big; n > 1; n /= 10 {
		digits++
	}
	var from []string
	for i := range digits {
		from = append(from, fmt.Sprintf("%s.digit d%d", database, i))
	}
	_, err := f.source.DB().ExecContext(ctx, fmt.Sprintf("INSERT INTO %s.big SELECT %d + x.id, x.id, REPEAT('abcdefghij', 15) FROM (SELECT %s AS id FROM %s) x",
		database, f.sentinel*f.options.big, nest(digits), strings.Join(from, ", ")))
	return err
}

// nest writes a number by its digits: ((d0.n) * 10 + d1.n) * 10 + …
func nest(digits int) string {
	text := "d0.n"
	for i := 1; i < digits; i++ {
		text = fmt.Sprintf("(%s) * 10 + d%d.n", text, i)
	}
	return text
}

func (f *field) sysbench(ctx context.Context, script, verb string, more ...string) error {
	args := append([]string{
		"--tables=" + strconv.Itoa(tables), "--table-size=" + strconv.Itoa(tableRows), "--mysql-ignore-errors=1213,1205,1020",
	}, more...)
	cmd, err := f.source.Sysbench(ctx, database, script, append(args, verb)...)
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
