package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"replicator/sandbox"
)

// contested is how many rows both servers write, where their table has as many.
const contested = 1000

// contest is one contender's time for two backlogs that write the same rows.
type contest struct {
	flavor    sandbox.Flavor
	version   string
	contender string
	rows      int // that both servers write
	each      int // single-row updates on each of the two servers
	laps      []lap
	lost      []int // losing rows in the journals, each counted once; of an origin's changes to a row, a group journals the last
	entries   []int // of both journals: a losing row may be in both
}

// conflicts lets both servers write the same rows while nobody replicates, and measures until each has what the other wrote.
func conflicts(ctx context.Context, f *field) (all figures, err error) {
	for _, c := range f.contenders {
		t := contest{flavor: f.flavor, version: f.version, contender: c.name(), rows: min(contested, f.options.rows), each: f.options.conflicts}
		for round := range f.options.rounds {
			if err := f.contend(ctx, c, round, &t); err != nil {
				return all, fmt.Errorf("%s: drain conflicts: %w", c.name(), err)
			}
		}
		all.contests = append(all.contests, t)
	}
	return all, nil
}

func (f *field) contend(ctx context.Context, c contender, round int, t *contest) error {
	source, target := f.source, c.targets()[0]
	began := time.Now()
	if err := f.clash(ctx, t, source, target); err != nil {
		return err
	}
	there, err := f.mark(ctx, source)
	if err != nil {
		return err
	}
	back, err := f.mark(ctx, target)
	if err != nil {
		return err
	}
	say("%s conflicts, round %d: %d updates on each of two servers produced in %.1f s", f.flavor, round+1, t.each, time.Since(began).Seconds())
	both := journals{source, target}
	before, err := both.ends(ctx)
	if err != nil {
		return err
	}
	l, err := timed(ctx, c, both, func() error {
		return errors.Join(f.arrived(ctx, there, target), f.arrived(ctx, back, source))
	})
	if err != nil {
		return err
	}
	if err := f.equal(ctx, target); err != nil {
		return err
	}
	lost, entries, err := both.since(ctx, before)
	if err != nil {
		return err
	}
	if lost == 0 {
		return errors.New("no row lost, so no conflict was measured")
	}
	t.laps, t.lost, t.entries = append(t.laps, l), append(t.lost, lost), append(t.entries, entries)
	say("  %s, %d losing rows in %d journal entries", l.describe(c.name(), 2*t.each, "changes"), lost, entries)
	return nil
}

// clash writes the same rows on all these servers at the same time. Each has a seed of its own: the values must differ.
func (f *field) clash(ctx context.Context, t *contest, servers ...*sandbox.Server) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range servers {
		g.Go(func() error {
			return f.sysbench(ctx, s, "oltp_update_non_index", "run", "--tables=1", "--table-size="+strconv.Itoa(t.rows),
				"--rand-type=uniform", "--rand-seed="+strconv.Itoa(f.sentinel+i+1), "--threads=4", "--time=0",
				"--events="+strconv.Itoa(t.each))
		})
	}
	return g.Wait()
}

// journals are those of some servers.
type journals []*sandbox.Server

// ends are the numbers of their last entries.
func (all journals) ends(ctx context.Context) (ends []int64, err error) {
	for _, s := range all {
		var end int64
		if err := s.DB().QueryRowContext(ctx, "SELECT COALESCE(MAX(seq), 0) FROM replicator.conflict").Scan(&end); err != nil {
			return nil, err
		}
		ends = append(ends, end)
	}
	return ends, nil
}

// since counts the entries behind these ends, and the losing rows that they are about.
func (all journals) since(ctx context.Context, ends []int64) (lost, entries int, err error) {
	losers := map[string]bool{}
	for i, s := range all {
		rows, err := s.DB().QueryContext(ctx, "SELECT id FROM replicator.conflict WHERE seq > ?", ends[i])
		if err != nil {
			return 0, 0, err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return 0, 0, err
			}
			losers[id] = true
			entries++
		}
		if err := rows.Err(); err != nil {
			return 0, 0, err
		}
	}
	return len(losers), entries, nil
}

// contestSection prints the figures of one flavor.
func contestSection(b *strings.Builder, all []contest) {
	first := all[0]
	fmt.Fprintf(b, "\n## %s %s: backlogs in conflict\n\n%d single-row updates on each of two servers, all of the same %d rows of a table. Time runs until each has\n"+
		"what the other wrote; then both are equal, and what lost is in their journals. Native replication has nothing to compare.\n\n"+
		"| contender | seconds | changes/s | losing rows | journal entries | begins after | peak memory | CPU s | of the servers |\n|---|---|---|---|---|---|---|---|---|\n",
		family(first.flavor), first.version, first.each, first.rows)
	for _, t := range all {
		if len(t.laps) == 0 {
			continue
		}
		took := median(t.laps, lap.duration)
		fmt.Fprintf(b, "| %s | %.2f | %.0f | %d | %d | %s | %.1f |\n", t.contender, took.Seconds(), float64(2*t.each)/took.Seconds(),
			middle(t.lost), middle(t.entries), process(t.laps), median(t.laps, lap.ofServers).Seconds())
	}
}
