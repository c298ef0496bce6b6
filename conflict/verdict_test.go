package conflict

import (
	"testing"

	"pgregory.net/rapid"

	"replicator/change"
)

// TestDecide lists the cases of two servers 1 and 2; the context of a change says what its origin had of the other.
func TestDecide(t *testing.T) {
	stamp := func(time, origin int, seen ...int) change.Stamp {
		return change.Stamp{Version: version(time, origin), Context: contextOf(seen...)}
	}
	for _, c := range []struct {
		name            string
		incoming, entry change.Stamp
		unknown         bool
		want            Verdict
	}{
		{name: "a row without an entry", incoming: stamp(5, 1), unknown: true, want: Apply},
		{name: "made on top of the entry", incoming: stamp(9, 1, 2, 7), entry: stamp(7, 2), want: Apply},
		{name: "made after more than the entry", incoming: stamp(9, 1, 2, 8), entry: stamp(7, 2), want: Apply},
		{name: "newer, made without the entry", incoming: stamp(9, 1, 2, 6), entry: stamp(7, 2), want: ApplyOver},
		{name: "newer, made knowing nothing", incoming: stamp(9, 1), entry: stamp(7, 2), want: ApplyOver},
		{name: "the next of the same origin", incoming: stamp(9, 1), entry: stamp(7, 1), want: Apply},
		{name: "older, and the entry made without it", incoming: stamp(5, 1), entry: stamp(7, 2, 1, 4), want: Lose},
		{name: "older, and the entry made on top of it", incoming: stamp(5, 1), entry: stamp(7, 2, 1, 5), want: Superseded},
		{name: "older, of the same origin", incoming: stamp(5, 1), entry: stamp(7, 1), want: Superseded},
		{name: "one's own again", incoming: stamp(5, 1), entry: stamp(5, 1), want: Apply},
		{name: "the same time, the greater origin arrives", incoming: stamp(5, 2), entry: stamp(5, 1), want: ApplyOver},
		{name: "the same time, the smaller origin arrives", incoming: stamp(5, 1), entry: stamp(5, 2), want: Lose},
	} {
		if got := Decide(c.incoming, c.entry, !c.unknown); got != c.want {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
	}
}

// TestDecideAgreesOnTheWinner: whatever arrives second, the same change stays, and either both orders are a conflict or
// none is.
func TestDecideAgreesOnTheWinner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.IntRange(1, 4)
		stamp := func(name string) change.Stamp {
			s := change.Stamp{Version: version(number.Draw(t, name), number.Draw(t, name))}
			for range 3 { // nothing is made after something newer than itself
				o, seen := number.Draw(t, name), rapid.IntRange(0, int(s.Version.Time)-1).Draw(t, name)
				if id(o) != s.Version.Origin && seen > 0 {
					s.Context = s.Context.With(id(o), change.Time(seen))
				}
			}
			return s
		}
		a, b := stamp("a"), stamp("b")
		ab, ba := Decide(a, b, true), Decide(b, a, true)
		if a.Version == b.Version {
			if ab != Apply || ba != Apply {
				t.Fatalf("%v and %v of the same version", ab, ba)
			}
			return
		}
		if ab.Applies() == ba.Applies() || ab.Conflict() != ba.Conflict() {
			t.Fatalf("%v after %v: %v; the other way: %v", a, b, ab, ba)
		}
	})
}
