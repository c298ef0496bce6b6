package conflict_test

import (
	"maps"

	"replicator/change"
	"replicator/conflict"
)

// owner is the process that applies to one target. All of it is lost in a crash.
type owner struct {
	target  *server
	state   *conflict.State
	from    saved // the frontier from which the index was built
	fed     saved // the target's own binlog up to here is in the index
	applied map[change.ServerID]change.Clock
	mesh    conflict.Topology // as it was when the owner started
}

// restart makes a new owner of a server, which reads the server's own binlog from the frontier; its links go on from
// their markers.
func (w *world) restart(s *server) {
	w.dropCopies(s)
	for _, l := range w.linksTo(s) {
		l.rollback()
		l.resume(w.broken)
	}
	from := s.frontier
	if w.broken == rebuildFromEnd {
		from = saved{index: len(s.binlog), clock: s.clock, position: change.NewGTIDSet(change.MySQL)}
	}
	o := &owner{target: s, from: from.clone(), fed: from.clone(), applied: map[change.ServerID]change.Clock{}, mesh: w.topology()}
	o.state = w.newState(o)
	o.state.Checkpoint(o.fed.position, o.fed.clock)
	w.owners[s.id] = o
	for _, l := range w.linksTo(s) {
		if o.mesh.Has(l.source.id, s.id) {
			w.report(o, l)
		}
	}
}

func (w *world) newState(o *owner) *conflict.State {
	limits := conflict.Limits{Segments: 4}
	if w.spill {
		limits.Entries, limits.Store = 2, mapStore{}
	}
	return conflict.NewState(o.target.id, o.mesh, limits)
}

// report tells the state how far a link has come.
func (w *world) report(o *owner, l *link) {
	clock := l.place.clock
	if w.broken == smallestTime { // as if whoever sends up to a time had seen everything up to it
		clock.Context = w.claim(clock.Time)
	}
	if w.broken == pruneEarly {
		clock.Time += 200
		clock.Context = w.claim(clock.Time)
	}
	o.applied[l.source.id] = clock
	o.state.Applied(l.source.id, clock)
}

func (w *world) claim(t change.Time) change.Context {
	var c change.Context
	for _, s := range w.servers {
		c = c.With(s.id, t)
	}
	return c
}

// feed gives the index everything that is in the target's own binlog.
func (w *world) feed(o *owner, steps int) {
	s := o.target
	for ; steps > 0 && o.fed.index < len(s.binlog); steps-- {
		e := s.binlog[o.fed.index]
		w.readOne(&o.fed, s, e)
		switch {
		case e.marker != nil:
			w.check(o.state.Replicated(&e.marker.Marker))
		case e.rows != nil:
			w.check(o.state.Local(e.stamp, w.keysOf(e.rows)))
		}
		if o.fed.index%3 == 0 {
			o.state.Checkpoint(o.fed.position, o.fed.clock)
		}
	}
	w.counts.peak = max(w.counts.peak, o.state.Stats().Entries+o.state.Stats().Spilled)
}

// crash kills an owner and starts another. The new index must give the answers of the old.
func (w *world) crash(s *server) {
	old := w.owners[s.id]
	w.counts.crashes++
	w.feed(old, len(s.binlog))
	w.restart(s)
	twin := w.owners[s.id]
	if w.chance(50) && len(old.mesh.Servers()) == len(twin.mesh.Servers()) { // with what the old one knew of the links, the new one would have dropped just the same
		w.compare(old, twin)
		w.restart(s)
	}
}

func (w *world) compare(old, twin *owner) {
	w.feed(twin, len(twin.target.binlog))
	for id, clock := range old.applied {
		twin.state.Applied(id, clock)
	}
	w.sweepAll(old)
	w.sweepAll(twin)
	for key := range w.keys {
		a, knownA, errA := old.state.Lookup(keyOf(key))
		b, knownB, errB := twin.state.Lookup(keyOf(key))
		w.check(errA)
		w.check(errB)
		if knownA != knownB || a.Version != b.Version || !a.Context.Equal(b.Context) {
			w.fail("server %d: the rebuilt index says %v (%v) of key %d, the old one %v (%v)",
				old.target.number, b, knownB, key, a, knownA)
		}
		if knownB {
			w.counts.rebuilt++
		}
	}
}

// sweepAll sweeps memory and the whole of the store.
func (w *world) sweepAll(o *owner) {
	for range 3 {
		w.check(o.state.Sweep())
	}
}

// save keeps the frontier on the server.
func (w *world) save(o *owner) {
	position, clock, ok := o.state.Frontier()
	if !ok {
		w.fail("server %d has no frontier", o.target.number)
		return
	}
	s := o.target
	index := 0
	for index < len(s.binlog) && position.Contains(change.GTID{UUID: s.id, Number: uint64(index + 1)}) {
		index++
	}
	if w.broken != rebuildFromEnd && index < s.frontier.index {
		w.fail("server %d: the frontier went back from %d to %d", s.number, s.frontier.index, index)
	}
	s.frontier = saved{position: position.Clone(), index: index, clock: clock}
}

// mapStore is a conflict.Store in memory.
type mapStore map[change.Key]change.Stamp

func (m mapStore) Get(k change.Key) (change.Stamp, bool, error) {
	stamp, ok := m[k]
	return stamp, ok, nil
}

func (m mapStore) Put(entries []conflict.Stored) error {
	for _, e := range entries {
		m[e.Key] = e.Stamp
	}
	return nil
}

func (m mapStore) Remove(k change.Key) error {
	delete(m, k)
	return nil
}

func (m mapStore) Sweep(_ change.Key, _ int, drop func(change.Version) bool) (change.Key, int, bool, error) {
	before := len(m)
	maps.DeleteFunc(m, func(_ change.Key, s change.Stamp) bool { return drop(s.Version) })
	return change.Key{}, before - len(m), true, nil
}
