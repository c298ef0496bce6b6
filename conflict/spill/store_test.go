package spill

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/vfs"
	"github.com/cockroachdb/pebble/vfs/errorfs"
	"go.uber.org/goleak"

	"replicator/change"
	"replicator/conflict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(n int) change.ServerID { return change.ServerID{byte(n)} }

// key spreads numbers over all shards.
func key(n int) change.Key {
	random := rand.NewPCG(uint64(n), 1)
	var k change.Key
	binary.BigEndian.PutUint64(k[:8], random.Uint64())
	binary.BigEndian.PutUint64(k[8:], random.Uint64())
	return k
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "spill"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// twins are a state that spills and one that does not.
type twins struct {
	small, large *conflict.State
	random       *rand.Rand
}

// feed gives both the same random transactions of three origins over 200,000 keys, hot ones among them.
func (w *twins) feed(t *testing.T, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		origin := 1 + w.random.IntN(3)
		stamp := change.Stamp{Version: change.Version{Time: change.Time(n), Origin: id(origin)}}
		for o := 1; o <= 3; o++ {
			if o != origin {
				stamp.Context = stamp.Context.With(id(o), change.Time(n-w.random.IntN(50)))
			}
		}
		var keys []change.Key
		for range 1 + w.random.IntN(8) {
			k := w.random.IntN(200_000)
			if w.random.IntN(4) == 0 {
				k = w.random.IntN(100)
			}
			keys = append(keys, key(k))
		}
		for _, s := range []*conflict.State{w.small, w.large} {
			if err := s.Local(stamp, keys); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// compare looks every step-th key up in both.
func (w *twins) compare(t *testing.T, step int) {
	t.Helper()
	known := 0
	for n := 0; n < 200_000; n += step {
		a, okA, errA := w.small.Lookup(key(n))
		b, okB, errB := w.large.Lookup(key(n))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		if okA != okB || a.Version != b.Version || !a.Context.Equal(b.Context) {
			t.Fatalf("key %d: %v %v with a spill, %v %v without", n, a, okA, b, okB)
		}
		if okA {
			known++
		}
	}
	small, large := w.small.Stats(), w.large.Stats()
	if small.Entries+small.Spilled != large.Entries || small.Entries > 1000 {
		t.Fatalf("%+v with a spill, %+v without", small, large)
	}
	t.Logf("%d of %d keys known, %+v", known, 200_000/step, small)
}

// sweep makes everything up to a time stable and sweeps until nothing more goes.
func (w *twins) sweep(t *testing.T, upTo change.Time) {
	t.Helper()
	all := change.Clock{Time: upTo}.Context.With(id(1), upTo).With(id(2), upTo).With(id(3), upTo)
	for _, s := range []*conflict.State{w.small, w.large} {
		s.Applied(id(2), change.Clock{Time: upTo, Context: all})
		s.Applied(id(3), change.Clock{Time: upTo, Context: all})
		for range 20 { // the store is swept in parts
			if err := s.Sweep(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSpillingStateEqualsUnlimitedTwin(t *testing.T) {
	mesh := conflict.FullMesh(id(1), id(2), id(3))
	w := twins{
		small:  conflict.NewState(id(1), mesh, conflict.Limits{Entries: 1000, Store: open(t)}),
		large:  conflict.NewState(id(1), mesh, conflict.Limits{}),
		random: rand.New(rand.NewPCG(1, 2)),
	}
	const transactions = 40_000
	for from := 100; from < transactions; from += 10_000 {
		w.feed(t, from, from+10_000)
		w.compare(t, 11)
		w.sweep(t, change.Time(from-15_000))
		w.compare(t, 11)
	}
	w.compare(t, 1)
	w.sweep(t, 2*transactions)
	if n := w.small.Stats(); n.Entries+n.Spilled != 0 {
		t.Errorf("%+v stays when all is stable", n)
	}
}

// TestNothingIsMissedUnderConcurrency feeds, looks up and sweeps at once: what has been fed and is not stable is always
// found, though it moves to the store and back.
func TestNothingIsMissedUnderConcurrency(t *testing.T) {
	s := conflict.NewState(id(1), conflict.FullMesh(id(1), id(2)), conflict.Limits{Entries: 500, Store: open(t)})
	const total, distinct, window = 10_000, 3_000, 2_000
	var fed, stable atomic.Int64
	var wg sync.WaitGroup
	for worker := range 2 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 3))
			for fed.Load() < total {
				last := fed.Load()
				n := last - random.Int64N(window)
				stamp, ok, err := s.Lookup(key(int(n % distinct)))
				if err != nil {
					t.Error(err)
					return
				}
				if n > stable.Load() && (!ok || int64(stamp.Version.Time) < n) {
					t.Errorf("change %d of up to %d is not found: %v %v", n, last, stamp, ok)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for fed.Load() < total {
			if upTo := fed.Load() - window; upTo > 0 {
				stable.Store(upTo)
				s.Applied(id(2), change.Clock{Time: change.Time(upTo), Context: change.Context{}.With(id(1), change.Time(upTo))})
			}
			if err := s.Sweep(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for n := 1; n <= total; n++ {
		stamp := change.Stamp{Version: change.Version{Time: change.Time(n), Origin: id(1)}}
		if err := s.Local(stamp, []change.Key{key(n % distinct)}); err != nil {
			t.Error(err)
			fed.Store(total)
			break
		}
		fed.Store(int64(n))
	}
	wg.Wait()
}

// TestMemoryIsBounded spills half a million entries and looks at what the process needs for them: it includes what pebble
// takes outside of the garbage collector's heap.
func TestMemoryIsBounded(t *testing.T) {
	before := resident(t)
	s := conflict.NewState(id(1), conflict.FullMesh(id(1), id(2)), conflict.Limits{Entries: 10_000, Store: open(t)})
	keys := make([]change.Key, 8)
	const entries = 500_000
	for n := 0; n < entries; n += len(keys) {
		for i := range keys {
			keys[i] = key(n + i)
		}
		if err := s.Local(change.Stamp{Version: change.Version{Time: change.Time(n + 1), Origin: id(1)}}, keys); err != nil {
			t.Fatal(err)
		}
	}
	took := resident(t) - before
	t.Logf("%d MB for %+v", took>>20, s.Stats())
	if took > 64<<20 {
		t.Errorf("%d MB are taken for %d spilled entries", took>>20, entries)
	}
}

func resident(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("the resident size is read from /proc")
	}
	pages, field := 0, 0
	for _, c := range text {
		switch {
		case c == ' ':
			field++
		case field == 1:
			pages = pages*10 + int(c-'0')
		}
	}
	return pages * os.Getpagesize()
}

func TestFullDiskIsReported(t *testing.T) {
	var full atomic.Bool
	disk := errors.New("no space left on device")
	files := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op, _ string) error {
		if full.Load() && op.OpKind() == errorfs.OpKindWrite {
			return disk
		}
		return nil
	}))
	dir := filepath.Join(t.TempDir(), "spill")
	s, err := openOn(dir, files)
	if err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	for n := range 2000 { // more than all memtables take
		var entries []conflict.Stored
		for i := range 1000 {
			entries = append(entries, conflict.Stored{Key: key(1000*n + i)})
		}
		if err = s.Put(entries); err != nil {
			break
		}
	}
	if !errors.Is(err, disk) {
		t.Errorf("a full disk is reported as %v", err)
	}
	full.Store(false)
	_ = s.Close()
}

func TestOpenEmptiesTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spill")
	for round := range 2 {
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := s.Get(key(1)); ok || err != nil {
			t.Fatalf("round %d: an entry is there: %v", round, err)
		}
		if err := s.Put([]conflict.Stored{{Key: key(1)}}); err != nil {
			t.Fatal(err)
		}
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		if round == 0 { // as after a crash: closed without deleting
			if err := s.db.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory stays: %v", err)
	}
}
