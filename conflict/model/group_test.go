package model

import (
	"maps"
	"slices"

	"replicator/change"
	"replicator/conflict"
)

// link is one direction of replication.
type link struct {
	source, target *server
	down           bool
	place          place
	group          *group
}

// group is consecutive source transactions that are applied together.
type group struct {
	items    []item
	manifest []change.ManifestEntry
	before   []place // by entry of the manifest: where its transaction begins
	end      place
	plan     *plan
}

// cut leaves only what is before a transaction that cannot be applied yet: whoever waits must not hold back what is before
// it, or two links wait for each other.
func (g *group) cut(entry int) {
	g.end = g.before[entry]
	g.manifest, g.before = g.manifest[:entry], g.before[:entry]
	g.items = slices.DeleteFunc(g.items, func(x item) bool { return x.entry >= entry })
}

// item is one incoming row change.
type item struct {
	*write
	entry int // in the manifest
}

func (l *link) resume() {
	l.place = place{}
	for _, e := range slices.Backward(l.target.binlog) {
		if e.marker != nil && e.marker.Source == l.source.id {
			l.place = e.at
			return
		}
	}
}

func (l *link) rollback() {
	maps.DeleteFunc(l.target.locks, func(_ int, by *link) bool { return by == l })
	l.group = nil
}

// plan is what a group would do to its target. It changes nothing.
type plan struct {
	*world
	target    *server
	items     []item
	rows      map[int]*tuple
	holders   map[int]*write
	columns   map[place2]*write
	stamps    map[change.Key]change.Stamp
	manifest  []change.ManifestEntry
	journal   []int
	touched   []int // keys to be locked
	trace     []string
	counts    counts
	published []*write // the group is rolled back, these are committed, and the group is decided again
	raise     change.Time
	settling  []int            // journaled with what is published
	waits     bool             // a transaction cannot be applied yet
	waiting   int              // which, by entry of the manifest
	over      map[int][]*write // by key: what the group has overwritten that was concurrent
	missing   *write           // a change that finds no row where there must be one
}

func (w *world) plan(l *link, g *group) *plan {
	p := &plan{
		world: w, target: l.target, items: g.items, rows: map[int]*tuple{}, holders: map[int]*write{}, columns: map[place2]*write{},
		stamps: map[change.Key]change.Stamp{}, over: map[int][]*write{},
	}
	for _, m := range g.manifest {
		p.manifest = append(p.manifest, change.ManifestEntry{Stamp: m.Stamp})
	}
	for _, x := range g.items {
		p.touch(x.key)
		w.discipline.incoming(p, x)
		if p.published != nil || p.waits {
			p.waiting = x.entry
			return p
		}
	}
	w.discipline.settle(p)
	return p
}

func (p *plan) touch(key int) { p.touched = append(p.touched, key) }

func (p *plan) row(key int) *tuple {
	if r, ok := p.rows[key]; ok {
		return r
	}
	return p.target.rows[key]
}

func (p *plan) holder(key int) *write {
	if h, ok := p.holders[key]; ok {
		return h
	}
	return p.target.holder[key]
}

// lookup finds the newest change of a key that is not stable, the plan's own included.
func (p *plan) lookup(key change.Key) (change.Stamp, bool) {
	if s, ok := p.stamps[key]; ok {
		return s, true
	}
	s, ok, err := p.target.state.Lookup(key)
	p.must(err)
	return s, ok
}

// set carries a change out.
func (p *plan) set(key int, row *tuple, by *write) {
	p.rows[key], p.holders[key] = row, by
	p.touch(key)
}

// list puts a key into the manifest.
func (p *plan) list(x item, k change.Key) {
	p.stamps[k] = x.stamp
	p.manifest[x.entry].Keys = append(p.manifest[x.entry].Keys, k)
}

// note journals a write that loses, if it is an application's.
func (p *plan) note(x *write) {
	if x != nil && x.value >= 0 {
		p.journal = append(p.journal, x.value)
	}
}

// lose journals a write with what is published.
func (p *plan) lose(x *write) {
	if x != nil && x.value >= 0 {
		p.settling = append(p.settling, x.value)
	}
}

// decide looks a row up and notes the verdict.
func (p *plan) decide(x item, k change.Key) conflict.Verdict {
	stamp, known := p.lookup(k)
	v := conflict.Decide(x.stamp, stamp, known)
	p.trace = append(p.trace, v.String())
	p.counts.decided++
	switch v {
	case conflict.ApplyOver:
		p.counts.over++
	case conflict.Lose:
		p.counts.lost++
	case conflict.Superseded:
		p.counts.superseded++
	case conflict.Apply:
	}
	return v
}

// wins applies or journals a row that wins or loses by itself. It reports whether the row was applied.
func (p *plan) wins(x item) bool {
	switch v := p.decide(x, keyOf(x.key)); v {
	case conflict.Lose:
		p.note(x.write)
		return false
	case conflict.Superseded:
		return false
	case conflict.ApplyOver:
		p.note(p.holder(x.key))
		p.over[x.key] = append(p.over[x.key], p.holder(x.key))
	case conflict.Apply:
	}
	p.list(x, keyOf(x.key))
	p.set(x.key, x.after, x.write)
	return true
}

// publish asks for a write of the target's own. It must be newer than the given versions. What the group would have
// overwritten in that row loses to it too, and the group decided again will not find it any more.
func (p *plan) publish(x *write, newerThan ...change.Version) {
	if slices.ContainsFunc(p.published, func(o *write) bool { return o.key == x.key }) {
		return
	}
	x.id = -1
	x.before = p.target.rows[x.key]
	p.published = append(p.published, x)
	p.touch(x.key)
	for _, h := range p.over[x.key] {
		p.lose(h)
	}
	for _, v := range newerThan {
		p.raise = max(p.raise, v.Time)
	}
}

// step moves a link on: read, decide and lock; then confirm behind the barrier and commit.
func (w *world) step(l *link) {
	if l.down {
		return
	}
	if l.group == nil {
		w.open(l)
		return
	}
	w.feed(l.target, len(l.target.binlog)) // the barrier
	p := w.plan(l, l.group)
	if !slices.Equal(p.trace, l.group.plan.trace) || len(p.published) > 0 || p.waits {
		w.counts.redone++
		g := l.group
		l.rollback()
		if p.published != nil && !p.waits {
			w.settle(l, p)
			return
		}
		if p.waits || !w.lock(l, p) {
			return
		}
		l.group = g
	}
	l.group.plan = p
	w.commit(l)
	if w.chance(5) {
		l.resume()
	}
}

func (w *world) open(l *link) {
	g := &group{end: l.place}
	limit := 1 + w.random.IntN(4)
	for g.end.index < len(l.source.binlog) && len(g.manifest) < limit {
		e := l.source.binlog[g.end.index]
		before := g.end
		fold(&g.end.clock, l.source.id, e)
		g.end.index++
		if len(e.writes) > 0 {
			for _, x := range e.writes {
				g.items = append(g.items, item{x, len(g.manifest)})
			}
			g.manifest = append(g.manifest, change.ManifestEntry{Stamp: e.stamp})
			g.before = append(g.before, before)
		}
	}
	g.plan = w.plan(l, g)
	for g.plan.waits {
		w.counts.waited++
		if w.broken == waitWhole {
			return
		}
		g.cut(g.plan.waiting)
		g.plan = w.plan(l, g)
	}
	switch {
	case len(g.items) == 0:
		l.place = g.end
		l.target.state.Applied(l.source.id, l.place.clock)
		return
	case g.plan.published != nil: // the clash is looked at again when everything is known
		w.feed(l.target, len(l.target.binlog))
		if p := w.plan(l, g); p.published != nil && !p.waits {
			w.settle(l, p)
		}
		return
	}
	if w.lock(l, g.plan) {
		l.group = g
	}
}

// lock takes every lock that a plan needs, or none.
func (w *world) lock(l *link, p *plan) bool {
	for _, key := range p.touched {
		if by := l.target.locks[key]; by != nil && by != l {
			l.rollback()
			return false
		}
		l.target.locks[key] = l
	}
	return true
}

// settle publishes what a plan asks for, as a transaction of the target's own.
func (w *world) settle(l *link, p *plan) {
	if !w.lock(l, p) {
		return
	}
	w.counts.settled++
	t := l.target
	for _, id := range p.settling {
		t.journal[id] = true
	}
	raise := p.raise
	if w.broken == withoutRaise {
		raise = 0
	}
	w.commitLocal(t, p.published, raise)
	w.stated = append(w.stated, p.published...)
	l.rollback()
}

func (w *world) commit(l *link) {
	p, t := l.group.plan, l.target
	if p.missing != nil {
		w.fail("server %d: there is no row for %v", t.number, p.missing)
	}
	for key, row := range p.rows {
		t.set(key, row, p.holders[key])
	}
	maps.Copy(t.columns, p.columns)
	for _, id := range p.journal {
		t.journal[id] = true
	}
	w.counts.add(p.counts)
	m := &change.Marker{Source: l.source.id, Clock: l.group.end.clock, Manifest: p.manifest}
	w.log(t, entry{marker: m, at: l.group.end})
	l.place = l.group.end
	l.rollback()
	t.state.Applied(l.source.id, l.place.clock)
	w.discipline.check(w, t)
}
