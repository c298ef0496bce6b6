package conflict

import (
	"math"
	"sync"

	"replicator/change"
)

// stability knows, per origin, up to which time that origin's changes are stable at one target: nothing that could
// conflict with them, or lose to them, can still arrive.
//
// A change (time v, origin o) is stable when every server p that is linked to the target has passed it:
//   - p is o itself: the target has everything of o up to v;
//   - p receives the changes of o: the newest context of p that the target knows covers v, so that whatever p still has
//     to send was made after p had the change;
//   - p can never see the changes of o (a one-way topology without the link o→p): the target has everything of p up to
//     v, so that whatever p still has to send is newer and wins. Every overwrite by p of a change of o is concurrent in
//     such a topology, for ever; only those by changes older than the entry's own stability are noticed. That is the
//     price of a bounded index, and such servers do not converge in any case: p keeps its own row.
//
// Servers that are not linked to the target send nothing to it and hold nothing. A server that is linked and was never
// heard of holds everything.
type stability struct {
	target   change.ServerID
	topology Topology
	sources  []change.ServerID

	mu      sync.RWMutex
	applied map[change.ServerID]change.Clock
	holds   map[*Hold]struct{}
	marks   map[change.ServerID]change.Time // computed when asked for, emptied when applied moves
	moves   uint64                          // how often applied has moved, or a hold has ended
}

func newStability(target change.ServerID, topology Topology) *stability {
	return &stability{
		target: target, topology: topology, sources: topology.Sources(target),
		applied: map[change.ServerID]change.Clock{}, holds: map[*Hold]struct{}{}, marks: map[change.ServerID]change.Time{},
	}
}

// advance notes what the target has of a source. What was true once stays true: an older clock takes nothing back.
func (s *stability) advance(source change.ServerID, clock change.Clock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.applied[source]
	next := change.Clock{Time: max(old.Time, clock.Time), Context: old.Context.Merge(clock.Context)}
	if next.Time == old.Time && next.Context.Equal(old.Context) {
		return
	}
	s.applied[source] = next
	clear(s.marks)
	s.moves++
}

func (s *stability) appliedUpTo(source change.ServerID) change.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.applied[source].Time
}

// upTo returns the time up to which the changes of an origin are stable.
func (s *stability) upTo(origin change.ServerID) change.Time {
	s.mu.RLock()
	mark, ok := s.marks[origin]
	s.mu.RUnlock()
	if ok {
		return mark
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mark = math.MaxInt64
	for _, p := range s.sources {
		clock, heard := s.applied[p]
		if !heard {
			mark = math.MinInt64
			break
		}
		mark = min(mark, s.passed(p, clock, origin))
	}
	for h := range s.holds {
		mark = min(mark, s.passed(h.source, h.Covered, origin))
	}
	s.marks[origin] = mark
	return mark
}

// passed returns the time up to which server p, where its clock is this, can no longer interfere with the changes of an
// origin.
func (s *stability) passed(p change.ServerID, clock change.Clock, origin change.ServerID) change.Time {
	if p != origin && s.topology.Has(origin, p) {
		return clock.Context.At(origin)
	}
	return clock.Time
}

func (s *stability) lacks(c change.Context) []change.ServerID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var missing []change.ServerID
	for _, e := range c {
		if s.topology.Has(e.Origin, s.target) && s.applied[e.Origin].Time < e.Time {
			missing = append(missing, e.Origin)
		}
	}
	return missing
}

// generation changes whenever something may have become stable.
func (s *stability) generation() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.moves
}
