package conflict_test

import (
	"slices"

	"replicator/conflict"
)

// copies are the copies of rows that are under way, and whether there is the damage that they are made for: rows that
// somebody changed behind the binlog.
type copies struct {
	damage  bool
	running []*rowCopy
}

// rowCopy copies rows from the source of a link to its target, in these stages: the target's index begins to keep what
// the rows may lack; they are read, one by one; the source's clock is noted; the target has everything that the source
// had then; they are written. Further rows may follow. All of it is lost with the target's owner.
type rowCopy struct {
	link   *link
	chunks int // still to come
	keys   []int
	hold   *conflict.Hold
	rows   []copied // of the keys read so far
	ended  bool
	end    saved  // the source's clock and place when all had been read
	looked []bool // by key: whether the copy may be written
}

// copied is a row as it was read.
type copied struct {
	value int
	top   *row
}

// copyAct moves a copy on, begins one, or damages a row.
func (w *world) copyAct() {
	c := w.copies
	switch x := w.random.IntN(100); {
	case x < 60 && len(c.running) > 0:
		w.copyStep(c.running[w.random.IntN(len(c.running))])
	case x < 70 && len(c.running) < 4:
		l := w.anyLink()
		if w.joined != nil && w.chance(50) {
			if of := w.links[conflict.Link{From: w.joined.id, To: l.target.id}]; of != nil {
				l = of
			}
		}
		w.begin(l, w.wanted(l), w.random.IntN(4)/2)
	case x < 74 && c.damage:
		w.damage(w.servers[w.random.IntN(len(w.servers))], w.random.IntN(w.keys))
	}
}

// wanted draws keys to copy: what is damaged on the target, often, and others.
func (w *world) wanted(l *link) []int {
	var keys []int
	for key := range w.keys {
		if l.target.damaged[key] && w.chance(50) {
			keys = append(keys, key)
		}
	}
	for range 1 + w.random.IntN(4) {
		key := w.random.IntN(w.keys)
		if l.target.holder[key] == nil {
			key = w.random.IntN(w.keys)
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// alike reports whether two servers receive the same changes, each other's included.
func (w *world) alike(a, b *server) bool {
	has := func(from, to *server) bool { return w.links[conflict.Link{From: from.id, To: to.id}] != nil }
	for _, o := range w.servers {
		if o != a && o != b && has(o, a) != has(o, b) {
			return false
		}
	}
	return has(a, b) && has(b, a)
}

// begin begins a copy where that may be done.
func (w *world) begin(l *link, keys []int, chunks int) {
	o := w.owners[l.target.id]
	if o == nil || !o.mesh.Has(l.source.id, l.target.id) || w.broken != copyFromAnyone && !w.alike(l.source, l.target) {
		return
	}
	c := &rowCopy{link: l, keys: keys, chunks: chunks}
	if w.broken != copyReadsFirst && !w.keep(o, c) {
		return
	}
	w.copies.running = append(w.copies.running, c)
}

// keep lets the target's index keep what the source lacks, as far as the target knows. It reports false where the index may
// have forgotten something of that already.
func (w *world) keep(o *owner, c *rowCopy) bool {
	hold, known := o.state.Hold(c.link.source.id)
	if !known {
		return false
	}
	if w.broken != copyFromNewborn && !hold.Complete() {
		hold.Release()
		return false
	}
	if w.broken == copyWithoutHold {
		hold.Release()
	}
	c.hold = hold
	return true
}

// copyStep moves a copy on by one stage, if there is nothing to wait for.
func (w *world) copyStep(c *rowCopy) {
	o, from := w.owners[c.link.target.id], c.link.source
	switch {
	case w.broken == copyClockFirst && !c.ended:
		c.note()
	case len(c.rows) < len(c.keys):
		key := c.keys[len(c.rows)]
		if from.damaged[key] { // whoever chooses the source knows better
			c.keys = slices.Delete(c.keys, len(c.rows), len(c.rows)+1)
			return
		}
		c.rows = append(c.rows, copied{from.rows[key], from.top(key)})
	case c.hold == nil:
		w.keep(o, c)
	case !c.ended:
		c.note()
	case w.broken != copyBeforeLink && c.link.place.index < c.end.index:
	case w.broken != copyBeforeOthers && len(o.state.Lacks(c.end.clock.Context)) > 0:
	default:
		w.write(o, c)
	}
}

func (c *rowCopy) note() {
	c.ended, c.end = true, saved{index: len(c.link.source.binlog), clock: c.link.source.clock}
}

// write locks the rows, looks them up and writes what may be written, with a marker that lists nothing.
func (w *world) write(o *owner, c *rowCopy) {
	t := c.link.target
	if slices.ContainsFunc(c.keys, func(key int) bool { return t.locks[key] != nil }) {
		return
	}
	if c.looked == nil {
		c.looked = w.look(o, c)
		if w.broken == copyUnlocked {
			return
		}
	}
	for i, key := range c.keys {
		if c.looked[i] {
			w.overwrite(t, key, c.rows[i])
		} else {
			w.counts.kept++
		}
	}
	m := &marker{index: c.link.place.index}
	m.Source, m.Clock = c.link.source.id, c.link.place.clock
	w.log(t, entry{marker: m})
	if c.chunks > 0 {
		*c = rowCopy{link: c.link, hold: c.hold, chunks: c.chunks - 1, keys: w.wanted(c.link)}
		return
	}
	c.hold.Release()
	w.copies.running = slices.DeleteFunc(w.copies.running, func(other *rowCopy) bool { return other == c })
}

// look says which rows the index has no change of that the copy may lack.
func (w *world) look(o *owner, c *rowCopy) []bool {
	if w.broken != copyWithoutBarrier {
		w.feed(o, len(o.target.binlog))
	}
	judge := c.hold
	if w.broken == copyJudgedByEnd {
		twin := conflict.NewState(o.target.id, o.mesh, conflict.Limits{})
		twin.Applied(c.link.source.id, c.end.clock)
		judge, _ = twin.Hold(c.link.source.id)
	}
	may := make([]bool, len(c.keys))
	for i, key := range c.keys {
		e, known, err := o.state.Lookup(keyOf(key))
		w.check(err)
		may[i] = !known || judge.Covers(e.Version) || w.broken == copyOverUncovered
	}
	return may
}

// overwrite puts a copy in the place of a row. It must be of the change that the target has decided on: an older one would
// undo a change that nobody sends again. What harm a newer one does, broken rules show later: an application that writes
// on top of it may be given a smaller version, or be told of a conflict, and the journal gets the wrong row.
func (w *world) overwrite(t *server, key int, c copied) {
	w.counts.copied++
	had := t.holder[key]
	switch {
	case c.top == had:
		delete(t.early, key)
	case c.top == nil || had != nil && c.top.stamp.Version.Compare(had.stamp.Version) < 0:
		w.fail("server %d: a copy of %v overwrites what is newer: %v", t.number, c.top, had)
	default:
		t.early[key] = c.top
		if w.broken == healthy {
			w.fail("server %d: a copy brings %v before it has arrived, over %v", t.number, c.top, had)
		}
	}
	if t.damaged[key] {
		w.counts.repaired++
	}
	delete(t.damaged, key)
	t.put(key, c.value)
}

// damage changes a row behind the binlog, as long as there is a server to copy it from.
func (w *world) damage(s *server, key int) {
	whole := func(o *server) bool { return o != s && o.born && w.alike(o, s) && !o.damaged[key] }
	if !s.born || s.locks[key] != nil || !slices.ContainsFunc(w.servers, whole) {
		return
	}
	w.counts.damaged++
	s.put(key, (s.rows[key]+1+w.random.IntN(3))%4)
	var right int
	if top := s.top(key); top != nil {
		right = top.value
	}
	s.damaged[key] = s.rows[key] != right
}

// repair copies every row that is still damaged, at rest: once must be enough.
func (w *world) repair() {
	for key := range w.keys {
		for _, t := range w.servers {
			for _, l := range w.linksTo(t) {
				if t.damaged[key] && !l.source.damaged[key] {
					w.begin(l, []int{key}, 0)
				}
			}
		}
	}
	for rounds := 0; len(w.copies.running) > 0 && w.failure == nil; rounds++ {
		for _, c := range slices.Clone(w.copies.running) {
			w.copyStep(c)
		}
		w.drain()
		if rounds > 100 {
			w.fail("copies do not come to an end")
		}
	}
}

// dropCopies forgets the copies to a server whose owner is gone.
func (w *world) dropCopies(s *server) {
	if w.copies == nil {
		return
	}
	w.copies.running = slices.DeleteFunc(w.copies.running, func(c *rowCopy) bool {
		if c.link.target != s {
			return false
		}
		if c.hold != nil {
			c.hold.Release()
		}
		return w.broken != copySurvives
	})
}
