package mesh

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
	"replicator/resync"
	"replicator/server"
	"replicator/verify"
)

// Resyncs are the resync jobs of a mesh, asked for and watched without a process.
type Resyncs struct {
	config    *config.Config
	witnesses []*witness
}

// Resync is a job and the server that it changes.
type Resync struct {
	*resync.Job
	From, To string
}

// OpenResyncs connects to every server of a configuration. Close ends the connections.
func OpenResyncs(ctx context.Context, c *config.Config) (*Resyncs, error) {
	witnesses, err := newWitnesses(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Resyncs{c, witnesses}, nil
}

// Close ends the connections.
func (r *Resyncs) Close() { closeAll(r.witnesses) }

// witness is the server of a name, if it can be asked and takes part in the mesh.
func (r *Resyncs) witness(name string) (*witness, error) {
	var names []string
	for _, w := range r.witnesses {
		if names = append(names, w.status.Name); w.status.Name != name {
			continue
		}
		if f := w.status.Error; f != nil {
			return nil, &fault.Error{Class: fault.Class(f.Class), Message: name + ": " + f.Message, Remedy: f.Remedy}
		}
		if w.identity == nil {
			return nil, fault.New(fault.Precondition, "start replicator run once with this configuration", "%s has no identity yet: the mesh has not been started", name)
		}
		return w, nil
	}
	return nil, fault.New(fault.Configuration, "name one of "+strings.Join(names, ", "), "there is no server %q", name)
}

// Targets are the servers to which links lead from a server. That there is none is an error.
func (r *Resyncs) Targets(from string) ([]string, error) {
	if _, err := r.witness(from); err != nil {
		return nil, err
	}
	names := r.targets(from)
	if len(names) == 0 {
		return nil, fault.New(fault.Configuration, "name another server with --from", "no link leads from %s to another server", from)
	}
	return names, nil
}

func (r *Resyncs) targets(from string) (names []string) {
	for _, l := range r.config.Links {
		if l.From == from {
			names = append(names, l.To)
		}
	}
	return names
}

// apart says in what the changes that two servers receive differ, "" where they receive the same ones, each other's included.
func (r *Resyncs) apart(from, to string) string {
	has := func(a, b string) bool { return slices.Contains(r.targets(a), b) }
	if !has(to, from) {
		return fmt.Sprintf("changes of %s do not reach %s, and would be undone", to, from)
	}
	for _, w := range r.witnesses {
		switch o := w.status.Name; {
		case o == from || o == to || has(o, from) == has(o, to):
		case has(o, to):
			return fmt.Sprintf("changes of %s reach %s and not %s, and would be undone", o, to, from)
		default:
			return fmt.Sprintf("changes of %s reach %s and are not meant to reach %s", o, from, to)
		}
	}
	return ""
}

// Ask has a table of some servers made equal to that of another; forced also where the servers do not receive the same changes.
// Where the same has been asked for before and has not ended, it is that job that is returned. Nothing is asked for unless all
// of the servers can do it.
func (r *Resyncs) Ask(ctx context.Context, from string, to []string, j resync.Job, forced bool) ([]Resync, error) {
	if err := r.fits(ctx, from, to, j, forced); err != nil {
		return nil, err
	}
	source, err := r.witness(from)
	if err != nil {
		return nil, err
	}
	j.Source = source.identity.ID
	open, err := r.open(ctx, from, to, j)
	if err != nil {
		return nil, err
	}
	for _, name := range to {
		w, err := r.witness(name)
		if err == nil {
			err = w.awaitOwner(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	var all []Resync
	for _, name := range to {
		w, err := r.witness(name)
		if err != nil {
			return all, err
		}
		job := open[name]
		if job == nil {
			if job, err = resync.Ask(ctx, w.server.DB(), j); err != nil {
				return all, server.Fault(err, "ask for a resync on "+name)
			}
		}
		all = append(all, Resync{Job: job, From: from, To: name})
	}
	return all, nil
}

// fits makes sure that a table can be made equal, as far as that can be seen beforehand.
func (r *Resyncs) fits(ctx context.Context, from string, to []string, j resync.Job, forced bool) error {
	source, err := r.witness(from)
	switch {
	case err != nil:
		return err
	case !r.config.Tables.Matches(j.Table):
		return fault.New(fault.Configuration, "see tables.include and tables.exclude", "table %s is not replicated", j.Table)
	}
	if _, err := try(ctx, source, j); err != nil {
		return err
	}
	for _, name := range to {
		target, err := r.witness(name)
		if err != nil {
			return err
		}
		if !slices.Contains(r.targets(from), name) {
			return fault.New(fault.Configuration, "take the rows of a server that has a link to "+name, "no link leads from %s to %s", from, name)
		}
		if why := r.apart(from, name); why != "" && !forced {
			return fault.New(fault.Configuration, "name another server with --from; or, if that is what you want, add --force", "%s and %s do not receive the same changes: %s",
				from, name, why)
		}
		t, err := try(ctx, target, j)
		if err == nil {
			err = resync.Silent(t, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// open are the jobs of the table that are under way and do what is asked for, by target. Others may not be: a copy of rows that are
// themselves being replaced would be of no use.
func (r *Resyncs) open(ctx context.Context, from string, to []string, j resync.Job) (map[string]*resync.Job, error) {
	same := map[string]*resync.Job{}
	for _, w := range r.witnesses {
		name := w.status.Name
		if w.status.Error != nil || w.identity == nil {
			continue // it is neither source nor target, and a job of a server that is away waits
		}
		job, err := resync.Open(ctx, w.server.DB(), j.Table)
		switch {
		case server.IsMissingTable(err):
			continue
		case err != nil:
			return nil, server.Fault(err, "look for resync jobs on "+name)
		case job == nil:
			continue
		}
		target := slices.Contains(to, name)
		if target && job.Source == j.Source && job.Where == j.Where {
			same[name] = job
			continue
		}
		if target || name == from || slices.Contains(to, r.nameOf(job.Source)) {
			return nil, fault.New(fault.Precondition, fmt.Sprintf("wait until it has ended, or end it: replicator resync cancel %s --to %s", j.Table, name),
				"another resync of %s is under way, from %s to %s", j.Table, r.nameOf(job.Source), name)
		}
	}
	return same, nil
}

// ownerPatience is how long to wait for the heartbeat of a process that has just begun.
const ownerPatience = 5 * time.Second

// awaitOwner returns when a process applies to the server.
func (w *witness) awaitOwner(ctx context.Context) error {
	for until := time.Now().Add(ownerPatience); !w.owned; {
		if time.Now().After(until) {
			return fault.New(fault.Precondition, "start `replicator run` with this configuration",
				"no process applies to %s", w.status.Name)
		}
		if err := wait(ctx, watchEvery); err != nil {
			return err
		}
		if err := w.ask(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Differ compares a table of two servers as it is to be made equal, and changes nothing. The report's first server is that whose
// rows are right. What cannot be made equal is refused as it would be.
func (r *Resyncs) Differ(ctx context.Context, from, to string, j resync.Job, forced bool, o verify.Options) (verify.Report, error) {
	var servers []verify.Server
	names := []string{from, to}
	if err := r.fits(ctx, from, []string{to}, j, forced); err != nil {
		return verify.Report{}, err
	}
	for _, name := range names {
		w, err := r.witness(name)
		if err != nil {
			return verify.Report{}, err
		}
		servers = append(servers, w.compared())
	}
	for _, w := range r.witnesses { // what they have sent is awaited
		if name := w.status.Name; !slices.Contains(names, name) && w.status.Error == nil && w.identity != nil {
			names = append(names, name)
			o.Others = append(o.Others, w.compared())
		}
	}
	var links []verify.Link
	for _, l := range r.config.Links {
		a, b := slices.Index(names, l.From), slices.Index(names, l.To)
		if a >= 0 && (b == 0 || b == 1) {
			links = append(links, verify.Link{From: a, To: b})
		}
	}
	t := times(r.config)
	o.Passing, o.Where, o.Numbered = true, j.Where, t.Numbered
	o.Match = func(name change.TableName) bool { return r.config.Tables.Matches(name) && name == j.Table }
	return verify.Run(ctx, servers, links, o)
}

// try makes sure that a server has the table and understands the condition.
func try(ctx context.Context, w *witness, j resync.Job) (*server.Table, error) {
	db, name := w.server.DB(), w.status.Name
	t, err := server.OneTable(ctx, db, j.Table)
	switch {
	case err != nil:
		return nil, server.Fault(err, fmt.Sprintf("read the definition of %s on %s", j.Table, name))
	case t == nil:
		return nil, fault.New(fault.Definition, "make the table there", "%s does not have table %s", name, j.Table)
	case j.Where == "":
		return t, nil
	case !resync.Condition(j.Where):
		return nil, fault.New(fault.Configuration, "close what it opens, and leave comments out", "the condition does not stand by itself: %s", j.Where)
	}
	var one int
	err = db.QueryRowContext(ctx, "SELECT 1 FROM "+server.Quote(j.Table.Database)+"."+server.Quote(j.Table.Table)+" WHERE ("+j.Where+") LIMIT 1").Scan(&one)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Wrap(err, fault.Configuration, "give a condition over the table's columns, as behind WHERE", "%s does not take the condition", name)
	}
	return t, nil
}

// Watch returns when all jobs have ended, with the error of the context before that. Jobs are kept up to date; tell is called
// whenever they have been looked at.
func (r *Resyncs) Watch(ctx context.Context, jobs []Resync, tell func()) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	looked := time.Now() // for owners
	alone := make([]bool, len(jobs))
	for {
		left := false
		for i := range jobs {
			if jobs[i].State.Ended() {
				continue
			}
			w, err := r.witness(jobs[i].To)
			if err != nil {
				return err
			}
			now, err := resync.Load(ctx, w.server.DB(), jobs[i].ID)
			switch {
			case err == nil:
				jobs[i].Job = now
				if !now.State.Ended() && time.Since(looked) > upkeepEvery {
					w.owned = false
					alone[i] = w.ask(ctx) == nil && !w.owned // what is wrong with the server shows at the next reading
				}
				if alone[i] && !now.State.Ended() {
					jobs[i].Note = "no process applies to it: it goes on when `replicator run` is started"
				}
			case ctx.Err() != nil:
				return ctx.Err()
			default: // the server may come back: the job goes on then
				jobs[i].Note = server.Fault(err, "ask "+jobs[i].To).Text()
			}
			left = left || !jobs[i].State.Ended()
		}
		if time.Since(looked) > upkeepEvery {
			looked = time.Now()
		}
		tell()
		if !left {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const watchEvery = 300 * time.Millisecond

// List are the newest jobs of all servers that can be asked; failed are those that cannot.
func (r *Resyncs) List(ctx context.Context) (all []Resync, failed []error) {
	for _, w := range r.witnesses {
		if _, err := r.witness(w.status.Name); err != nil {
			failed = append(failed, err)
			continue
		}
		jobs, err := resync.List(ctx, w.server.DB())
		if err != nil && !server.IsMissingTable(err) {
			failed = append(failed, server.Fault(err, "read the resync jobs of "+w.status.Name))
			continue
		}
		for _, j := range jobs {
			all = append(all, Resync{Job: j, From: r.nameOf(j.Source), To: w.status.Name})
		}
	}
	slices.SortStableFunc(all, func(a, b Resync) int { return a.Asked.Compare(b.Asked) })
	return all, failed
}

func (r *Resyncs) nameOf(id change.ServerID) string {
	for _, w := range r.witnesses {
		if w.identity != nil && w.identity.ID == id {
			return w.status.Name
		}
	}
	return id.String()
}

// Cancel ends the jobs of a table on some servers, all of them where none is named, and returns those that it has ended.
func (r *Resyncs) Cancel(ctx context.Context, table change.TableName, to []string) (ended []Resync, err error) {
	if len(to) == 0 {
		for _, w := range r.witnesses {
			if w.status.Error == nil && w.identity != nil {
				to = append(to, w.status.Name)
			}
		}
	}
	for _, name := range to {
		w, err := r.witness(name)
		if err != nil {
			return ended, err
		}
		j, err := resync.Open(ctx, w.server.DB(), table)
		if err == nil && j != nil {
			err = resync.Cancel(ctx, w.server.DB(), j.ID)
		}
		if server.IsMissingTable(err) {
			continue
		}
		if err != nil {
			return ended, server.Fault(err, "cancel a resync on "+name)
		}
		if j != nil {
			ended = append(ended, Resync{Job: j, From: r.nameOf(j.Source), To: name})
		}
	}
	return ended, nil
}
