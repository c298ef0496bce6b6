package conflict

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"replicator/change"
)

// position is the place after n transactions of the target's own binlog.
func position(t testing.TB, n int) change.GTIDSet {
	t.Helper()
	set := change.NewGTIDSet(change.MySQL)
	for i := 1; i <= n; i++ {
		set.Add(change.GTID{UUID: id(1), Number: uint64(i)})
	}
	return set
}

func TestFrontier(t *testing.T) {
	s := NewState(id(1), FullMesh(id(1), id(2)), Limits{})
	expect := func(n int) {
		t.Helper()
		got, clock, ok := s.Frontier()
		if !ok || got.String() != position(t, n).String() || clock.Time != change.Time(n) {
			t.Fatalf("the frontier is at %v, %v, %v, not after %d transactions", got, clock, ok, n)
		}
	}
	behind := func(want bool) {
		t.Helper()
		if got := s.Behind(); got != want {
			t.Fatalf("there are changes behind the frontier: %v, want %v", got, want)
		}
	}
	local := func(n int) {
		t.Helper()
		if err := s.Local(change.Stamp{Version: version(n, 1)}, []change.Key{hashed(n)}); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint := func(n int) { s.Checkpoint(position(t, n), clock(n)) }
	if _, _, ok := s.Frontier(); ok {
		t.Fatal("there is a frontier before any checkpoint")
	}
	checkpoint(0)
	expect(0)
	checkpoint(2) // two transactions that change nothing
	expect(2)
	behind(false)
	local(3)
	expect(2)
	behind(true)
	checkpoint(3)
	expect(2)
	behind(true)
	local(4)
	s.Applied(id(2), clock(50, 1, 3))
	expect(3)
	s.Applied(id(2), clock(50, 1, 4)) // the fourth is stable, but there is no checkpoint after it
	expect(3)
	local(6)
	checkpoint(6)
	checkpoint(7)
	expect(3)
	s.Applied(id(2), clock(50, 1, 6))
	behind(true) // nobody has asked
	expect(7)
	behind(false)
	s.Applied(id(2), clock(40, 1, 2))
	expect(7)
}

// TestFrontierNeedsAStart: what was fed before the first checkpoint is not taken for stable.
func TestFrontierNeedsAStart(t *testing.T) {
	s := NewState(id(1), FullMesh(id(1), id(2)), Limits{})
	if err := s.Local(change.Stamp{Version: version(1, 1)}, []change.Key{hashed(1)}); err != nil {
		t.Fatal(err)
	}
	s.Checkpoint(position(t, 1), clock(1))
	if got, _, ok := s.Frontier(); ok {
		t.Errorf("the frontier is at %v, behind a change that is not stable", got)
	}
	s.Applied(id(2), clock(5, 1, 1))
	if _, _, ok := s.Frontier(); !ok {
		t.Error("there is no frontier although everything is stable")
	}
}

// TestFrontierIsSafeAndClose compares with a list of all changes: nothing before the frontier is unstable, and with an
// unbounded list of segments it is the newest boundary of which that is true. With a bounded list it stays close.
func TestFrontierIsSafeAndClose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		const bound = 16
		exact, bounded := frontier{limit: 1 << 30}, frontier{limit: bound}
		s := newStability(id(1), FullMesh(id(1), id(2), id(3)))
		var changes []change.Version // by place in the binlog; a zero version changes nothing
		boundaries, reached := []int{0}, [2]int{}
		start := boundary{clock: clock(0)}
		exact.checkpoint(start)
		bounded.checkpoint(start)
		for n := range rapid.IntRange(1, 600).Draw(t, "steps") {
			switch random.IntN(8) {
			case 0, 1, 2, 3:
				v := version(n+random.IntN(100), 1+random.IntN(3))
				exact.note(v)
				bounded.note(v)
				changes = append(changes, v)
			case 4:
				changes = append(changes, change.Version{})
			case 5, 6:
				b := boundary{clock: clock(len(changes))}
				exact.checkpoint(b)
				bounded.checkpoint(b)
				boundaries = append(boundaries, len(changes))
			case 7:
				upTo := change.Time(random.IntN(n + 60))
				for p := 2; p <= 3; p++ {
					s.advance(id(p), change.Clock{Time: upTo, Context: contextOf(1, int(upTo), 5-p, int(upTo))})
				}
			}
			want := newestSafe(s, changes, boundaries)
			for i, f := range []*frontier{&exact, &bounded} {
				b, ok := f.advance(s)
				at := int(b.clock.Time)
				if !ok || at < reached[i] || at > want || i == 0 && at != want {
					t.Fatalf("frontier %d is at %d (%v), was at %d, the newest safe boundary is %d", i, at, ok, reached[i], want)
				}
				reached[i] = at
			}
			if len(bounded.segments) > bound {
				t.Fatalf("%d segments are kept", len(bounded.segments))
			}
		}
	})
}

func newestSafe(s *stability, changes []change.Version, boundaries []int) int {
	safe := 0
	for safe < len(changes) && (changes[safe].IsZero() || changes[safe].Time <= s.upTo(changes[safe].Origin)) {
		safe++
	}
	newest := 0
	for _, b := range boundaries {
		if b <= safe {
			newest = max(newest, b)
		}
	}
	return newest
}

// TestFrontierStaysClose: behind a long backlog whose oldest part becomes stable, the frontier lags by a small part of it.
func TestFrontierStaysClose(t *testing.T) {
	f := frontier{limit: defaultSegments}
	s := newStability(id(1), FullMesh(id(1), id(2)))
	const backlog = 100_000
	f.checkpoint(boundary{clock: clock(0)})
	for n := 1; n <= backlog; n++ {
		f.note(version(n, 1))
		f.checkpoint(boundary{clock: clock(n)})
	}
	for stable := backlog / 10; stable <= backlog; stable += backlog / 10 {
		s.advance(id(2), clock(stable, 1, stable))
		b, _ := f.advance(s)
		if lag := stable - int(b.clock.Time); lag > backlog/250 {
			t.Errorf("the frontier lags %d behind %d", lag, stable)
		}
	}
}
