package model

import (
	"math/rand/v2"

	"replicator/change"
	"replicator/conflict"
)

// adding is a table with a column to which changes add.
type adding struct {
	reuse bool // deleted keys are used again
}

func newAdding(random *rand.Rand) discipline { return adding{reuse: random.IntN(4) > 0} }

// application adds, changes the other column, inserts, deletes, or moves a row to another key.
func (d adding) application(w *world, s *server) []*write {
	key, other := 1+w.random.IntN(w.keys), 1+w.random.IntN(w.keys)
	row := s.rows[key]
	put := func(key int, row *tuple) *write { return &write{key: key, before: s.rows[key], after: row} }
	fresh := func(key int) bool { return s.rows[key] == nil && (d.reuse || s.holder[key] == nil) }
	switch x := w.random.IntN(100); {
	case row == nil && fresh(key):
		return []*write{put(key, &tuple{amount: 100 * (1 + w.random.IntN(5))})}
	case row == nil:
		return nil
	case x < 10:
		return []*write{put(key, nil)}
	case x < 15 && fresh(other):
		return []*write{put(key, nil), put(other, row)}
	case x < 80:
		next := *row
		next.amount += 1 + w.random.IntN(9)
		return []*write{put(key, &next)}
	default:
		next := *row
		next.amount += w.random.IntN(2)
		next.columns[0] = w.random.IntN(5)
		return []*write{put(key, &next)}
	}
}

func (d adding) row(n int) change.Key { return conflict.RowKey(keyOf(n)) }

func (d adding) feed(x *write) []change.Key {
	if x.before == nil || x.after == nil {
		return []change.Key{conflict.LifeKey(keyOf(x.key))}
	}
	return []change.Key{d.row(x.key)}
}

func (d adding) incoming(p *plan, x item) {
	if x.before == nil || x.after == nil {
		d.life(p, x)
		return
	}
	if p.broken != withoutWait && len(p.target.state.Lacks(x.stamp.Context)) > 0 {
		p.waits = true
		return
	}
	life, known := p.lookup(conflict.LifeKey(keyOf(x.key)))
	verdict := conflict.DecideDelta(x.stamp, life, known)
	p.trace = append(p.trace, verdict.String())
	if p.broken == lifeIgnored && p.row(x.key) != nil {
		verdict = conflict.Apply
	}
	if verdict != conflict.Apply {
		p.counts.lost++
		if verdict == conflict.Lose {
			p.note(x.write)
		}
		return
	}
	row := p.row(x.key)
	if row == nil {
		p.missing = x.write // of a plan that is confirmed, a contradiction
		return
	}
	next := *row
	v := p.decide(x, d.row(x.key))
	if v.Applies() {
		next.columns = x.after.columns
		p.list(x, d.row(x.key))
	}
	if v.Applies() || p.broken != winnerAdds {
		next.amount += x.after.amount - x.before.amount
	}
	if v == conflict.Lose {
		p.note(x.write)
	}
	p.set(x.key, &next, p.holder(x.key))
}

// life is the beginning or end of a row.
func (d adding) life(p *plan, x item) {
	key := conflict.LifeKey(keyOf(x.key))
	switch p.decide(x, key) {
	case conflict.Lose:
		p.note(x.write)
		return
	case conflict.Superseded:
		return
	case conflict.ApplyOver:
		p.note(p.holder(x.key))
	case conflict.Apply:
	}
	p.list(x, key)
	if p.broken != withoutReset {
		p.stamps[d.row(x.key)] = x.stamp
	}
	p.set(x.key, x.after, x.write)
}

func (d adding) settle(*plan) {}

func (d adding) check(*world, *server) {}

// verdict adds up: every change that was made on what is now the life of its row counts once, every other one was made
// over or is in a journal.
func (d adding) verdict(w *world) {
	lives, sums := map[int]*write{}, map[int]int{}
	for _, x := range w.writes {
		if life := lives[x.key]; x.isLife() && (life == nil || life.stamp.Version.Compare(x.stamp.Version) < 0) {
			lives[x.key] = x
		}
	}
	for _, x := range w.writes {
		life := lives[x.key]
		switch {
		case x == life && x.after != nil:
			sums[x.key] += x.after.amount
		case x == life:
		case !x.isLife() && x.stamp.Covers(life.stamp.Version):
			sums[x.key] += x.after.amount - x.before.amount
		case !w.coveredByLife(x) && !w.journaled(x):
			w.fail("lost without a word: %v", x)
		}
	}
	for key := 1; key <= w.keys; key++ {
		row, life := w.servers[0].rows[key], lives[key]
		switch {
		case (row != nil) != (life != nil && life.after != nil):
			w.fail("row %d is %v, its life %v", key, row, life)
		case row != nil && row.amount != sums[key]:
			w.fail("row %d has %d, not %d", key, row.amount, sums[key])
		}
	}
}

func (x *write) isLife() bool { return x.before == nil || x.after == nil }

func (w *world) coveredByLife(x *write) bool {
	for _, life := range w.writes {
		if life.key == x.key && life.isLife() && life != x && life.stamp.Covers(x.stamp.Version) {
			return true
		}
	}
	return false
}

func (w *world) journaled(x *write) bool {
	for _, s := range w.servers {
		if s.journal[x.id] {
			return true
		}
	}
	return false
}
