package conflict

import (
	"testing"

	"replicator/change"
)

// TestHold: while rows of a source are copied, nothing is forgotten that they may lack.
func TestHold(t *testing.T) {
	s := NewState(id(1), FullMesh(id(1), id(2), id(3)), Limits{})
	if _, known := s.Hold(id(2)); known {
		t.Error("a source that was never heard of is held")
	}
	s.Applied(id(2), clock(50, 1, 40, 3, 20))
	s.Applied(id(3), clock(60, 1, 40, 2, 50))
	h, known := s.Hold(id(2))
	if !known || h.Covered.Time != 50 {
		t.Fatalf("held from %v, %v", h, known)
	}
	changes := []struct {
		version change.Version
		covered bool
	}{
		{change.Version{Time: 50, Origin: id(2)}, true},
		{change.Version{Time: 51, Origin: id(2)}, false},
		{change.Version{Time: 20, Origin: id(3)}, true},
		{change.Version{Time: 21, Origin: id(3)}, false},
		{change.Version{Time: 40, Origin: id(1)}, true},
		{change.Version{Time: 41, Origin: id(1)}, false},
	}
	key := func(i int) change.Key { return change.Key{byte(i), 1} }
	for i, c := range changes {
		if err := s.Local(change.Stamp{Version: c.version}, []change.Key{key(i)}); err != nil {
			t.Fatal(err)
		}
	}
	s.Applied(id(2), clock(100, 1, 100, 3, 100)) // all of them would be stable
	s.Applied(id(3), clock(100, 1, 100, 2, 100))
	look := func(when string, gone func(covered bool) bool) {
		t.Helper()
		if err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		for i, c := range changes {
			if h.Covers(c.version) != c.covered {
				t.Errorf("%s: covers %v: %v", when, c.version, !c.covered)
			}
			if _, known, err := s.Lookup(key(i)); err != nil || known == gone(c.covered) {
				t.Errorf("%s: the entry of %v is there: %v %v", when, c.version, known, err)
			}
		}
	}
	look("held", func(covered bool) bool { return covered })
	h.Release()
	h.Release()
	look("released", func(bool) bool { return true })

	one := NewState(id(1), without(Link{id(3), id(2)}), Limits{})
	one.Applied(id(2), clock(50, 1, 40))
	if h, _ := one.Hold(id(2)); !h.Covers(change.Version{Time: 50, Origin: id(3)}) || h.Covers(change.Version{Time: 51, Origin: id(3)}) {
		t.Error("what never reaches the source must not be waited for, but for what is newer than the source itself")
	}
}
