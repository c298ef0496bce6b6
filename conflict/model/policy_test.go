package model

import (
	"math/rand/v2"

	"replicator/change"
	"replicator/conflict"
)

// policy is a table whose conflicts do not end with the last writer.
type policy struct {
	rowOnly
	policy  conflict.Policy
	contest bool // every server writes one row once, before it has heard of any other
}

func newPolicy(random *rand.Rand) discipline {
	return policy{policy: []conflict.Policy{conflict.FirstWriterWins, conflict.ServerPriority}[random.IntN(2)]}
}

func newContest(random *rand.Rand) discipline {
	d := newPolicy(random).(policy)
	d.contest = true
	return d
}

func rank(id change.ServerID) int { return -int(id[0]) }

// application inserts, updates, deletes, or moves rows.
func (d policy) application(w *world, s *server) []*write {
	key, other := 1+w.random.IntN(w.keys), 1+w.random.IntN(w.keys)
	row := s.rows[key]
	put := func(key int, row *tuple) *write { return &write{key: key, before: s.rows[key], after: row} }
	switch x := w.random.IntN(100); {
	case d.contest:
		if key = 1; s.clock.Time > 0 || len(s.holder) > 0 || s.locks[1] != nil || w.writesOf(s) > 0 {
			return nil
		}
		return []*write{put(key, &tuple{columns: [2]int{1 + s.number, 0}})}
	case x < 25 && row != nil:
		return []*write{put(key, nil)}
	case x < 35 && row != nil && s.rows[other] == nil && key != other:
		return []*write{put(key, nil), put(other, row)}
	default:
		return []*write{put(key, &tuple{columns: [2]int{w.random.IntN(3), w.random.IntN(3)}})}
	}
}

func (w *world) writesOf(s *server) int {
	n := 0
	for _, x := range w.writes {
		if x.origin == s {
			n++
		}
	}
	return n
}

func (x *write) originalVersion() change.Version {
	if x.original.Version.IsZero() {
		return x.stamp.Version
	}
	return x.original.Version
}

func (d policy) incoming(p *plan, x item) {
	entry, known := p.lookup(keyOf(x.key))
	if _, ours := p.rows[x.key]; !ours && entry.Version.Origin == p.target.id &&
		conflict.Decide(x.stamp, entry, known) == conflict.ApplyOver {
		own := p.target.state.Original(keyOf(x.key), entry.Version)
		theirs := x.originalVersion()
		if p.broken == withoutOriginal {
			own, theirs = entry.Version, x.stamp.Version
		}
		if d.policy.Stands(own, theirs, rank) {
			h := p.holder(x.key)
			again := &write{value: -1, key: x.key, after: p.row(x.key), whole: true, original: change.Stamp{Version: own}}
			if h != nil {
				again.value = h.value
			}
			p.publish(again, x.stamp.Version)
			p.lose(x.write)
			return
		}
	}
	p.wins(x)
}

func (d policy) settle(*plan) {}

func (d policy) check(*world, *server) {}

func (d policy) verdict(w *world) {
	w.accounted()
	if !d.contest || len(w.writes) == 0 {
		return
	}
	best := w.writes[0]
	for _, x := range w.writes {
		if d.policy.Stands(x.stamp.Version, best.stamp.Version, rank) {
			best = x
		}
	}
	if h := w.servers[0].holder[1]; h.value != best.id {
		w.fail("%v should stand, not %v", best, h)
	}
}
