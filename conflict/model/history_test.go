package model

import (
	"fmt"
	"math/rand/v2"

	"replicator/change"
)

// act does one random thing.
func (w *world) act() {
	w.now += change.Time(w.random.IntN(6))
	s := w.servers[w.random.IntN(len(w.servers))]
	l := w.links[w.random.IntN(len(w.links))]
	switch x := w.random.IntN(1000); {
	case x < 300:
		w.application(s)
	case x < 340:
		w.heartbeat(s)
	case x < 355:
		w.counts.crashes++
		w.restart(s)
	case x < 360:
		s.skew = w.skew()
	case x < 380:
		l.down = !l.down
	case x < 430:
		w.feed(s, 1+w.random.IntN(5))
	case x < 500:
		w.must(s.state.Sweep())
	case x < 530:
		w.save(s)
	default:
		for range 1 + w.random.IntN(4) {
			w.step(l)
		}
	}
}

// quiesce stops the applications, heals every link and lets everything through.
func (w *world) quiesce() {
	for _, l := range w.links {
		l.down = false
	}
	for range 3 {
		w.now += 2000
		for _, s := range w.servers {
			w.heartbeat(s)
		}
		w.drain()
	}
	for _, s := range w.servers {
		w.feed(s, len(s.binlog))
		w.must(s.state.Sweep())
		if n := s.state.Stats().Entries; n > 0 {
			w.fail("server %d keeps %d entries at rest", s.number, n)
		}
	}
}

func (w *world) drain() {
	for rounds := 0; ; rounds++ {
		busy := false
		for _, i := range w.random.Perm(len(w.links)) {
			if l := w.links[i]; l.group != nil || l.place.index < len(l.source.binlog) {
				w.step(l)
				busy = true
			}
		}
		if !busy {
			return
		}
		if rounds > 20000 || w.failure != nil {
			w.fail("the mesh does not come to rest")
			return
		}
	}
}

// history runs a history that the seed alone determines, and returns what went wrong.
func history(seed uint64, d func(*rand.Rand) discipline, broken rule) (counts, error) {
	random := rand.New(rand.NewPCG(seed, 11))
	w := newWorld(seed, d(random), broken)
	steps := []int{50, 200, 600}[random.IntN(3)]
	for range steps {
		w.act()
		if w.failure != nil {
			break
		}
	}
	if w.failure == nil {
		w.quiesce()
	}
	if w.failure == nil {
		w.equal()
		w.discipline.verdict(w)
	}
	if w.failure == nil && w.counts.settled > 20*(w.counts.local+1) {
		w.fail("%d resolutions for %d transactions", w.counts.settled, w.counts.local)
	}
	if w.failure != nil {
		return w.counts, fmt.Errorf("history %d with %d servers, %d keys, %T%+v: %w",
			seed, len(w.servers), w.keys, w.discipline, w.discipline, w.failure)
	}
	return w.counts, nil
}
