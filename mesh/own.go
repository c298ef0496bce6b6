package mesh

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"replicator/applier"
	"replicator/canal"
	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/conflict"
	"replicator/conflict/spill"
	"replicator/fault"
	"replicator/image"
	"replicator/server"
)

// errNews ends an owner because a server has become known that it did not know.
var errNews = errors.New("another server became known")

// firstMeeting is how long an owner waits for servers that have never been reached before it begins without them.
const firstMeeting = 5 * time.Second

// own is the owner of one target: it tails the target's binlog into the change index, does the upkeep of its replicator
// tables, and runs the links that lead to it. It returns nil when it should begin again.
func (m *Mesh) own(ctx context.Context, x *member) error {
	news := m.news()
	m.meet(ctx)
	topology, strangers := m.topology(func(*link) bool { return true })
	limits := conflict.Limits{Entries: max(1, m.config.Conflict.IndexLimit/m.owned()), Lives: m.config.Adds()}
	store, err := spill.Open(filepath.Join(m.config.StateDir, "index-"+x.config.Name))
	if err != nil {
		return fault.Wrap(err, fault.Configuration, "make state_dir writable, or name another", "open the spill of the change index")
	}
	defer func() {
		if err := store.Close(); err != nil {
			m.log.Warn("closing the spill of the change index", zap.Error(err))
		}
	}()
	limits.Store = store

	p := x.profile()
	begin, err := m.beginning(ctx, x)
	if err != nil {
		return err
	}
	o := &owner{
		mesh: m, member: x, profile: p, state: conflict.NewState(p.identity.ID, topology, limits),
		definitions: applier.NewDefinitions(), recent: applier.NewRecent(), registers: registersOf(m.config),
		keyer:     image.NewKeyer(server.NewWeigher(x.server.DB(), p.info.Flavor)),
		watermark: &applier.Watermark{}, indexed: len(m.into(x)) > 0,
		position: begin.Position, clock: begin.Clock,
	}
	o.state.Checkpoint(begin.Position, begin.Clock)
	x.indexed(o.state)
	defer x.indexed(nil)
	if err := o.adopt(ctx); err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.tail(ctx) })
	g.Go(func() error { return o.upkeep(ctx) })
	g.Go(func() error { return m.desk.Serve(ctx, x.config.Name) })
	g.Go(func() error { return o.trim(ctx) })
	g.Go(func() error { return o.trimMarkers(ctx) })
	g.Go(func() error { return o.resync(ctx) })
	g.Go(func() error { return o.guard(ctx) })
	g.Go(func() error { return o.compareNowAndThen(ctx) })
	g.Go(func() error { return o.replicate(ctx) })
	if strangers {
		g.Go(func() error {
			select {
			case <-news:
				return errNews
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	err = g.Wait()
	if errors.Is(err, errNews) {
		return nil
	}
	return err
}

// beginning is where the owner of a server begins to read its binlog: at the frontier. Where the binlog does not reach back to
// that any more, because another server was away for too long, it is the newest place before which everything is stable without
// those servers that are being cloned: they get what lies before it with their rows.
func (m *Mesh) beginning(ctx context.Context, x *member) (begin canal.Start, err error) {
	p, db := x.profile(), x.server.DB()
	begin.Position, begin.Clock, err = checkpoint.LoadFrontier(ctx, db, p.identity)
	if err != nil {
		return begin, x.fault(err, "read the frontier of "+x.config.Name)
	}
	purged, err := p.dialect.Purged(ctx, db)
	if err != nil || begin.Position.Covers(purged) {
		return begin, err
	}
	places, err := checkpoint.LoadReadings(ctx, db, p.info.Flavor)
	if err != nil {
		return begin, x.fault(err, "read the places of "+x.config.Name)
	}
	applied, err := m.markersOn(ctx, x)
	if err != nil {
		return begin, x.fault(err, "read the markers of "+x.config.Name)
	}
	topology, _ := m.topology(func(l *link) bool { return !l.from.cloning.Load() && !l.to.cloning.Load() })
	r, found := stablePlace(p.identity.ID, topology, applied, places)
	within := slices.ContainsFunc(places, func(r checkpoint.Reading) bool { return r.Position.Covers(purged) })
	if !found || !r.Position.Covers(purged) {
		remedy := "make the server that was away a copy of one that was not: replicator clone --from SERVER --to SERVER --replace; " +
			"or take it out of the configuration and restart this process"
		if !within {
			remedy = "make it a copy of another one: replicator clone --from SERVER --to " + x.config.Name +
				" --replace; where no server is left to copy from: docs/operations.md, Starting over"
		}
		return begin, fault.New(fault.Purged, remedy,
			"%s has purged its binlog behind %s, from where it would have to be read to know what conflicts with what", x.config.Name, begin.Position)
	}
	x.log.Warn("the change index begins behind its frontier, which the binlog does not reach back to",
		zap.Stringer("frontier", begin.Position), zap.Stringer("position", r.Position))
	return canal.Start{Position: r.Position, Clock: r.Clock}, nil
}

// markersOn are the newest markers on a server of the others that are known.
func (m *Mesh) markersOn(ctx context.Context, x *member) (map[change.ServerID]checkpoint.State, error) {
	var sources []checkpoint.Identity
	for _, l := range m.into(x) {
		if p := l.from.profile(); p != nil {
			sources = append(sources, p.identity)
		}
	}
	return checkpoint.NewestMarkers(ctx, x.server.DB(), sources)
}

// stablePlace is the first of the places of a server's binlog before which everything is stable there, as the newest markers on
// it tell.
func stablePlace(id change.ServerID, topology conflict.Topology, applied map[change.ServerID]checkpoint.State, places []checkpoint.Reading) (checkpoint.Reading, bool) {
	state := conflict.NewState(id, topology, conflict.Limits{})
	for source, m := range applied {
		state.Applied(source, m.Clock)
	}
	for _, r := range places {
		stable := state.Stable(change.Version{Time: r.Clock.Time, Origin: id})
		for _, e := range r.Clock.Context {
			stable = stable && state.Stable(change.Version{Time: e.Time, Origin: e.Origin})
		}
		if stable {
			return r, true
		}
	}
	return checkpoint.Reading{}, false
}

// registersOf knows the tables whose columns add up or are merged.
func registersOf(c *config.Config) *applier.Registers {
	if !c.Adds() && !c.Merges() {
		return nil
	}
	return applier.NewRegisters(c.Added, c.Merged)
}

// owned is how many targets this process owns: they share what memory the change index may take.
func (m *Mesh) owned() int {
	n := 0
	for _, x := range m.members {
		if x.config.Own {
			n++
		}
	}
	return max(1, n)
}

// meet waits a moment until every server is known.
func (m *Mesh) meet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstMeeting)
	defer cancel()
	for _, x := range m.members {
		select {
		case <-x.ready:
		case <-ctx.Done():
			return
		}
	}
}

// topology lists the links that count by identity. A server that was never reached takes part under a random one: it has seen
// nothing, so nothing is stable before it is known.
func (m *Mesh) topology(counts func(*link) bool) (t conflict.Topology, strangers bool) {
	ids := map[*member]change.ServerID{}
	for _, x := range m.members {
		if p := x.profile(); p != nil {
			ids[x] = p.identity.ID
			continue
		}
		ids[x] = change.NewServerID()
		strangers = true
	}
	var links []conflict.Link
	for _, l := range m.links {
		if counts(l) {
			links = append(links, conflict.Link{From: ids[l.from], To: ids[l.to]})
		}
	}
	return conflict.NewTopology(links...), strangers
}

// owner is the state of one target's owner while it runs.
type owner struct {
	mesh        *Mesh
	member      *member
	profile     *profile
	state       *conflict.State
	definitions *applier.Definitions
	recent      *applier.Recent
	registers   *applier.Registers
	keyer       *image.Keyer
	watermark   *applier.Watermark
	indexed     bool // links lead to this server

	changedPolicies bool // others were recorded on this server

	// Of the tailer's goroutine: what has been fed.
	position change.GTIDSet
	clock    change.Clock
	noted    time.Time
	keys     []change.Key // of the event that is being fed

	// Of the upkeep: when it was saved how far the owner had read, and which servers were being cloned then.
	readingAt time.Time
	cloning   []string

	changed atomic.Bool                 // rows have been fed since the upkeep looked
	fed     atomic.Pointer[canal.Start] // how far the tailer was at the last checkpoint
}

// tail feeds the change index from the target's binlog, over as many connections as it takes: the index stays, and goes
// on where it stood. It returns when a person is needed.
func (o *owner) tail(ctx context.Context) error {
	x := o.member
	bo := newBackOff()
	for {
		began := time.Now()
		err := x.reader().Run(ctx, canal.Start{Position: o.position.Clone(), Clock: o.clock}, o)
		if time.Since(began) > settled {
			bo.Reset()
		}
		for {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f := x.trouble.set(fmt.Errorf("read %s: %w", x.config.Name, err))
			if !f.Class.Transient() {
				return f
			}
			pause := bo.NextBackOff()
			logFault(x.log, "binlog cannot be read", f, pause)
			if err := wait(ctx, pause); err != nil {
				return err
			}
			// Whatever answers at the address now may be another server, or configured otherwise.
			if err = x.reach(ctx); err == nil {
				x.trouble.clear(Running)
				o.mesh.wakeLinks(x)
				break
			}
		}
	}
}

// Transaction implements canal.Feed.
func (o *owner) Transaction(tx *change.Transaction) error {
	switch kind := tx.Kind; {
	case !o.indexed && (kind == change.Local || kind == change.Replicated):
		// Nothing is applied here, so nothing can conflict.
	case kind == change.Local:
		if err := o.local(tx); err != nil {
			return err
		}
		for key, original := range tx.Originals {
			o.state.Reasserted(key, tx.Stamp.Version, original)
		}
		o.recent.Note(tx)
		o.changed.Store(true)
	case kind == change.Replicated:
		if err := o.state.Replicated(tx.Marker); err != nil {
			return err
		}
		for i := range tx.Marker.Manifest {
			o.recent.NoteEntry(&tx.Marker.Manifest[i])
		}
		o.changed.Store(true)
	case kind == change.Definition:
		o.definitions.Forget()
	}
	o.position.Add(tx.GTID)
	o.clock = tx.Clock
	if time.Since(o.noted) >= time.Second {
		o.noted = time.Now()
		o.state.Checkpoint(o.position, o.clock)
		o.fed.Store(&canal.Start{Position: o.position.Clone(), Clock: o.clock})
	}
	return nil
}

func (o *owner) local(tx *change.Transaction) error {
	return tx.Body.Each(func(ev *change.RowsEvent) error {
		o.keys = o.keys[:0]
		err := o.registers.Keys(ev, func(k change.Key) error {
			o.keys = append(o.keys, k)
			return nil
		})
		if err != nil {
			return err
		}
		return o.state.Local(tx.Stamp, o.keys)
	})
}

// Reached implements canal.Feed.
func (o *owner) Reached(p change.FilePosition) { o.watermark.Reached(p) }

// upkeepEvery is how often the owner writes heartbeat and frontier: one transaction.
const upkeepEvery = time.Second

// frontierEvery is how often the frontier is saved although nothing but upkeep happened.
const frontierEvery = 10 * time.Second

func (o *owner) upkeep(ctx context.Context) error {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	var saved time.Time          // when the frontier was saved
	var savedTo change.Time      // and how far it was
	held, behind := false, false // behind: rows were fed that what is saved does not cover
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := o.state.Sweep(); err != nil {
			return fmt.Errorf("sweep the change index of %s: %w", o.member.config.Name, err)
		}
		behind = o.changed.Swap(false) || behind
		var frontier *canal.Start
		position, clock, ok := o.state.Frontier()
		if ok && (behind && clock.Time > savedTo || time.Since(saved) >= frontierEvery) {
			frontier = &canal.Start{Position: position, Clock: clock}
		}
		left := o.state.Behind() // what is fed from now on, o.changed tells of
		switch err := o.beat(ctx, frontier); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, checkpoint.ErrReborn):
			return fault.Wrap(err, fault.Unavailable, "wait: it is looked at again", "apply to %s", o.member.config.Name)
		case err != nil:
			held = true
			f := o.member.trouble.set(o.member.fault(err, "write the heartbeat of "+o.member.config.Name))
			logFault(o.member.log, "upkeep fails", f, upkeepEvery)
			continue
		case held:
			held = false
			o.member.trouble.clear(Running)
		}
		if frontier != nil {
			saved, savedTo, behind = time.Now(), frontier.Clock.Time, left
		}
	}
}

// upkeepTimeout bounds the upkeep's transaction: it touches rows that nobody else writes.
const upkeepTimeout = 10 * time.Second

// beat writes the heartbeat, and the frontier unless it is nil.
func (o *owner) beat(ctx context.Context, frontier *canal.Start) error {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	tx, err := o.member.server.DB().BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	if err := checkpoint.HoldIdentity(ctx, tx, o.profile.identity.ID); err != nil {
		return err
	}
	if err := checkpoint.Beat(ctx, tx, o.applied()); err != nil {
		return err
	}
	if err := o.saveReading(ctx, tx); err != nil {
		return err
	}
	if frontier != nil {
		if err := checkpoint.SaveFrontier(ctx, tx, frontier.Position, frontier.Clock); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// readingEvery is how often it is saved how far the owner has read.
const readingEvery = 5 * time.Second

// saveReading records how far the tailer has come: for whoever has to begin there because the frontier is out of reach.
func (o *owner) saveReading(ctx context.Context, q checkpoint.Querier) error {
	fed := o.fed.Load()
	if fed == nil {
		return nil
	}
	r := checkpoint.Reading{Position: fed.Position, Clock: fed.Clock}
	for _, l := range o.mesh.into(o.member) {
		r.Sources = append(r.Sources, l.from.config.Name)
		if l.from.cloning.Load() {
			r.Cloning = append(r.Cloning, l.from.config.Name)
		}
	}
	if time.Since(o.readingAt) < readingEvery && slices.Equal(r.Cloning, o.cloning) {
		return nil
	}
	if err := checkpoint.SaveReading(ctx, q, r); err != nil {
		return err
	}
	o.readingAt, o.cloning = time.Now(), r.Cloning
	return nil
}

// applied is what this target has of every source that is linked to it.
func (o *owner) applied() change.Context {
	var c change.Context
	for _, l := range o.mesh.into(o.member) {
		if p := l.from.profile(); p != nil {
			if t := o.state.AppliedUpTo(p.identity.ID); t > 0 {
				c = c.With(p.identity.ID, t)
			}
		}
	}
	return c
}

// replicate runs the links to this target once its change index is whole.
func (o *owner) replicate(ctx context.Context) error {
	end, err := o.profile.dialect.BinlogEnd(ctx, o.member.server.DB())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := o.watermark.Wait(ctx, end); err != nil {
		return err
	}
	stats := o.state.Stats()
	o.member.log.Info("change index is whole", zap.Int("entries", stats.Entries+stats.Spilled),
		zap.Int("spilled", stats.Spilled), zap.Duration("took", time.Since(began).Round(time.Millisecond)))
	o.warnOfChanges(stats)
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range o.mesh.into(o.member) {
		g.Go(func() error {
			o.runLink(ctx, l)
			return ctx.Err()
		})
	}
	return g.Wait()
}

// readOnly serves a server that this process only reads from: one reader for all of its links. It begins where the first
// link does; those that are ahead join it, those that are behind catch up by themselves.
func (m *Mesh) readOnly(ctx context.Context, x *member) error {
	var start canal.Start
	select {
	case start = <-x.wanted:
	case start = <-x.reader().Missed(): // a link that went on working while the server was away
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := x.reader().Run(ctx, start, nil); err != nil {
		return fmt.Errorf("read %s: %w", x.config.Name, err)
	}
	return nil
}
