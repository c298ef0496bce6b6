package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/conflict"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/journal"
	"replicator/server"
)

// Copies are rows of the source as it had them at one moment, to take the place of the target's. The rows' primary keys are
// all different.
type Copies struct {
	Table *change.Table // the source's definition
	Rows  []Copy
	Hold  *conflict.Hold // made before the rows were read; they have in them what it covers
	Until change.GTIDSet // covers everything that the rows have in them
	// Save is called in the target's transaction, behind the rows. It is not called when nothing is to be written.
	Save func(ctx context.Context, q checkpoint.Querier, c Copied) error
}

// Copy is one row.
type Copy struct {
	Named  []image.Value // has the primary key; one value per column of the table
	Values []image.Value // nil: the source does not have the row
}

// Copied is what became of the rows.
type Copied struct {
	Inserted, Updated, Deleted int64
	Equal                      int64 // the target had the same
	Newer                      int64 // a change that the copy may lack decides about the row, by the ordinary rules
	// Moving are numbers of rows that were left alone because changes of single columns meet in them: they are to be copied
	// again.
	Moving []int
	// Rivals are rows of the target, no copies of which were given, that hold a value of a unique key that a copy brings:
	// nothing was written. They are to be copied together with the others.
	Rivals [][]image.Value
}

// Written is how many rows were changed.
func (c *Copied) Written() int64 { return c.Inserted + c.Updated + c.Deleted }

const (
	// copyPatience is how long a link has to come behind what copies have in them. The index grows meanwhile.
	copyPatience = 30 * time.Second
	copyPoll     = 5 * time.Millisecond
)

// errLinkEnded says that a link has no run at present.
var errLinkEnded = errors.New("the link does not run")

// Copy brings copies of the source's rows to the target: behind everything that they have in them, as one transaction with a
// marker, in the order of the link. A row for which the index has a change that the copy may lack stays as it is: the links
// see to it. What is overwritten or deleted is journaled.
//
// It returns when the rows are committed, or will not be. Errors are faults; the link goes on.
func (l *Link) Copy(ctx context.Context, c *Copies) (Copied, error) {
	r := &copyRequest{Copies: c, gone: ctx.Err, since: time.Now(), done: make(chan copyReply, 1)}
	patience := time.NewTimer(copyPatience)
	defer patience.Stop()
	select {
	case l.copying.requests <- r:
	case <-patience.C: // the index must not keep for it what it holds
		return Copied{}, fault.New(fault.Busy, "wait: it is tried again; see `replicator status`", "link %s→%s has been busy with one transaction for %s, or waits for a decision",
			l.opt.Source, l.opt.Target, copyPatience)
	case <-l.copying.ended:
		return Copied{}, fault.Wrap(errLinkEnded, fault.Unavailable, "wait: it is tried again", "copy rows of %s to %s", c.Table.Name, l.opt.Target)
	case <-ctx.Done():
		return Copied{}, ctx.Err()
	}
	reply := <-r.done // a link that has taken a request answers it: until then the index must keep what it holds
	return reply.Copied, reply.err
}

type copyRequest struct {
	*Copies
	gone   func() error // why nobody waits for it any more
	since  time.Time
	behind *change.Context // what the source had applied when it had everything that the rows have in them; nil: not known yet
	queued bool
	done   chan copyReply

	displace bool                // rows are deleted before they are written anew: they exchange values of unique keys
	blocked  map[change.Key]bool // rows whose values of unique keys a newer row holds
}

type copyReply struct {
	Copied
	err error
}

func (r *copyRequest) reply(c Copied, err error) { r.done <- copyReply{c, err} }

// copying is the request that a link's run has taken.
type copying struct {
	requests chan *copyRequest
	ended    chan struct{}
	request  *copyRequest
	read     *group // the last one that was read
}

func newCopying() copying {
	return copying{requests: make(chan *copyRequest), ended: make(chan struct{})}
}

// accept is where the next request comes from; nowhere while there is one.
func (c *copying) accept() <-chan *copyRequest {
	if c.request != nil {
		return nil
	}
	return c.requests
}

// poll is when to look again whether the request is ready.
func (c *copying) poll() <-chan time.Time {
	if c.request == nil || c.request.queued {
		return nil
	}
	return time.After(copyPoll)
}

// ready returns the group that carries the request out, once the link has read what its rows have in them and the target
// has everything that the source had seen then.
func (c *copying) ready(o Options) *group {
	r := c.request
	if r == nil || r.queued {
		return nil
	}
	if r.behind == nil && c.read.end.Covers(r.Until) {
		r.behind = &c.read.clock.Context
	}
	switch {
	case r.gone() != nil:
		c.answer(Copied{}, r.gone())
	case r.behind != nil && len(o.Index.Lacks(*r.behind)) == 0:
		r.queued = true
		return &group{copies: r, start: c.read.end, end: c.read.end, clock: c.read.clock}
	case time.Since(r.since) <= copyPatience:
	case r.behind == nil:
		c.answer(Copied{}, fault.New(fault.Busy, "wait: it is tried again; see `replicator status` for the lag of the link",
			"link %s→%s is more than %s behind", o.Source, o.Target, copyPatience))
	default:
		c.answer(Copied{}, fault.New(fault.Busy, "wait: it is tried again; see `replicator status` for links to "+o.Target+" that do not run",
			"%s has changes of other servers that %s does not have yet", o.Source, o.Target))
	}
	return nil
}

func (c *copying) answer(done Copied, err error) {
	c.request.reply(done, err)
	c.request = nil
}

// end turns requests away.
func (c *copying) end() {
	close(c.ended)
	if c.request != nil {
		c.answer(Copied{}, fault.Wrap(errLinkEnded, fault.Unavailable, "wait: it is tried again", "copy rows of %s", c.request.Table.Name))
	}
}

// copy carries a request out; nothing else is under way.
func (l *Link) copy(ctx context.Context, g *group) error {
	r := g.copies
	l.bo.Reset()
	for attempt := 1; ; attempt++ {
		done, seq, err := l.copyOnce(ctx, g)
		if err == nil {
			if seq > 0 {
				l.seq, l.marked, l.markedAt = seq, time.Now(), g.clock.Time
				l.covered(g)
			}
			l.copying.answer(done, nil)
			return nil
		}
		if err := l.undo(ctx, err); err != nil {
			return err
		}
		switch {
		case errors.Is(err, checkpoint.ErrFenced):
			return l.fenced(ctx)
		case attempt < maxAttempts && r.gone() == nil && (again(err) || errors.Is(err, errDisplace)):
		default:
			l.copying.answer(Copied{}, l.targetFault(err, fmt.Sprintf("copy rows of %s", r.Table.Name)))
			return ctx.Err()
		}
		select {
		case <-time.After(l.bo.NextBackOff()):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errDisplace says that copies exchange values of unique keys, or are in each other's way in another manner.
var errDisplace = errors.New("copied rows are in each other's way")

// copier is one attempt to carry a request out.
type copier struct {
	link    *Link
	session *session
	request *copyRequest
	plan    *dml.Plan
	keys    []change.Key
	here    [][]image.Value // the target's rows; nil: none
	stays   []bool          // the row is left alone
	writes  []int
	done    Copied
}

// copyOnce is one transaction. seq is 0 when there was nothing to write.
//
// Safe under invariants 1, 2, 4, 5 and 6.
func (l *Link) copyOnce(ctx context.Context, g *group) (done Copied, seq uint64, err error) {
	s := l.session
	c := &copier{link: l, session: s, request: g.copies}
	epoch := l.opt.Definitions.Epoch()
	if err := s.begin(ctx, true); err != nil {
		return done, 0, err
	}
	if err := c.lock(ctx); err != nil {
		return done, 0, err
	}
	if err := l.reach(ctx, s); err != nil {
		return done, 0, err
	}
	if l.opt.Definitions.Epoch() != epoch {
		return done, 0, fmt.Errorf("a table of %s was just changed: %w", l.opt.Target, errBarrier)
	}
	if err := c.decide(); err != nil {
		return done, 0, err
	}
	if len(c.writes) == 0 {
		return c.done, 0, s.rollback(ctx)
	}
	seq, err = s.marker.Insert(ctx, l.seq, l.seq, g.end, g.clock, nil, server.IsDuplicateKey)
	if err != nil {
		return done, 0, err
	}
	switch err := c.write(ctx); {
	case err != nil && server.IsDuplicateKey(err):
		if err := c.rivals(ctx, err); err != nil {
			return done, 0, err
		}
		return Copied{Rivals: c.done.Rivals}, 0, s.rollback(ctx)
	case err != nil:
		return done, 0, err
	}
	// Absent rows are locked only now, when they are there.
	if c.done.Inserted > 0 {
		if err := l.reach(ctx, s); err != nil {
			return done, 0, err
		}
		for _, i := range c.writes {
			if newer, err := c.newer(i); err != nil || newer {
				return done, 0, errors.Join(err, errLockFirst)
			}
		}
	}
	if err := l.opt.Journal(ctx, s.conn, c.entries(g.clock)); err != nil {
		return done, 0, err
	}
	if err := c.request.Save(ctx, s.conn, c.done); err != nil {
		return done, 0, err
	}
	return c.done, seq, s.commit(ctx)
}

// lock reads and locks the target's rows. Absent ones stay absent until the transaction ends.
func (c *copier) lock(ctx context.Context) error {
	s, rows := c.session, c.request.Rows
	if err := s.speak(ctx, namesPortable); err != nil {
		return err
	}
	var err error
	if c.plan, err = s.portable.plan(ctx, c.request.Table); err != nil {
		return err
	}
	c.here, c.stays = make([][]image.Value, len(rows)), make([]bool, len(rows))
	for first := 0; first < len(rows); first += lockBatch {
		some := rows[first:min(first+lockBatch, len(rows))]
		named := make([][]image.Value, len(some))
		for i := range some {
			named[i] = some[i].Named
			key, err := s.opt.Keyer.RowKey(ctx, c.request.Table, some[i].Named)
			if err != nil {
				return fmt.Errorf("compute the key of a row: %w", err)
			}
			c.keys = append(c.keys, key)
		}
		query, err := c.plan.SelectRows(named, dml.Options{Lock: true})
		if err != nil {
			return err
		}
		found, err := query.Run(ctx, s.conn)
		if err != nil {
			return err
		}
		for _, f := range found {
			c.here[first+f.Index] = f.Values
		}
	}
	return nil
}

// newer reports whether the index has a change of a row that its copy may lack.
func (c *copier) newer(i int) (bool, error) {
	opt := &c.link.opt
	for _, key := range opt.Registers.of(c.request.Table).keys(c.keys[i]) {
		known, found, err := opt.Index.Lookup(key)
		if err != nil {
			return false, err
		}
		if found && !c.request.Hold.Covers(known.Version) {
			return true, nil
		}
	}
	return false, nil
}

// decide finds out which rows are to be written. All are locked, and the barrier is passed.
func (c *copier) decide() error {
	single := c.link.opt.Registers.of(c.request.Table) == nil
	for i := range c.request.Rows {
		newer, err := c.newer(i)
		switch {
		case err != nil:
			return err
		case newer && !single:
			c.stays[i] = true
			c.done.Moving = append(c.done.Moving, i)
		case newer || c.request.blocked[c.keys[i]]:
			c.stays[i] = true
			c.done.Newer++
		case c.row(c.here[i]) == nil && c.request.Rows[i].Values == nil, c.same(i):
			c.done.Equal++
		default:
			c.writes = append(c.writes, i)
		}
	}
	return nil
}

// same reports whether the target has the same row.
func (c *copier) same(i int) bool {
	documents := c.plan.Documents()
	return same(c.row(c.here[i]).WithDocuments(documents), c.row(c.request.Rows[i].Values).WithDocuments(documents))
}

func (c *copier) row(values []image.Value) *journal.Row {
	if values == nil {
		return nil
	}
	return &journal.Row{Table: c.request.Table, Values: values}
}

// write carries the decisions out. Foreign keys are not looked at: what refers to a row is there on the source, too, or is to
// be copied itself; and nothing goes with a row that goes.
func (c *copier) write(ctx context.Context) error {
	w := c.session.portable
	if err := w.check(ctx, false); err != nil {
		return err
	}
	send := func(x dml.Change) error {
		q, err := c.plan.Render(x)
		if err != nil {
			return err
		}
		return w.queue(ctx, c.plan, x.Kind, q)
	}
	gone := func(i int) bool { return c.request.Rows[i].Values == nil }
	inserted := func(i int) bool { return !gone(i) && (c.here[i] == nil || c.request.displace) }
	for _, i := range c.writes {
		if c.here[i] != nil && (gone(i) || c.request.displace) {
			if err := send(dml.Change{Kind: change.Delete, Before: c.here[i]}); err != nil {
				return err
			}
		}
	}
	for _, i := range c.writes {
		if !gone(i) && !inserted(i) {
			if err := send(dml.Change{Kind: change.Update, Before: c.here[i], After: c.request.Rows[i].Values}); err != nil {
				return err
			}
		}
	}
	for _, i := range c.writes {
		if inserted(i) {
			if err := send(dml.Change{Kind: change.Insert, After: c.request.Rows[i].Values}); err != nil {
				return err
			}
		}
		switch {
		case gone(i):
			c.done.Deleted++
		case c.here[i] == nil:
			c.done.Inserted++
		default:
			c.done.Updated++
		}
	}
	return w.flush(ctx)
}

// rivals finds the rows that hold values which copies bring; duplicate is what the server said.
func (c *copier) rivals(ctx context.Context, duplicate error) error {
	c.session.portable.reset()
	newer := false
	for _, i := range c.writes {
		if c.request.Rows[i].Values == nil {
			continue
		}
		holders, err := c.session.holders(ctx, c.plan, c.request.Rows[i].Values, c.keys[i])
		if err != nil {
			return err
		}
		for _, h := range holders {
			at := slices.Index(c.keys, h.key)
			switch {
			case at < 0:
				c.done.Rivals = append(c.done.Rivals, h.values)
			case c.stays[at] && !c.request.blocked[c.keys[i]]:
				if c.request.blocked == nil {
					c.request.blocked = map[change.Key]bool{}
				}
				c.request.blocked[c.keys[i]], newer = true, true
			}
		}
	}
	switch {
	case len(c.done.Rivals) > 0:
		return nil
	case newer || !c.request.displace:
		c.request.displace = true
		return errDisplace
	}
	return duplicate
}

// entries keep what is overwritten or deleted. It counts as a change that the target makes now: a row that is resynced twice
// is kept twice.
func (c *copier) entries(clock change.Clock) []*journal.Entry {
	opt := &c.link.opt
	now := change.Version{Time: max(change.TimeOf(time.Now()), clock.Time), Origin: opt.Self}
	donor := change.Version{Time: clock.Time, Origin: opt.Identity.ID}
	var list []*journal.Entry
	for _, i := range c.writes {
		if c.here[i] == nil {
			continue
		}
		here := c.row(c.here[i])
		list = append(list, &journal.Entry{
			Table: c.request.Table.Name, Key: c.keys[i], KeyRow: here, Kind: journal.Resync, Policy: string(journal.Resync),
			Winner: journal.Side{Version: donor, Row: c.row(c.request.Rows[i].Values)},
			Loser:  journal.Side{Version: now, Row: here},
		})
	}
	return list
}
