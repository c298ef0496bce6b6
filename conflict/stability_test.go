package conflict

import (
	"math"
	"testing"

	"replicator/change"
)

// clocks say how far the target has applied a source, and what that source had of others.
type clocks map[int]change.Clock

func clock(time int, seen ...int) change.Clock {
	return change.Clock{Time: change.Time(time), Context: contextOf(seen...)}
}

func without(links ...Link) Topology {
	all := FullMesh(id(1), id(2), id(3)).links
	for _, l := range links {
		delete(all, l)
	}
	var left []Link
	for l := range all {
		left = append(left, l)
	}
	return NewTopology(left...)
}

// TestStability asks at server 1 of a mesh of three how far the changes of each origin are stable.
func TestStability(t *testing.T) {
	link := func(from, to int) Link { return Link{id(from), id(to)} }
	const never, all = math.MinInt64, math.MaxInt64
	for _, c := range []struct {
		name     string
		topology Topology
		applied  clocks
		upTo     [3]change.Time // of servers 1, 2 and 3
	}{
		{"a server that was never heard of holds everything", without(), clocks{2: clock(50, 1, 40)}, [3]change.Time{
			never, never, never,
		}},
		{
			"every peer must have it; its origin has it anyway", without(),
			clocks{2: clock(50, 1, 40, 3, 20), 3: clock(60, 1, 30, 2, 45)},
			[3]change.Time{30, 45, 20},
		},
		{
			"what the target has is not what the peers have", without(),
			clocks{2: clock(50), 3: clock(60)},
			[3]change.Time{0, 0, 0},
		},
		{
			"a cut link from the target is configured all the same", without(),
			clocks{2: clock(90, 1, 10, 3, 60), 3: clock(90, 1, 80, 2, 60)},
			[3]change.Time{10, 60, 60},
		},
		{
			"a server that the target cannot hear holds nothing", without(link(3, 1)),
			clocks{2: clock(50, 1, 40, 3, 20)},
			[3]change.Time{40, 50, 20},
		},
		{
			"a server that never sees the target only sends newer changes", without(link(1, 2)),
			clocks{2: clock(50, 3, 20), 3: clock(60, 1, 30, 2, 45)},
			[3]change.Time{30, 45, 20},
		},
		{
			"a server that never sees another peer only sends newer changes", without(link(3, 2)),
			clocks{2: clock(50, 1, 40), 3: clock(60, 1, 30, 2, 45)},
			[3]change.Time{30, 45, 50},
		},
		{"nobody sends anything to the target", without(link(2, 1), link(3, 1)), nil, [3]change.Time{all, all, all}},
	} {
		s := newStability(id(1), c.topology)
		for source, clock := range c.applied {
			s.advance(id(source), clock)
		}
		for i, want := range c.upTo {
			if got := s.upTo(id(i + 1)); got != want {
				t.Errorf("%s: changes of server %d are stable up to %d, not %d", c.name, i+1, got, want)
			}
		}
	}
}

func TestStabilityNeverGoesBack(t *testing.T) {
	s := newStability(id(1), FullMesh(id(1), id(2)))
	s.advance(id(2), clock(50, 1, 40))
	generation := s.generation()
	s.advance(id(2), clock(30, 1, 20))
	if s.upTo(id(1)) != 40 || s.upTo(id(2)) != 50 || s.generation() != generation {
		t.Errorf("an older clock took stability back to %d and %d", s.upTo(id(1)), s.upTo(id(2)))
	}
	s.advance(id(2), clock(50, 1, 45))
	if s.upTo(id(1)) != 45 || s.generation() == generation {
		t.Errorf("a newer context is not noticed: %d", s.upTo(id(1)))
	}
}

func TestLacks(t *testing.T) {
	s := NewState(id(1), without(Link{id(3), id(1)}), Limits{})
	s.Applied(id(2), clock(50))
	for _, c := range []struct {
		context change.Context
		want    int
	}{{contextOf(2, 50), 0}, {contextOf(2, 51), 1}, {contextOf(1, 99), 0}, {contextOf(3, 99), 0}} {
		if got := s.Lacks(c.context); len(got) != c.want {
			t.Errorf("of %v the target lacks %v", c.context, got)
		}
	}
}
