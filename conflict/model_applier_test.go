package conflict_test

import (
	"slices"

	"replicator/change"
	"replicator/conflict"
)

// link is one direction of replication. Its place in the source's binlog is volatile; the markers on the target say where
// it goes on.
type link struct {
	source, target *server
	down           bool
	place          saved
	group          *group
	waits          int // how often the next transaction has been put off
}

// group is what a link is about to commit in one transaction of the target.
type group struct {
	rows      []*row
	verdicts  []conflict.Verdict
	lostTo    []*row // by row: what the row was when the verdict was confirmed; it may change where nothing is locked
	manifest  []change.ManifestEntry
	end       saved
	locked    []int
	confirmed bool
}

// linksTo returns the links to a server, in a fixed order.
func (w *world) linksTo(s *server) []*link {
	var all []*link
	for _, from := range w.servers {
		if l := w.links[conflict.Link{From: from.id, To: s.id}]; l != nil {
			all = append(all, l)
		}
	}
	return all
}

func (s saved) clone() saved {
	s.position = s.position.Clone()
	return s
}

// resume sets a link back to its newest marker on the target, or to the source's birth.
func (l *link) resume(broken rule) {
	l.place = saved{}
	if broken == beginAtEnd {
		l.place = saved{index: len(l.source.binlog), clock: l.source.clock}
	}
	for _, e := range slices.Backward(l.target.binlog) {
		if e.marker != nil && e.marker.Source == l.source.id {
			l.place = saved{index: e.marker.index, clock: e.marker.Clock}
			return
		}
	}
}

func (w *world) check(err error) {
	if err != nil {
		w.fail("%w", err)
	}
}

func (w *world) keysOf(rows []*row) []change.Key {
	var keys []change.Key
	for _, r := range rows {
		if w.broken == newKeyOnly && r.before {
			continue
		}
		keys = append(keys, keyOf(r.key))
	}
	return keys
}

// readOne moves a reader over one transaction, which must get the version that every reader gives it.
func (w *world) readOne(at *saved, s *server, e entry) {
	stamp := fold(&at.clock, s.id, e, w.broken)
	if stamp.Version != e.stamp.Version || !stamp.Context.Equal(e.stamp.Context) {
		w.fail("two readers of server %d disagree on transaction %d: %v and %v", s.number, at.index, stamp, e.stamp)
	}
	at.index++
	at.position.Add(change.GTID{UUID: s.id, Number: uint64(at.index)})
}

// step moves a link on by one of the stages of a transaction: decide and write, confirm behind the barrier, commit.
func (w *world) step(l *link) {
	o := w.owners[l.target.id]
	if l.down || o == nil || !o.mesh.Has(l.source.id, l.target.id) {
		return
	}
	switch {
	case l.group == nil:
		w.open(o, l)
	case !l.group.confirmed:
		w.confirm(o, l)
	default:
		w.commit(o, l)
		if w.chance(5) { // the answer to the commit is lost: the marker on the target says what happened
			l.resume(w.broken)
		}
		w.report(o, l)
	}
}

// open reads a few transactions, decides and writes them.
func (w *world) open(o *owner, l *link) {
	g := &group{end: l.place}
	g.end.position = change.NewGTIDSet(change.MySQL)
	limit := 1 + w.random.IntN(4)
	for g.end.index < len(l.source.binlog) && len(g.manifest) < limit {
		e := l.source.binlog[g.end.index]
		if w.patient && l.waits < 20 && e.rows != nil && w.comesFirst(o, e.stamp.Context) {
			l.waits++
			break
		}
		l.waits = 0
		w.readOne(&g.end, l.source, e)
		if e.rows != nil {
			g.rows = append(g.rows, e.rows...)
			g.manifest = append(g.manifest, change.ManifestEntry{Stamp: e.stamp})
		}
	}
	if g.end.index == l.place.index {
		return
	}
	if w.broken == appliedBeforeCommit {
		old := l.place
		l.place = g.end
		w.report(o, l)
		l.place = old
	}
	if len(g.rows) == 0 {
		if w.chance(3) { // a progress marker
			l.group, g.confirmed = g, true
			return
		}
		l.place = g.end
		w.report(o, l)
		return
	}
	g.verdicts = w.decide(o, g.rows)
	for i, r := range g.rows {
		if g.verdicts[i].Applies() && !w.lock(l, g, r) {
			g.unlock(l.target)
			return
		}
	}
	l.group = g
}

// comesFirst reports whether something that a change was made on top of is on its way over a link that works.
func (w *world) comesFirst(o *owner, c change.Context) bool {
	return slices.ContainsFunc(o.state.Lacks(c), func(id change.ServerID) bool {
		return !w.links[conflict.Link{From: id, To: o.target.id}].down
	})
}

// decide looks every row up, seeing what the rows before it in the same group would do.
func (w *world) decide(o *owner, rows []*row) []conflict.Verdict {
	verdicts := make([]conflict.Verdict, len(rows))
	group := map[int]change.Stamp{}
	for i, r := range rows {
		if w.broken == newKeyOnly && r.before {
			verdicts[i] = conflict.Apply
			continue
		}
		entry, known := group[r.key]
		if !known || w.broken == groupBlind {
			var err error
			entry, known, err = o.state.Lookup(keyOf(r.key))
			w.check(err)
		}
		verdicts[i] = w.broken.decide(r.stamp, entry, known)
		if verdicts[i].Applies() {
			group[r.key] = r.stamp
		}
	}
	return verdicts
}

// lock takes the lock that writing the row takes on the server. It reports false when somebody else has it.
func (w *world) lock(l *link, g *group, r *row) bool {
	if _, exists := l.target.rows[r.key]; !exists && r.value == 0 && w.broken == noGapLock {
		return true
	}
	if holder := l.target.locks[r.key]; holder != nil {
		return holder == g
	}
	l.target.locks[r.key] = g
	g.locked = append(g.locked, r.key)
	return true
}

func (g *group) unlock(s *server) {
	for _, key := range g.locked {
		delete(s.locks, key)
	}
	g.locked = nil
}

func (l *link) rollback() {
	if l.group != nil {
		l.group.unlock(l.target)
		l.group = nil
	}
}

// confirm waits at the barrier, looks again, and rolls back what was decided on too little: the second attempt locks
// first.
func (w *world) confirm(o *owner, l *link) {
	g := l.group
	if w.broken != noBarrier {
		w.feed(o, len(l.target.binlog))
	}
	g.lostTo = w.present(l.target, g)
	if w.broken == noSecondLookup {
		g.confirmed = true
		return
	}
	verdicts := w.decide(o, g.rows)
	g.confirmed = slices.Equal(verdicts, g.verdicts)
	if g.confirmed {
		return
	}
	w.counts.redone++
	l.rollback()
	for _, r := range g.rows {
		if !w.lock(l, g, r) {
			g.unlock(l.target)
			return
		}
	}
	g.verdicts, g.confirmed = verdicts, true // nothing could come in between
	l.group = g
}

// present returns what each row of a group finds.
func (w *world) present(t *server, g *group) []*row {
	found := make([]*row, len(g.rows))
	group := map[int]*row{}
	for i, r := range g.rows {
		found[i] = t.holder[r.key]
		if before := group[r.key]; before != nil {
			found[i] = before
		}
		if found[i] == nil || found[i].stamp.Version.Compare(r.stamp.Version) < 0 {
			group[r.key] = r
		}
	}
	return found
}

// commit applies a group, with its marker, and holds every verdict against the truth.
func (w *world) commit(o *owner, l *link) {
	g, t := l.group, l.target
	for i, r := range g.rows {
		w.judge(t, r, g.lostTo[i], g.verdicts[i])
		changed := false
		if g.verdicts[i] == conflict.ApplyOver && t.early[r.key] != nil {
			w.fail("server %d: %v lost to %v, but the journal gets the copy of %v", t.number, t.holder[r.key], r, t.early[r.key])
		}
		if g.verdicts[i].Applies() {
			changed = t.rows[r.key] != r.value
			if !changed {
				w.counts.noop++
			}
			t.set(r)
		}
		w.list(g, r, g.verdicts[i], changed)
	}
	m := &marker{index: g.end.index}
	m.Source, m.Clock, m.Manifest = l.source.id, g.end.clock, g.manifest
	if w.broken == markerWithoutClock {
		m.Clock.Time = 0
	}
	w.log(t, entry{marker: m})
	l.place = g.end
	l.rollback()
}

// list puts a row's key into the manifest.
func (w *world) list(g *group, r *row, v conflict.Verdict, changed bool) {
	switch {
	case w.broken == manifestWithoutNoop && !changed,
		w.broken == newKeyOnly && r.before,
		w.broken != manifestWithLost && !v.Applies():
		return
	}
	i := slices.IndexFunc(g.manifest, func(m change.ManifestEntry) bool { return m.Stamp.Version == r.stamp.Version })
	m := &g.manifest[i]
	m.Keys = append(m.Keys, keyOf(r.key))
	if w.broken == manifestWithoutContext {
		m.Stamp.Context = nil
	}
}
