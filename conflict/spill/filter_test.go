package spill

import (
	"path/filepath"
	"testing"

	"replicator/change"
	"replicator/conflict"
)

// TestFilter adds as many keys as an index of ten million spills.
func TestFilter(t *testing.T) {
	const keys, absent = 9_000_000, 100_000
	var f filter
	if f.has(key(0)) {
		t.Error("an empty filter has a key")
	}
	for n := range keys {
		f.add(key(n))
	}
	for n := 0; n < keys; n += 10 {
		if !f.has(key(n)) {
			t.Fatalf("key %d is missing", n)
		}
	}
	wrong := 0
	for n := range absent {
		if f.has(key(keys + n)) {
			wrong++
		}
	}
	t.Logf("%.2f %% of absent keys are taken for present", 100*float64(wrong)/absent)
	if wrong > absent/50 {
		t.Errorf("%d of %d absent keys are taken for present", wrong, absent)
	}
}

// TestFilterFollowsTheStore: it forgets when the store is empty, whether entries are removed or swept, and not before.
func TestFilterFollowsTheStore(t *testing.T) {
	s := open(t)
	for range 2 {
		if err := s.Put([]conflict.Stored{{Key: key(1)}, {Key: key(2)}, {Key: key(3)}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(key(1)); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := s.Get(key(2)); err != nil || !ok {
			t.Fatalf("what stays is not found: %v", err)
		}
		_, dropped, _, err := s.Sweep(change.Key{}, 10, func(change.Version) bool { return true })
		if err != nil || dropped != 2 {
			t.Fatalf("%d entries are swept: %v", dropped, err)
		}
		if s.filter.has(key(2)) {
			t.Error("an empty store's filter has a key")
		}
	}
}

// BenchmarkFeedSpilled feeds an index most of which is spilled: what a rebuild does.
func BenchmarkFeedSpilled(b *testing.B) {
	store, err := Open(filepath.Join(b.TempDir(), "spill"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	}()
	s := conflict.NewState(id(1), conflict.FullMesh(id(1), id(2)), conflict.Limits{Entries: 100_000, Store: store})
	keys := make([]change.Key, 1000)
	b.ResetTimer()
	for n := 0; n < b.N; n += len(keys) {
		for i := range keys {
			keys[i] = key(n + i)
		}
		if err := s.Local(change.Stamp{Version: change.Version{Time: change.Time(n + 1), Origin: id(1)}}, keys); err != nil {
			b.Fatal(err)
		}
	}
}
