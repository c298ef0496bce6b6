// Package demo shows the program at work on this machine: three real servers, one replicator process per server, load on
// all of them, a link cut and healed, and a comparison at the end.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"replicator/mesh"
	"replicator/sandbox"
)

const (
	pollEvery     = 20 * time.Millisecond
	progressEvery = 2 * time.Second

	linkPatience  = 60 * time.Second
	drainPatience = 2 * time.Minute // a busy machine is slow, not wrong

	beforeCut = 3 * time.Second
	cutTime   = 5 * time.Second
	afterCut  = 3 * time.Second
)

// Options say what to show.
type Options struct {
	Program  string           // the replicator's executable
	Flavors  []sandbox.Flavor // of the three servers; empty: the first that can be had
	Keep     bool             // leave everything running until the context ends
	Progress io.Writer
}

// Result is what was measured.
type Result struct {
	Servers      int
	Tables       int
	TablesEqual  int
	Acknowledged int64   // row changes
	Arrived      []int64 // row changes, per server
	Lost         int64   // row changes that lost a conflict
	Link         string
	Cut          time.Duration
	CaughtUp     time.Duration // from the healing on; 0: it did not
	Took         time.Duration
	Failures     []string // what is not as it should be
}

// Passed reports whether everything arrived and is equal.
func (r *Result) Passed() bool { return len(r.Failures) == 0 }

// Write prints the result in four lines.
func (r *Result) Write(w io.Writer) error {
	arrived := fmt.Sprintf("%d on every server", r.Acknowledged)
	if slices.ContainsFunc(r.Arrived, func(n int64) bool { return n != r.Acknowledged }) {
		arrived = fmt.Sprintf("%d on the server with the fewest", slices.Min(r.Arrived))
	}
	caughtUp := "did not catch up"
	if r.CaughtUp > 0 {
		caughtUp = fmt.Sprintf("caught up in %.1f s", r.CaughtUp.Seconds())
	}
	verdict := "PASSED"
	if !r.Passed() {
		verdict = "FAILED"
	}
	_, err := fmt.Fprintf(w, `tables equal: %d of %d on %d servers
changes: %d acknowledged, %s; %d rows lost a conflict
link %s: cut %.1f s, %s
DEMO %s in %.0f s
`, r.TablesEqual, r.Tables, r.Servers, r.Acknowledged, arrived, r.Lost, r.Link, r.Cut.Seconds(), caughtUp, verdict, r.Took.Seconds())
	return err
}

// show is one demo under way.
type show struct {
	options Options
	began   time.Time
	stage   *stage
	load    *load
	result  Result
}

// Run shows the program at work. The result is handed to report as soon as it is there; with Keep everything goes on
// afterwards until the context ends. An error means that the demo could not be carried through.
func Run(ctx context.Context, o Options, report func(*Result) error) (err error) {
	d := &show{options: o, began: time.Now()}
	defer func() {
		if d.stage == nil {
			return
		}
		if err != nil && ctx.Err() == nil {
			d.say("%s", d.stage.logs())
		}
		err = errors.Join(err, d.stage.close(), sandbox.Leave())
	}()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	d.load = newLoad(d.stage)
	d.load.start(ctx)
	err = d.act(ctx)
	if err = errors.Join(err, d.load.halt()); err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	d.result.Took = time.Since(d.began)
	if !d.result.Passed() {
		d.say("%s", d.stage.logs())
	}
	if err := report(&d.result); err != nil || !o.Keep {
		return err
	}
	d.explain()
	<-ctx.Done()
	return nil
}

func (d *show) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	// Whoever does not read the progress does not want it.
	_, _ = fmt.Fprintf(d.options.Progress, "%5.1f s  %s\n", time.Since(d.began).Seconds(), line)
}

// prepare starts the servers and waits for all links.
func (d *show) prepare(ctx context.Context) error {
	if err := d.startServers(ctx); err != nil {
		return err
	}
	for _, s := range d.stage.sites {
		d.say("server %s (%s) is up at %s", s.name, s.server.Flavor(), s.server.Addr())
	}
	if err := d.stage.startProcesses(ctx, d.options.Program); err != nil {
		return err
	}
	if err := d.stage.awaitLinks(ctx); err != nil {
		return fmt.Errorf("wait for the links: %w", err)
	}
	d.say("three replicator processes run, one per server; every link runs")
	return nil
}

// startServers starts the flavors that were asked for, or else the first that can be had three times.
func (d *show) startServers(ctx context.Context) (err error) {
	choices := [][]sandbox.Flavor{d.options.Flavors}
	if len(d.options.Flavors) == 0 {
		choices = nil
		for _, f := range append([]sandbox.Flavor{sandbox.MySQL97}, append(sandbox.Installed(), sandbox.MariaDB118)...) {
			choices = append(choices, slices.Repeat([]sandbox.Flavor{f}, len(siteNames)))
		}
	}
	var errs []error
	for _, flavors := range choices {
		d.say("starting three servers: %s (the first time, packages may have to be fetched)", join(flavors))
		if d.stage, err = newStage(ctx, flavors); err == nil {
			return nil
		}
		errs = append(errs, err)
		if d.stage == nil || ctx.Err() != nil {
			break
		}
		errs = append(errs, d.stage.close())
		d.stage = nil
	}
	return errors.Join(errs...)
}

// act is what happens under load: a link is cut, and healed.
func (d *show) act(ctx context.Context) error {
	east, west := d.stage.sites[0], d.stage.sites[1]
	d.result.Link = east.name + "-" + west.name
	d.say("load: %d clients on each server write to %d tables, some of them to the same rows", clientsPerServer+1, len(tables()))
	if err := d.pass(ctx, beforeCut); err != nil {
		return err
	}
	heal, err := cutLink(east, west) //nolint:contextcheck // to heal a proxy takes no longer when nobody waits for it
	if err != nil {
		return fmt.Errorf("cut link %s: %w", d.result.Link, err)
	}
	cut := time.Now()
	d.say("link %s is cut", d.result.Link)
	if err := d.pass(ctx, cutTime); err != nil {
		return err
	}
	toWest, toEast := d.load.mark(east), d.load.mark(west)
	d.result.Cut = time.Since(cut)
	healed := time.Now()
	if err := heal(); err != nil {
		return fmt.Errorf("heal link %s: %w", d.result.Link, err)
	}
	d.say("link %s is healed", d.result.Link)
	err = d.stage.await(ctx, drainPatience, func() error {
		return errors.Join(toWest.reached(ctx, west), toEast.reached(ctx, east))
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		d.fail("link %s did not catch up: %v", d.result.Link, err)
		return nil
	}
	d.result.CaughtUp = time.Since(healed)
	d.say("link %s has caught up", d.result.Link)
	return d.pass(ctx, afterCut)
}

// pass lets the load go on for a while.
func (d *show) pass(ctx context.Context, period time.Duration) error {
	end := time.NewTimer(period)
	defer end.Stop()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.load.done:
			return errors.New("the load ended")
		case <-end.C:
			return nil
		case <-tick.C:
			_, changes := d.load.acknowledged()
			d.say("%d changes acknowledged; %s", changes, d.linkText(ctx))
		}
	}
}

func (d *show) linkText(ctx context.Context) string {
	links, err := d.stage.links(ctx)
	if err != nil {
		return err.Error()
	}
	running, lag := 0, 0.0
	for _, l := range links {
		if l.State == mesh.Running || l.State == mesh.CatchingUp {
			running++
		}
		if l.LagSeconds != nil {
			lag = max(lag, *l.LagSeconds)
		}
	}
	return fmt.Sprintf("%d of %d links apply, greatest lag %.1f s", running, len(links), lag)
}

func (d *show) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.result.Failures = append(d.result.Failures, text)
	d.say("NOT AS IT SHOULD BE: %s", text)
}

// settle waits until everything has arrived everywhere, and compares.
func (d *show) settle(ctx context.Context) error {
	transactions, changes := d.load.acknowledged()
	d.result.Acknowledged = changes
	d.say("load stopped: %d transactions, %d row changes acknowledged", transactions, changes)
	began := time.Now()
	err := d.stage.await(ctx, drainPatience, func() error {
		for _, s := range d.stage.sites {
			have, _, err := s.ledger(ctx)
			if err != nil {
				return err
			}
			if have < transactions {
				return fmt.Errorf("%s has %d of %d transactions", s.name, have, transactions)
			}
		}
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		d.fail("not everything arrived: %v", err)
	default:
		d.say("all links are drained after %.1f s", time.Since(began).Seconds())
	}
	if err := d.compare(ctx); err != nil {
		return err
	}
	return d.conflicts(ctx)
}

func (d *show) compare(ctx context.Context) error {
	r := &d.result
	r.Servers, r.Tables = len(d.stage.sites), len(tables())
	for _, s := range d.stage.sites {
		_, changes, err := s.ledger(ctx)
		if err != nil {
			return err
		}
		r.Arrived = append(r.Arrived, changes)
		if changes != r.Acknowledged {
			d.fail("%s has %d row changes, %d were acknowledged", s.name, changes, r.Acknowledged)
		}
	}
	for _, t := range tables() {
		difference, err := d.stage.difference(ctx, t)
		if err != nil {
			return err
		}
		if difference != "" {
			d.fail("%s", difference)
			continue
		}
		r.TablesEqual++
	}
	for i := range itemTables {
		difference, err := d.load.expected(ctx, d.stage.sites[0], i)
		if err != nil {
			return err
		}
		if difference != "" {
			d.fail("%s", difference)
		}
	}
	return nil
}

// conflicts counts what lost, by the rows themselves, and asks the processes whether they noticed.
func (d *show) conflicts(ctx context.Context) error {
	var err error
	if d.result.Lost, err = d.load.lostIncrements(ctx, d.stage.sites[0]); err != nil {
		return err
	}
	links, err := d.stage.links(ctx)
	if err != nil {
		return err
	}
	var lost, overwritten int64
	for _, l := range links {
		lost += *l.LostRows
		overwritten += *l.OverwrittenRows
	}
	d.say("conflicts, as the links counted them: %d rows lost, %d were overwritten", lost, overwritten)
	if d.result.Lost < 0 || d.result.Lost > lost+overwritten {
		d.fail("%d increments of shared rows are not in the result, the links counted %d conflicts", d.result.Lost, lost+overwritten)
	}
	return nil
}

// explain says how to reach what is left running.
func (d *show) explain() {
	d.say("everything is left running until it is interrupted (Ctrl-C):")
	for _, s := range d.stage.sites {
		d.say("  %s: mysql -h 127.0.0.1 -P %d -u root -p%s %s", s.name, s.server.Port(), s.server.Password(), database)
		d.say("  %s: http://%s/api/v1/status; %s status --config %s; its log: %s", s.name, s.listen, d.options.Program, s.config, s.log)
	}
}

func join(flavors []sandbox.Flavor) string {
	names := make([]string, len(flavors))
	for i, f := range flavors {
		names[i] = string(f)
	}
	return strings.Join(names, ", ")
}
