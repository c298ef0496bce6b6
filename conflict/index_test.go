package conflict

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"replicator/change"
)

// hashed spreads numbers as a hash does (splitmix64).
func hashed(n int) change.Key {
	mix := func(x uint64) uint64 {
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return x ^ x>>31
	}
	high := mix(uint64(n) + 0x9e3779b97f4a7c15)
	var k change.Key
	binary.BigEndian.PutUint64(k[:8], high)
	binary.BigEndian.PutUint64(k[8:], mix(high+0x9e3779b97f4a7c15))
	return k
}

func id(n int) change.ServerID { return change.ServerID{byte(n)} }

func version(t, origin int) change.Version {
	return change.Version{Time: change.Time(t), Origin: id(origin)}
}

func contextOf(pairs ...int) change.Context {
	var c change.Context
	for i := 0; i < len(pairs); i += 2 {
		c = c.With(id(pairs[i]), change.Time(pairs[i+1]))
	}
	return c
}

func always(change.Key) (bool, error) { return true, nil }

// failer is what testing.TB and *rapid.T have in common here.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func (x *index) feed(t failer, stamp change.Stamp, keys ...change.Key) {
	t.Helper()
	x.feeding.Lock()
	defer x.feeding.Unlock()
	n := x.slab.add(stamp)
	defer x.slab.release(n)
	for _, k := range keys {
		if err := x.put(k, stamp.Version, n, always); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIndexEqualsMap compares the index with a map, through puts of any order, sweeps, emptied shards and compactions,
// with keys that crowd in few shards at either end of a table.
func TestIndexEqualsMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		crowded := rapid.Bool().Draw(t, "crowded")
		key := func() change.Key {
			k := hashed(random.IntN(3000))
			if crowded { // the same shard, and neighbouring homes at the start and the end of its table
				k[0] = 7
				copy(k[1:8], []byte{0, 0, 0, 0, 0, 0, 0})
				if k[9]%2 == 0 {
					copy(k[1:8], []byte{255, 255, 255, 255, 255, 255, 255})
				}
			}
			return k
		}
		x, twin := newIndex([]change.ServerID{id(1), id(2)}), map[change.Key]change.Stamp{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch random.IntN(10) {
			case 0:
				origin, upTo := random.IntN(5), change.Time(random.IntN(10000))
				marks := func(o change.ServerID) change.Time {
					if o == id(origin) {
						return upTo
					}
					return math.MinInt64
				}
				x.sweep(marks)
				for k, s := range twin {
					if s.Version.Time <= marks(s.Version.Origin) {
						delete(twin, k)
					}
				}
			case 1:
				x.compact()
			case 2:
				err := x.empty(random.IntN(shards), func(all []Stored) error {
					for _, e := range all {
						if !sameStamp(twin[e.Key], e.Stamp) {
							t.Fatalf("%s is emptied as %v, not %v", e.Key, e.Stamp, twin[e.Key])
						}
						delete(twin, e.Key)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			default:
				for range random.IntN(40) {
					stamp := change.Stamp{Version: version(random.IntN(10000), random.IntN(5))}
					stamp.Context = contextOf(random.IntN(5), random.IntN(3), random.IntN(5), 1+random.IntN(3))
					var keys []change.Key
					for range 1 + random.IntN(10) {
						k := key()
						keys = append(keys, k)
						if old, ok := twin[k]; !ok || old.Version.Compare(stamp.Version) < 0 {
							twin[k] = stamp
						}
					}
					x.feed(t, stamp, keys...)
				}
			}
			x.mustEqual(t, twin, key)
		}
	})
}

// sameStamp compares as the index does: a time of 0 in a context says nothing.
func sameStamp(a, b change.Stamp) bool {
	for o := range 8 {
		if a.Context.At(id(o)) != b.Context.At(id(o)) {
			return false
		}
	}
	return a.Version == b.Version
}

func (x *index) mustEqual(t *rapid.T, twin map[change.Key]change.Stamp, other func() change.Key) {
	if n := int(x.size.Load()); n != len(twin) {
		t.Fatalf("%d entries, not %d", n, len(twin))
	}
	for k, want := range twin {
		if got, ok := x.get(k); !ok || !sameStamp(got, want) {
			t.Fatalf("%s: %v %v, not %v", k, got, ok, want)
		}
	}
	for range 100 {
		k := other()
		_, known := twin[k]
		if _, ok := x.get(k); ok != known {
			t.Fatalf("%s known: %v", k, ok)
		}
	}
	used := 0
	for n := uint32(1); n < x.slab.next; n++ {
		if chunk, i := x.slab.stamp(n); chunk.refs[i] > 0 {
			used++
		}
	}
	if distinct := x.distinct(); used != distinct || x.slab.used != distinct {
		t.Fatalf("%d stamps are held (%d counted), %d are referred to", used, x.slab.used, distinct)
	}
}

func (x *index) distinct() int {
	seen := map[uint32]bool{}
	for i := range x.shards {
		for _, n := range x.shards[i].slots {
			if n != 0 {
				seen[n] = true
			}
		}
	}
	return len(seen)
}

// fill feeds a million keys in transactions of so many rows, with a new context every so many transactions.
func fill(t testing.TB, x *index, entries, rows, sameContext int) {
	t.Helper()
	keys := make([]change.Key, rows)
	var c change.Context
	for n := 0; n < entries; n += rows {
		for i := range keys {
			keys[i] = hashed(n + i)
		}
		if n/rows%sameContext == 0 {
			c = contextOf(2, n+1, 3, n+1)
		}
		x.feed(t, change.Stamp{Version: version(n+1, 1), Context: c}, keys...)
	}
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestMillionEntries holds the memory that a million entries take against what Limits promises.
func TestMillionEntries(t *testing.T) {
	const million = 1_000_000
	for _, shape := range []struct {
		name                 string
		rows, sameContext    int
		megabytes, accounted int
	}{
		{"four rows a transaction, ten transactions between markers", 4, 10, 35, 34},
		{"one row a transaction, ten transactions between markers", 1, 10, 48, 48},
		{"one row a transaction, each with a context of its own", 1, 1, 80, 80},
	} {
		before := heap()
		x := newIndex([]change.ServerID{id(1), id(2), id(3)})
		fill(t, x, million, shape.rows, shape.sameContext)
		took, accounted := heap()-before, x.bytes()
		t.Logf("%s: %.1f bytes an entry, %.1f by its own account", shape.name, float64(took)/million,
			float64(accounted)/million)
		if took > shape.megabytes*million || accounted > shape.accounted*million {
			t.Errorf("%s: takes %d bytes, %d by its own account", shape.name, took, accounted)
		}
		x.sweep(func(change.ServerID) change.Time { return math.MaxInt64 })
		if left := heap() - before; left > million {
			t.Errorf("%s: %d bytes stay when all is swept", shape.name, left)
		}
		runtime.KeepAlive(x)
	}
}

// TestIndexUnderConcurrency feeds, looks up and sweeps at once; the race detector and the answers decide.
func TestIndexUnderConcurrency(t *testing.T) {
	s := NewState(id(1), FullMesh(id(1), id(2)), Limits{})
	const transactions, rows = 20000, 3
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				k := n * 7919 % (transactions * rows)
				stamp, ok, err := s.Lookup(hashed(k))
				if err != nil || ok && (stamp.Version.Time != change.Time(k/rows+1) || stamp.Context.At(id(2)) != stamp.Version.Time) {
					t.Errorf("key %d: %v %v", k, stamp, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := s.Sweep(); err != nil {
				t.Error(err)
			}
			s.Frontier()
		}
	})
	for n := range transactions {
		stamp := change.Stamp{Version: version(n+1, 1), Context: contextOf(2, n+1)}
		if err := s.Local(stamp, []change.Key{hashed(n * rows), hashed(n*rows + 1), hashed(n*rows + 2)}); err != nil {
			t.Fatal(err)
		}
		if n > 1000 {
			s.Applied(id(2), change.Clock{Time: change.Time(n), Context: contextOf(1, n-1000)})
		}
	}
	close(done)
	wg.Wait()
	s.Applied(id(2), change.Clock{Time: transactions, Context: contextOf(1, transactions-500)})
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().Entries; n != 500*rows {
		t.Errorf("%d entries are left, not %d", n, 500*rows)
	}
}

func BenchmarkFeed(b *testing.B) {
	x := newIndex([]change.ServerID{id(1), id(2), id(3)})
	before := heap()
	b.ResetTimer()
	fill(b, x, b.N, 1, 10)
	b.StopTimer()
	b.ReportMetric(float64(heap()-before)/float64(b.N), "bytes/entry")
	runtime.KeepAlive(x)
}

func BenchmarkLookup(b *testing.B) {
	x := newIndex([]change.ServerID{id(1), id(2), id(3)})
	const entries = 1_000_000
	fill(b, x, entries, 4, 10)
	for name, from := range map[string]int{"hit": 0, "miss": entries} {
		keys := make([]change.Key, 1<<16)
		for i := range keys {
			keys[i] = hashed(from + i*15)
		}
		b.Run(name, func(b *testing.B) {
			for n := range b.N {
				x.get(keys[n%len(keys)])
			}
		})
	}
}

func BenchmarkSweepMillion(b *testing.B) {
	x := newIndex([]change.ServerID{id(1), id(2), id(3)})
	fill(b, x, 1_000_000, 4, 10)
	b.ResetTimer()
	for range b.N {
		x.sweep(func(change.ServerID) change.Time { return 0 })
	}
}
