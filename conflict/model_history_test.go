package conflict_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"

	"replicator/change"
	"replicator/conflict"
)

// judge holds a verdict against the truth, which knows what every change had really seen.
func (w *world) judge(t *server, r, lostTo *row, v conflict.Verdict) {
	w.counts.decided++
	if t.decided[r.key].has(r.id) {
		w.fail("server %d decides twice: %v", t.number, r)
	}
	defer t.decide(r)
	h := t.holder[r.key]
	older := h != nil && r.stamp.Version.Compare(h.stamp.Version) < 0
	if v.Applies() == older {
		w.fail("server %d: %v over %v of %v", t.number, v, h, r)
		return
	}
	switch {
	case h == nil:
		if v != conflict.Apply {
			w.fail("server %d: %v for the first change of a row: %v", t.number, v, r)
		}
	case older:
		w.judgeLoser(t, r, cmp.Or(lostTo, h), v)
	default:
		w.judgeWinner(t, r, h, v)
	}
	switch v {
	case conflict.ApplyOver:
		w.counts.over++
	case conflict.Lose:
		w.counts.lost++
	case conflict.Superseded:
		w.counts.superseded++
	case conflict.Apply:
	}
}

func (w *world) judgeWinner(t *server, r, h *row, v conflict.Verdict) {
	sequential := r.past.has(h.id)
	switch {
	case sequential == (v == conflict.Apply):
	case sequential && !r.direct.has(h.id): // see the comment at TestConvergence
		w.counts.thirdPath++
	case !sequential && w.links[conflict.Link{From: h.origin.id, To: r.origin.id}] == nil:
		w.counts.unseen++
	case !sequential && h.stamp.Version.Time <= r.origin.known:
		w.counts.beforeBirth++
	case sequential:
		w.fail("server %d: a sequential change reported as a conflict: %v was made after %v", t.number, r, h)
	default:
		w.fail("server %d: a concurrent change overwritten unnoticed: %v by %v", t.number, h, r)
	}
}

func (w *world) judgeLoser(t *server, r, h *row, v conflict.Verdict) {
	if v == conflict.Superseded {
		for _, c := range w.changes[r.key] {
			if t.decided[r.key].has(c.id) && c.past.has(r.id) {
				return
			}
		}
		w.fail("server %d: a concurrent change lost unnoticed: %v to %v", t.number, r, h)
		return
	}
	switch {
	case !h.past.has(r.id):
	case !h.direct.has(r.id):
		w.counts.thirdPath++
	default:
		w.fail("server %d: a superseded change reported as a conflict: %v was made after %v", t.number, h, r)
	}
}

// act does one random thing.
func (w *world) act() {
	w.now += change.Time(w.random.IntN(6))
	s := w.servers[w.random.IntN(len(w.servers))]
	l := w.anyLink()
	switch x := w.random.IntN(1000); {
	case !s.born && w.clone != nil:
		if x < 200 {
			w.cloneStep()
		}
	case !s.born:
		switch {
		case x < 20 && w.clones && w.chance(75):
			w.beginClone(s)
		case x < 20:
			w.join()
		}
	case x < 300:
		w.application(s)
	case x < 340:
		w.heartbeat(s)
	case x < 355:
		w.crash(s)
	case x < 360: // the server's clock steps
		s.skew = w.skew()
	case x < 380:
		l.down = !l.down
	case x < 430:
		w.feed(w.owners[s.id], 1+w.random.IntN(5))
	case x < 520:
		w.check(w.owners[s.id].state.Sweep())
	case x < 580:
		w.save(w.owners[s.id])
	default:
		for range 1 + w.random.IntN(4) {
			w.step(l)
		}
	}
	if w.copies != nil {
		w.copyAct()
	}
}

func (w *world) anyLink() *link {
	for {
		from, to := w.servers[w.random.IntN(len(w.servers))], w.servers[w.random.IntN(len(w.servers))]
		if l := w.links[conflict.Link{From: from.id, To: to.id}]; l != nil {
			return l
		}
		if len(w.links) == 0 {
			return &link{source: from, target: to, down: true}
		}
	}
}

// quiesce stops the applications, heals every link and lets everything through.
func (w *world) quiesce() {
	w.join()
	for _, l := range w.links {
		l.down = false
	}
	for rounds := 0; w.clone != nil && w.failure == nil; rounds++ {
		if w.cloneStep(); w.clone != nil && !w.clone.settled {
			w.settle()
		}
		if rounds > 100 {
			w.fail("the clone does not come to an end")
		}
	}
	for _, s := range w.servers {
		w.restart(s)
		for _, l := range w.linksTo(s) {
			l.down = false
		}
	}
	w.settle()
	if w.copies != nil {
		w.repair()
		w.settle()
	}
	for _, s := range w.servers {
		o := w.owners[s.id]
		w.feed(o, len(s.binlog))
		w.sweepAll(o)
		o.state.Checkpoint(o.fed.position, o.fed.clock)
		w.save(o)
	}
}

// settle lets every change become stable.
func (w *world) settle() {
	for range 3 {
		w.now += 2000
		for _, s := range w.servers {
			if s.born {
				w.heartbeat(s)
			}
		}
		w.drain()
	}
}

func (w *world) drain() {
	for rounds := 0; ; rounds++ {
		busy := false
		for _, s := range w.servers {
			for _, l := range w.linksTo(s) {
				if !s.born {
					continue
				}
				if l.group != nil || l.place.index < len(l.source.binlog) {
					w.step(l)
					busy = true
				}
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

// verdict checks what must hold at rest.
func (w *world) verdict() {
	for key := range w.keys {
		for _, s := range w.servers {
			var want *row
			for _, c := range w.changes[key] {
				visible := c.origin == s || w.links[conflict.Link{From: c.origin.id, To: s.id}] != nil
				if visible != s.decided[key].has(c.id) {
					w.fail("server %d: %v visible %v, decided %v", s.number, c, visible, !visible)
				}
				if visible && (want == nil || want.stamp.Version.Compare(c.stamp.Version) < 0) {
					want = c
				}
			}
			if s.holder[key] != want {
				w.fail("diverged: server %d has %v, not %v", s.number, s.holder[key], want)
			}
			if want != nil && s.rows[key] != want.value || want == nil && s.rows[key] != 0 {
				w.fail("diverged: server %d has %d in key %d, not what is demanded: %v", s.number, s.rows[key], key, want)
			}
		}
	}
	for _, s := range w.servers {
		if n := w.owners[s.id].state.Stats(); n.Entries+n.Spilled != 0 || n.Bytes > 200 {
			w.fail("server %d keeps %+v at rest", s.number, n)
		}
		if s.frontier.index != len(s.binlog) && w.broken != rebuildFromEnd {
			w.fail("server %d: the frontier stays at %d of %d", s.number, s.frontier.index, len(s.binlog))
		}
	}
}

// history runs the steps, each a seed of its own, and returns what went wrong.
func history(seed uint64, steps []uint64, broken rule) (counts, error) {
	w := newWorld(seed, broken)
	for _, step := range steps {
		w.source.Seed(w.seed, step)
		w.act()
		if w.failure != nil {
			return w.counts, w.failure
		}
	}
	w.source.Seed(w.seed, 1)
	w.quiesce()
	if w.failure == nil {
		w.verdict()
	}
	if w.failure != nil {
		return w.counts, fmt.Errorf("with %d servers, %d keys, %d links: %w", len(w.servers), w.keys, len(w.links), w.failure)
	}
	return w.counts, nil
}

// randomHistory runs a history that the seed alone determines.
func randomHistory(seed uint64, broken rule) (counts, error) {
	random := rand.New(rand.NewPCG(seed, seed))
	steps := make([]uint64, []int{50, 300, 800}[random.IntN(3)])
	for i := range steps {
		steps[i] = random.Uint64()
	}
	return history(seed, steps, broken)
}
