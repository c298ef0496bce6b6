package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"replicator/sandbox"
)

const (
	pace        = 200 // transactions a second
	paceFor     = 15 * time.Second
	lookEvery   = 200 * time.Microsecond
	steadyTable = database + ".steady"
)

// latency is how long rows took from the commit on the source until they were seen on the target, for one contender.
type latency struct {
	flavor    sandbox.Flavor
	contender string
	took      []time.Duration // in order of length
}

func (l *latency) at(share float64) time.Duration {
	return l.took[min(len(l.took)-1, int(share*float64(len(l.took))))]
}

// latencies lets one contender after the other carry a light, steady load.
func latencies(ctx context.Context, f *field) (all figures, err error) {
	for _, c := range f.contenders {
		l, err := f.latency(ctx, c)
		if err != nil {
			return all, fmt.Errorf("%s: measure its latency: %w", c.name(), err)
		}
		all.latencies = append(all.latencies, l)
		say("%s latency of %-24s p50 %s, p99 %s, max %s", f.flavor, c.name(), l.at(0.5), l.at(0.99), l.at(1))
	}
	return all, nil
}

func (f *field) latency(ctx context.Context, c contender) (l latency, err error) {
	l = latency{flavor: f.flavor, contender: c.name()}
	if err := c.start(ctx); err != nil {
		return l, err
	}
	last, err := f.mark(ctx, f.source)
	if err != nil {
		return l, err
	}
	if err := f.arrived(ctx, last, c.targets()...); err != nil {
		return l, err
	}
	first := f.paced + 1
	count := int(pace * paceFor.Seconds())
	f.paced += count
	seen := make(chan []time.Time, 1)
	failed := make(chan error, 1)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	go func() {
		times, err := watch(ctx, c.targets()[0], first, count)
		seen <- times
		failed <- err
	}()
	committed := make([]time.Time, 0, count)
	tick := time.NewTicker(time.Second / pace)
	defer tick.Stop()
	for i := range count {
		<-tick.C
		if _, err := f.source.DB().ExecContext(ctx, "INSERT INTO "+steadyTable+" VALUES (?)", first+i); err != nil {
			return l, err
		}
		committed = append(committed, time.Now())
	}
	arrived := <-seen
	if err := <-failed; err != nil {
		return l, err
	}
	for i, at := range arrived {
		l.took = append(l.took, max(0, at.Sub(committed[i]))) // it can be seen before the source has answered
	}
	slices.Sort(l.took)
	_, err = c.stop(ctx)
	return l, err
}

// watch notes when each of count rows is there.
func watch(ctx context.Context, s *sandbox.Server, first, count int) ([]time.Time, error) {
	conn, err := s.DB().Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	look, err := conn.PrepareContext(ctx, "SELECT COALESCE(MAX(id), 0) FROM "+steadyTable)
	if err != nil {
		return nil, err
	}
	defer look.Close()
	var times []time.Time
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for len(times) < count {
		var last int
		if err := look.QueryRowContext(ctx).Scan(&last); err != nil {
			return nil, err
		}
		for now := time.Now(); len(times) < last-first+1; {
			times = append(times, now)
		}
		<-tick.C
	}
	return times, nil
}

// latencySection prints the figures of one flavor.
func latencySection(b *strings.Builder, all []latency) {
	fmt.Fprintf(b, "\n## %s: from the commit on the source until seen on the target\n\n%d transactions of one row a second, for %s. The target is asked\n%s after each answer.\n\n"+
		"| contender | p50 ms | p99 ms | max ms |\n|---|---|---|---|\n", all[0].flavor, pace, paceFor, lookEvery)
	for _, l := range all {
		fmt.Fprintf(b, "| %s | %.1f | %.1f | %.1f |\n", l.contender, ms(l.at(0.5)), ms(l.at(0.99)), ms(l.at(1)))
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
