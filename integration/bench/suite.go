package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"replicator/applier"
	"replicator/sandbox"
)

// measurement is one row of the suite, which can be chosen by its name.
type measurement struct {
	name string
	take func(ctx context.Context, f *field) (figures, error)
}

// heat is the measurements that need the same servers. These run while it lasts and no longer.
type heat struct {
	entries      func(f *field) []entry
	measurements []measurement
}

// writes is how many row changes a transaction of oltp_write_only makes: two updates, a deletion and an insert.
const writes = 4

// suite is everything that can be measured, in order.
func suite(o options) []heat {
	return []heat{
		{oneTarget, []measurement{
			backlog("write_only", "transactions", writes, o.events, oltp("oltp_write_only", o.events)),
			backlog("update", "transactions", 1, o.updates, oltp("oltp_update_non_index", o.updates)),
			backlog("append", "transactions", 1+postings, o.appends, appending(o.appends)),
			backlog("hot", "transactions", 1, o.hot, oltp("oltp_update_non_index", o.hot, "--tables=1", "--table-size="+strconv.Itoa(hotRows), "--rand-type=uniform")),
			backlog("wide", "rows", 1, o.wide*wideRows, wide(o.wide)),
			backlog("large", "rows", 1, o.big, largeTransaction),
			{"latency", latencies},
		}},
		{threeTargets, []measurement{
			backlog("fanout", "transactions", writes, fewer(o.events), oltp("oltp_write_only", fewer(o.events))),
		}},
		{targetBySQL, []measurement{
			backlog("portable", "transactions", writes, fewer(o.events), oltp("oltp_write_only", fewer(o.events))),
		}},
		{pair, []measurement{{"conflicts", conflicts}}},
		{oneFar, []measurement{{"shaped", shaped}}},
	}
}

// apart is what is measured only when it is asked for.
func apart() []heat {
	return []heat{{nobody, []measurement{{"recovery", recovery}}}}
}

// nobody replicates: the measurement starts its servers itself.
func nobody(*field) []entry { return nil }

// fewer is the size of a backlog that is drained several times at once, or slowly: the suite has to end within its time.
func fewer(transactions int) int { return transactions / 4 }

// names are those of the measurements.
func names(all []heat) (list []string) {
	for _, h := range all {
		for _, m := range h.measurements {
			list = append(list, m.name)
		}
	}
	return list
}

// only leaves the measurements of a list of names, in their order, and the heats that they need; "" leaves the usual ones.
func only(usual, apart []heat, list string) (chosen []heat, err error) {
	if list == "" {
		return usual, nil
	}
	all := slices.Concat(usual, apart)
	wanted := strings.Split(list, ",")
	for _, name := range wanted {
		if !slices.Contains(names(all), name) {
			return nil, fmt.Errorf("nothing is called %q: -only takes some of %s", name, strings.Join(names(all), ","))
		}
	}
	for _, h := range all {
		h.measurements = slices.DeleteFunc(slices.Clone(h.measurements), func(m measurement) bool { return !slices.Contains(wanted, m.name) })
		if len(h.measurements) > 0 {
			chosen = append(chosen, h)
		}
	}
	return chosen, nil
}

// The links of a replicator.
const (
	oneWay   = "[{from: source, to: target1}]"
	everyWay = "mesh"
)

// oneTarget has the ways to carry everything from one server to another.
func oneTarget(f *field) []entry {
	return append(natives(f, 1),
		entry{name: "one-way", targets: 1, enter: func(targets []*sandbox.Server) contender {
			return &replicator{field: f, servers: targets, links: oneWay, path: applier.Replay, label: "replicator"}
		}},
		entry{name: "two-way", targets: 1, enter: func(targets []*sandbox.Server) contender {
			return &replicator{field: f, servers: targets, links: everyWay, path: applier.Replay, label: "replicator, both ways"}
		}})
}

// threeTargets has the ways to carry everything from one server to three.
func threeTargets(f *field) []entry {
	const targets = 3
	return append(natives(f, targets), entry{name: "mesh", targets: targets, enter: func(targets []*sandbox.Server) contender {
		return &replicator{field: f, servers: targets, links: everyWay, path: applier.Replay, label: "replicator, a mesh of four"}
	}})
}

// targetBySQL has a target that cannot replay events.
func targetBySQL(f *field) []entry {
	return append(natives(f, 1), entry{name: "by-sql", targets: 1, bySQL: true, enter: func(targets []*sandbox.Server) contender {
		return &replicator{field: f, servers: targets, links: oneWay, path: applier.Portable, label: "replicator, by SQL"}
	}})
}

// pair has two servers that are both written to, which the servers' own replication does not reconcile.
func pair(f *field) []entry {
	return []entry{{name: "pair", targets: 1, enter: func(targets []*sandbox.Server) contender {
		return &replicator{field: f, servers: targets, links: everyWay, path: applier.Replay, label: "replicator, both ways"}
	}}}
}

// oneFar has one source and one target, one of which is far away.
func oneFar(f *field) []entry {
	return []entry{{name: "far", targets: 1, enter: func(targets []*sandbox.Server) contender {
		return &replicator{field: f, servers: targets, links: oneWay, path: applier.Replay, label: "replicator"}
	}}}
}

// natives are the servers' own replication as it is set up for speed: which way is faster on MariaDB depends on the load.
func natives(f *field, targets int) []entry {
	native := func(name string, workers int) entry {
		return entry{name: name, targets: targets, enter: func(targets []*sandbox.Server) contender {
			return &nativeReplicas{source: f.source, servers: targets, workers: workers}
		}}
	}
	all := []entry{native("native", 4)}
	if f.flavor.MariaDB() {
		all = append(all, native("native-serial", 0))
	}
	return all
}

// backlog measures how fast what was produced while nobody replicated is drained.
func backlog(name, unit string, changes, count int, produce func(ctx context.Context, f *field) error) measurement {
	w := workload{name, unit, count, changes, produce}
	return measurement{name, func(ctx context.Context, f *field) (figures, error) {
		results, err := f.measure(ctx, w)
		return figures{results: results}, err
	}}
}

func (h heat) run(ctx context.Context, o options, flavor sandbox.Flavor) (all figures, err error) {
	f := &field{options: o, flavor: flavor}
	ready := stopwatch()
	err = f.prepare(ctx, h.entries(f))
	preparing := ready()
	defer func() {
		closed := stopwatch()
		f.close()
		all.spells = append(all.spells, spell{flavor, "the servers of " + strings.Join(names([]heat{h}), ", "), preparing + closed()})
	}()
	if err != nil {
		return all, err
	}
	for _, m := range h.measurements {
		done := stopwatch()
		of, err := m.take(ctx, f)
		of.spells = append(of.spells, spell{flavor, m.name, done()})
		all.add(of)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// figures are what was measured, in order.
type figures struct {
	results   []result
	latencies []latency
	contests  []contest
	passages  []passage
	rescues   []rescue
	spells    []spell
}

// spell is how long a part of the suite took, all rounds of all contenders and the production of their backlogs included.
type spell struct {
	flavor sandbox.Flavor
	part   string
	took   time.Duration
}

func stopwatch() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return time.Since(began) }
}

func (all *figures) add(f figures) {
	all.results = slices.Concat(all.results, f.results)
	all.latencies = slices.Concat(all.latencies, f.latencies)
	all.contests = slices.Concat(all.contests, f.contests)
	all.passages = slices.Concat(all.passages, f.passages)
	all.rescues = slices.Concat(all.rescues, f.rescues)
	all.spells = slices.Concat(all.spells, f.spells)
}
