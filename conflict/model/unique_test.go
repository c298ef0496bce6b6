package model

import (
	"math/rand/v2"

	"replicator/change"
	"replicator/conflict"
)

// unique is a table with two secondary unique keys.
type unique struct {
	rowOnly
	values  int
	contest bool // every server writes one row once, all with the same value
}

func newUnique(random *rand.Rand) discipline {
	return unique{values: []int{1, 2, 3, 12}[random.IntN(4)]}
}

func newUniqueContest(*rand.Rand) discipline { return unique{contest: true} }

// application inserts, updates, deletes, moves a row to another key, or swaps the values of two rows.
func (u unique) application(w *world, s *server) []*write {
	scratch := map[int]*tuple{}
	get := func(key int) *tuple {
		if r, ok := scratch[key]; ok {
			return r
		}
		return s.rows[key]
	}
	free := func(key int, row tuple) bool {
		for other := 1; other <= w.keys; other++ {
			if r := get(other); r != nil && other != key && clash(*r, row) {
				return false
			}
		}
		return true
	}
	if u.contest {
		if len(s.holder) > 0 || s.number >= w.keys {
			return nil
		}
		return []*write{{key: s.number + 1, after: &tuple{unique: [2]int{1, 0}}}}
	}
	var writes []*write
	put := func(key int, row *tuple) {
		if row != nil && !free(key, *row) {
			return
		}
		writes = append(writes, &write{key: key, before: get(key), after: row})
		scratch[key] = row
	}
	value := func() int { return w.random.IntN(u.values + 1) }
	for range 1 + w.random.IntN(3)/2 {
		key, other := 1+w.random.IntN(w.keys), 1+w.random.IntN(w.keys)
		row, second := get(key), get(other)
		switch x := w.random.IntN(100); {
		case x < 25 && row != nil:
			put(key, nil)
		case x < 35 && row != nil && second == nil:
			put(key, nil)
			put(other, row)
		case x < 50 && row != nil && second != nil && key != other: // the values change places
			put(key, &tuple{columns: row.columns})
			put(other, row)
			put(key, second)
		default:
			put(key, &tuple{unique: [2]int{value(), value()}, columns: [2]int{w.random.IntN(3), 0}})
		}
	}
	return writes
}

func clash(a, b tuple) bool {
	for i := range a.unique {
		if a.unique[i] != 0 && a.unique[i] == b.unique[i] {
			return true
		}
	}
	return false
}

// incoming settles a clash: the newest row stays, and the deletion of every other one is published.
func (u unique) incoming(p *plan, x item) {
	stamp, known := p.lookup(keyOf(x.key))
	v := conflict.Decide(x.stamp, stamp, known)
	if x.after == nil || !v.Applies() {
		p.wins(x)
		return
	}
	var holders []int
	var rivals []conflict.Change
	for key := 1; key <= p.keys; key++ {
		if r := p.row(key); r != nil && key != x.key && clash(*r, *x.after) {
			stamp, known := p.lookup(keyOf(key))
			holders = append(holders, key)
			rivals = append(rivals, conflict.Change{Stamp: stamp, Known: known})
			p.touch(key)
		}
	}
	if len(holders) == 0 {
		p.wins(x)
		return
	}
	stays := conflict.Prevails(x.stamp.Version, rivals)
	if p.broken == arrivedStays {
		stays = true
	}
	if stays {
		for i, key := range holders {
			p.remove(key, x.stamp.Version, rivals[i].Stamp.Version)
			p.lose(p.holder(key))
		}
		return
	}
	p.remove(x.key, x.stamp.Version)
	p.lose(x.write)
	if v == conflict.ApplyOver {
		p.lose(p.holder(x.key))
	}
}

func (p *plan) remove(key int, newerThan ...change.Version) {
	switch {
	case p.broken == physicalOnly:
		p.published = append(p.published, &write{id: -1, value: -1, key: -key})
		p.target.set(key, nil, nil)
	case p.broken == withoutTombstone && p.target.rows[key] == nil:
		p.published = append(p.published, &write{id: -1, value: -1, key: -key})
	default:
		p.publish(&write{value: -1, key: key, whole: true}, newerThan...)
	}
}

func (u unique) settle(*plan) {}

func (u unique) check(w *world, s *server) {
	for a, x := range s.rows {
		for b, y := range s.rows {
			if a < b && clash(*x, *y) {
				w.fail("server %d holds %v and %v", s.number, *x, *y)
			}
		}
	}
}

func (u unique) verdict(w *world) {
	w.accounted()
	var newest *write
	for _, x := range w.writes {
		if newest == nil || newest.stamp.Version.Compare(x.stamp.Version) < 0 {
			newest = x
		}
	}
	if u.contest && newest != nil && w.servers[0].rows[newest.key] == nil {
		w.fail("%v should stay", newest)
	}
}
