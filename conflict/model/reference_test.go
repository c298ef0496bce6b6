package model

import (
	"math/rand/v2"
	"slices"

	"replicator/change"
	"replicator/conflict"
)

// reference is a table whose rows refer to rows of the same table, so that chains of any length arise.
type reference struct {
	rowOnly
	action onDelete
	silent int // servers that do not log what a cascade does, a bit each (MariaDB, MySQL before 9.6)
}

// onDelete is what the deletion of a parent does.
type onDelete int

const (
	restrict onDelete = iota
	cascade
	setNull
)

func newReference(random *rand.Rand) discipline {
	return reference{action: onDelete(random.IntN(3))}
}

func newSilentReference(random *rand.Rand) discipline {
	return reference{action: onDelete(1 + random.IntN(2)), silent: 1 + random.IntN(15)}
}

// logs reports whether a server logs what a cascade does.
func (f reference) logs(s *server) bool { return f.silent>>s.number&1 == 0 }

func children(p *plan, key int) []int {
	var found []int
	for c := 1; c <= p.keys; c++ {
		if r := p.row(c); r != nil && r.parent == key {
			found = append(found, c)
		}
	}
	return found
}

func orphaned(r tuple) *tuple {
	r.parent = 0
	return &r
}

// flat: where a cascade is not logged, children must not be parents.
func (f reference) flat(w *world) bool { return f.silent != 0 && w.broken != silentChains }

// application inserts, updates, gives a row another parent, or deletes it with what that does to its children.
func (f reference) application(w *world, s *server) []*write {
	scratch := map[int]*tuple{}
	get := func(key int) *tuple {
		if r, ok := scratch[key]; ok {
			return r
		}
		return s.rows[key]
	}
	var writes []*write
	put := func(key int, row *tuple, silent bool) {
		writes = append(writes, &write{key: key, before: get(key), after: row, silent: silent})
		scratch[key] = row
	}
	for range 1 + w.random.IntN(3)/2 {
		key, parent := 1+w.random.IntN(w.keys), 1+w.random.IntN(w.keys)
		if w.chance(40) || parent == key || get(parent) == nil || f.flat(w) && (key%2 == 0 || parent%2 == 1) {
			parent = 0
		}
		if w.chance(30) && get(key) != nil {
			f.remove(w, s, key, get, put, false)
			continue
		}
		row := tuple{parent: parent, columns: [2]int{w.random.IntN(4), 0}}
		if old := get(key); old != nil && w.chance(60) { // the parent stays
			row.parent = old.parent
		}
		if old := get(key); old == nil || *old != row {
			put(key, &row, false)
		}
	}
	return writes
}

func (f reference) remove(w *world, s *server, key int, get func(int) *tuple, put func(int, *tuple, bool), silent bool) {
	var below []int
	for c := 1; c <= w.keys; c++ {
		if r := get(c); r != nil && r.parent == key && c != key {
			below = append(below, c)
		}
	}
	if f.action == restrict && len(below) > 0 {
		return
	}
	put(key, nil, silent)
	for _, c := range below {
		switch {
		case get(c) == nil:
		case f.action == cascade:
			f.remove(w, s, c, get, put, !f.logs(s))
		default:
			put(c, orphaned(*get(c)), !f.logs(s))
		}
	}
}

func (f reference) incoming(p *plan, x item) {
	p.wins(x)
	if x.id < 0 || x.after != nil || f.logs(x.origin) || f.action == restrict || p.broken == withoutExpansion {
		return
	}
	if p.broken != withoutWait && len(p.target.state.Lacks(x.stamp.Context)) > 0 {
		p.waits = true
		return
	}
	f.expand(p, x.key, x.stamp)
}

// expand does to the children of a deleted row what the deletion did to them where it was made and was not logged. What
// has changed since then is settled.
func (f reference) expand(p *plan, key int, d change.Stamp) {
	for _, c := range children(p, key) {
		e := p.known(keyOf(c))
		switch conflict.Below(e, conflict.Change{Stamp: d, Known: true}, false) {
		case conflict.Hide:
			p.counts.cascaded++
			f.carry(p, c, d)
			if f.action == cascade {
				f.expand(p, c, d)
			}
		case conflict.Settle:
			if p.row(key) == nil {
				f.publish(p, c, e.Stamp.Version, d.Version)
			}
		case conflict.Leave, conflict.Wait:
		}
	}
}

// carry deletes a child, or takes its parent away, without a version of its own.
func (f reference) carry(p *plan, c int, d change.Stamp) {
	p.trace = append(p.trace, "cascade")
	if f.action == setNull {
		p.set(c, orphaned(*p.row(c)), p.holder(c))
		return
	}
	p.set(c, nil, &write{id: -1, value: -1, key: c, stamp: d})
}

// settle looks at every child that the group would leave without its parent.
func (f reference) settle(p *plan) {
	for _, x := range p.items {
		r := p.row(x.key)
		if r == nil {
			for _, c := range children(p, x.key) {
				f.judge(p, x, c, x.key)
			}
		} else if r.parent != 0 {
			p.touch(r.parent)
			if p.row(r.parent) == nil {
				f.judge(p, x, x.key, r.parent)
			}
		}
		if p.waits {
			return
		}
	}
}

// judge decides about a child whose parent is not there.
func (f reference) judge(p *plan, x item, c, parent int) {
	p.touch(c)
	d, e := p.known(keyOf(parent)), p.known(keyOf(c))
	lacks := len(p.target.state.Lacks(e.Stamp.Context)) > 0
	patient := p.holders[c] == x.write && f.silent != 0
	fate := conflict.Orphan(e, d, lacks, patient)
	switch {
	case p.broken == arrivedLeft && p.holders[c] == x.write && fate == conflict.Settle,
		p.broken == presentLeft && p.holders[c] != x.write && fate == conflict.Settle:
		fate = conflict.Leave
	}
	switch fate {
	case conflict.Settle:
		f.publish(p, c, e.Stamp.Version, d.Stamp.Version)
	case conflict.Leave, conflict.Hide:
		p.trace = append(p.trace, "left")
		p.counts.left++
	case conflict.Wait:
		p.waits, p.waiting = true, x.entry
	}
}

// publish takes a child away, or its parent from it, as a change of the target's own.
func (f reference) publish(p *plan, c int, newerThan ...change.Version) {
	if f.action != setNull {
		f.publishRemoval(p, c, newerThan...)
		return
	}
	p.publish(&write{value: -1, key: c, after: orphaned(*p.row(c)), whole: true}, newerThan...)
	p.lose(p.holder(c))
}

// publishRemoval removes a row with everything below it.
func (f reference) publishRemoval(p *plan, key int, newerThan ...change.Version) {
	if slices.ContainsFunc(p.published, func(o *write) bool { return o.key == key }) {
		return
	}
	p.publish(&write{value: -1, key: key, whole: true}, newerThan...)
	p.lose(p.holder(key))
	if p.broken == childAlone {
		return
	}
	for c := 1; c <= p.keys; c++ { // the group is rolled back: its children are those before it and those after it
		before, after := p.target.rows[c], p.row(c)
		if before != nil && before.parent == key || after != nil && after.parent == key {
			e, _ := p.lookup(keyOf(c))
			f.publishRemoval(p, c, e.Version)
		}
	}
}

func (f reference) check(*world, *server) {}

func (f reference) verdict(w *world) {
	w.accounted()
	for _, s := range w.servers {
		for key, r := range s.rows {
			if r.parent != 0 && s.rows[r.parent] == nil {
				w.fail("server %d: row %d has lost its parent %d", s.number, key, r.parent)
			}
		}
	}
}
