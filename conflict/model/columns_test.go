package model

import (
	"math/rand/v2"
	"slices"

	"replicator/change"
	"replicator/conflict"
)

// merging is a table whose columns are registers of their own.
type merging struct{}

// place2 is a column of a row.
type place2 struct{ key, column int }

func newMerging(*rand.Rand) discipline { return merging{} }

func columnKey(key, column int) change.Key {
	return conflict.ColumnKey(keyOf(key), string(rune('a'+column)))
}

// application inserts, deletes, moves rows, and changes one column or both.
func (d merging) application(w *world, s *server) []*write {
	key, other := 1+w.random.IntN(w.keys), 1+w.random.IntN(w.keys)
	row := s.rows[key]
	put := func(key int, row *tuple) *write { return &write{key: key, before: s.rows[key], after: row} }
	switch x := w.random.IntN(100); {
	case row == nil:
		return []*write{put(key, &tuple{columns: [2]int{w.random.IntN(9), w.random.IntN(9)}})}
	case x < 15:
		return []*write{put(key, nil)}
	case x < 20 && s.rows[other] == nil:
		return []*write{put(key, nil), put(other, row)}
	}
	next := *row
	for c := range next.columns {
		if w.chance(60) {
			next.columns[c] = w.random.IntN(1000)
		}
	}
	if next == *row {
		return nil
	}
	return []*write{put(key, &next)}
}

// changed returns the columns that an update changed, all of them of anything else.
func (x *write) changed() []int {
	if x.isLife() || x.whole {
		return []int{0, 1}
	}
	var all []int
	for c := range x.after.columns {
		if x.before.columns[c] != x.after.columns[c] {
			all = append(all, c)
		}
	}
	return all
}

func (d merging) feed(x *write) []change.Key {
	if x.isLife() || x.whole {
		return []change.Key{keyOf(x.key)}
	}
	var keys []change.Key
	for _, c := range x.changed() {
		keys = append(keys, columnKey(x.key, c))
	}
	return keys
}

func (p *plan) known(k change.Key) conflict.Change {
	stamp, known := p.lookup(k)
	return conflict.Change{Stamp: stamp, Known: known}
}

func (d merging) merge(p *plan, x item) conflict.Merge {
	row := p.known(keyOf(x.key))
	switch {
	case x.after == nil:
		return conflict.MergeDelete(x.stamp, row, []conflict.Change{p.known(columnKey(x.key, 0)), p.known(columnKey(x.key, 1))})
	case x.isLife() || x.whole:
		return conflict.MergeInsert(x.stamp, row)
	}
	return conflict.MergeUpdate(x.stamp, row, p.row(x.key) != nil)
}

func (d merging) incoming(p *plan, x item) {
	m := d.merge(p, x)
	p.trace = append(p.trace, string('0'+rune(m)))
	p.counts.decided++
	switch {
	case m == conflict.Keep && (p.broken == keptAlone || p.broken == nobodyStates):
		m = conflict.Lost
	case m == conflict.Resurrect && (p.broken == resurrectedAlone || p.broken == nobodyStates):
		m = conflict.Merged
	}
	switch m {
	case conflict.Lost:
		p.counts.lost++
		p.note(x.write)
	case conflict.Stale:
		p.counts.superseded++
	case conflict.Merged:
		d.carryOut(p, x)
	case conflict.Resurrect, conflict.Keep:
		d.publish(p, x, m)
	}
}

func (d merging) publish(p *plan, x item, m conflict.Merge) {
	if by := p.holders[x.key]; by != nil && by.stamp.Version != x.stamp.Version && x.entry > 0 {
		p.waits = true // what is before it is committed first
		return
	}
	r := &write{value: -1, key: x.key, after: x.after, whole: true, values: x.values}
	if m == conflict.Keep {
		if r.after = p.target.rows[x.key]; r.after == nil {
			p.missing = x.write // of a plan that is confirmed, a contradiction
			return
		}
		for c := range r.values {
			r.values[c] = p.target.columns[place2{x.key, c}].values[c]
		}
		p.lose(x.write)
	} else {
		p.lose(p.holder(x.key))
	}
	p.publish(r, x.stamp.Version)
}

// carryOut applies an insert, a deletion, or the columns of an update that win.
func (d merging) carryOut(p *plan, x item) {
	row := p.row(x.key)
	present := p.known(keyOf(x.key))
	if x.isLife() || x.whole {
		p.list(x, keyOf(x.key))
	}
	var next *tuple
	if x.after != nil {
		next = &tuple{columns: x.after.columns}
		if row != nil {
			next.columns = row.columns
		}
	}
	for c := range x.values {
		if row == nil {
			p.columns[place2{x.key, c}] = x.write
		}
	}
	for _, c := range x.changed() {
		k := columnKey(x.key, c)
		v := conflict.DecideColumn(x.stamp, present, p.known(k))
		p.trace = append(p.trace, v.String())
		switch v {
		case conflict.ApplyOver:
			p.noteColumn(place2{x.key, c})
		case conflict.Lose:
			p.note(x.write)
		case conflict.Apply, conflict.Superseded:
		}
		if !v.Applies() && (row != nil || !x.isLife() && !x.whole) {
			continue
		}
		if next != nil {
			next.columns[c] = x.after.columns[c]
		}
		p.columns[place2{x.key, c}] = x.write
		if !x.isLife() && !x.whole {
			p.list(x, k)
		}
	}
	p.set(x.key, next, x.write)
}

func (p *plan) columnHolder(at place2) *write {
	if h, ok := p.columns[at]; ok {
		return h
	}
	return p.target.columns[at]
}

func (p *plan) noteColumn(at place2) {
	if h := p.columnHolder(at); h != nil && h.values[at.column] >= 0 {
		p.journal = append(p.journal, h.values[at.column])
	}
}

func (d merging) settle(*plan) {}

func (d merging) check(*world, *server) {}

// verdict finds every column with the value of its newest change, and every change of a column that no application has
// changed knowingly again there or in a journal.
func (d merging) verdict(w *world) {
	newest := map[place2]*write{}
	for _, x := range slices.Concat(w.writes, w.stated) {
		for _, c := range x.changed() {
			at := place2{x.key, c}
			if n := newest[at]; n == nil || n.stamp.Version.Compare(x.stamp.Version) < 0 {
				newest[at] = x
			}
		}
	}
	for at, x := range newest {
		row := w.servers[0].rows[at.key]
		if row != nil && (x.after == nil || x.after.columns[at.column] != row.columns[at.column]) {
			w.fail("column %d of row %d is %v, not as of %v", at.column, at.key, row, x)
		}
	}
	for _, x := range w.writes {
		if x.after == nil || w.journaled(x) {
			continue
		}
		for _, c := range x.changed() {
			row := w.servers[0].rows[x.key]
			if !x.over[c] && (row == nil || row.columns[c] != x.after.columns[c]) {
				w.fail("lost without a word: column %d of %v", c, x)
			}
		}
	}
}
