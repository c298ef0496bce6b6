package conflict

import (
	"errors"
	"testing"

	"replicator/change"
)

// brokenStore fails every call after the first so many.
type brokenStore struct{ left int }

var errStore = errors.New("the disk is gone")

func (b *brokenStore) next() error {
	b.left--
	if b.left < 0 {
		return errStore
	}
	return nil
}

func (b *brokenStore) Get(change.Key) (change.Stamp, bool, error) {
	return change.Stamp{}, false, b.next()
}
func (b *brokenStore) Put([]Stored) error      { return b.next() }
func (b *brokenStore) Remove(change.Key) error { return b.next() }

func (b *brokenStore) Sweep(change.Key, int, func(change.Version) bool) (change.Key, int, bool, error) {
	return change.Key{}, 0, true, b.next()
}

// TestStoreErrorsReachTheOwner: an index that cannot keep or read its entries says so, and never answers "unknown".
func TestStoreErrorsReachTheOwner(t *testing.T) {
	fill := func(s *State) error {
		for n := range 20 {
			if err := s.Local(change.Stamp{Version: version(n+1, 1)}, []change.Key{hashed(n)}); err != nil {
				return err
			}
		}
		return nil
	}
	mesh := FullMesh(id(1), id(2))
	for left := range 3 {
		s := NewState(id(1), mesh, Limits{Entries: 8, Store: &brokenStore{left: left}})
		if err := fill(s); !errors.Is(err, errStore) {
			t.Errorf("feeding with a store that fails after %d calls: %v", left, err)
		}
	}
	store := &brokenStore{left: 1000}
	s := NewState(id(1), mesh, Limits{Entries: 8, Store: store})
	if err := fill(s); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats(); n.Entries > 8 || n.Entries+n.Spilled != 20 {
		t.Fatalf("%+v", n)
	}
	store.left = 0
	if _, ok, err := s.Lookup(hashed(999)); ok || !errors.Is(err, errStore) {
		t.Errorf("a lookup that cannot read the store: %v, %v", ok, err)
	}
	if _, err := s.LookupAll([]change.Key{hashed(999)}); !errors.Is(err, errStore) {
		t.Errorf("many lookups: %v", err)
	}
	if err := s.Sweep(); !errors.Is(err, errStore) {
		t.Errorf("a sweep: %v", err)
	}
}

func TestLookupAll(t *testing.T) {
	s := NewState(id(1), FullMesh(id(1), id(2)), Limits{})
	m := change.Marker{Source: id(2), Manifest: []change.ManifestEntry{
		{Stamp: change.Stamp{Version: version(5, 2), Context: contextOf(1, 4)}, Keys: []change.Key{hashed(1), hashed(2)}},
		{Stamp: change.Stamp{Version: version(6, 2)}, Keys: []change.Key{hashed(2)}},
		{Stamp: change.Stamp{Version: version(7, 2)}},
	}}
	if err := s.Replicated(&m); err != nil {
		t.Fatal(err)
	}
	found, err := s.LookupAll([]change.Key{hashed(2), hashed(3), hashed(1)})
	if err != nil {
		t.Fatal(err)
	}
	if found[0].Stamp.Version != version(6, 2) || !found[0].Known || found[1].Known ||
		found[2].Stamp.Version != version(5, 2) || !found[2].Stamp.Context.Equal(contextOf(1, 4)) {
		t.Errorf("%+v", found)
	}
	if n := s.Stats(); n.Entries != 2 || n.Bytes == 0 {
		t.Errorf("%+v", n)
	}
}
