package conflict

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"replicator/change"
)

const shards = 256

// index maps row keys to stamps. An entry takes 20 bytes in its shard's two arrays, plus slack, plus its share of a stamp.
//
// One goroutine feeds it, any number look up, one sweeps. A shard's lock is taken before the slab's.
type index struct {
	shards [shards]shard
	slab   *slab
	size   atomic.Int64
	puts   atomic.Uint64 // transactions fed
	// feeding is held while a stamp's number is known outside of the table.
	feeding sync.Mutex
}

// shard is an open-addressing table in which keys stand in order: a key's home is proportional to its value (keys are
// hashes), and those that find it taken move up. A search for an absent key therefore ends at the first greater one,
// and the table stays fast at nine tenths full.
type shard struct {
	mu    sync.RWMutex
	keys  []change.Key
	slots []uint32 // number of the stamp; 0 is an empty slot
	homes int      // the slots that are somebody's home; the few behind them take the overflow
	size  int
}

func newIndex(servers []change.ServerID) *index { return &index{slab: newSlab(servers)} }

func (x *index) shard(k change.Key) *shard { return &x.shards[k[0]] }

func (s *shard) home(k change.Key) int {
	high, _ := bits.Mul64(binary.BigEndian.Uint64(k[1:9]), uint64(s.homes))
	return int(high)
}

func less(a, b change.Key) bool {
	x, y := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(b[:8])
	if x != y {
		return x < y
	}
	return binary.BigEndian.Uint64(a[8:]) < binary.BigEndian.Uint64(b[8:])
}

// find returns the slot of the key, or the slot where it belongs; that may be one past the end.
func (s *shard) find(k change.Key) (int, bool) {
	if s.homes == 0 {
		return 0, false
	}
	i := s.home(k)
	for i < len(s.slots) && s.slots[i] != 0 {
		if s.keys[i] == k {
			return i, true
		}
		if less(k, s.keys[i]) {
			break
		}
		i++
	}
	return i, false
}

// insert puts an absent key into the slot that find returned, growing the table when it is full.
func (s *shard) insert(i int, k change.Key, stamp uint32) {
	for {
		end := i
		for end < len(s.slots) && s.slots[end] != 0 {
			end++
		}
		switch {
		case s.size >= s.homes-s.homes/10:
			s.resize(s.homes+s.homes/4+4, 0)
		case end == len(s.slots):
			s.resize(s.homes, 2*(len(s.slots)-s.homes))
		default:
			copy(s.keys[i+1:end+1], s.keys[i:end])
			copy(s.slots[i+1:end+1], s.slots[i:end])
			s.keys[i], s.slots[i] = k, stamp
			s.size++
			return
		}
		i, _ = s.find(k)
	}
}

// resize moves the entries into a table with that many homes, and slots behind them: at least that many, and as many as
// the entries need.
func (s *shard) resize(homes, behind int) {
	for behind = max(behind, min(64, homes/4+4)); ; behind *= 2 {
		next := shard{homes: homes, keys: make([]change.Key, homes+behind)}
		next.slots = make([]uint32, len(next.keys))
		at, fits := 0, true
		for i, stamp := range s.slots {
			if stamp == 0 {
				continue
			}
			at = max(at, next.home(s.keys[i]))
			if fits = at < len(next.slots); !fits {
				break
			}
			next.keys[at], next.slots[at] = s.keys[i], stamp
			at++
		}
		if fits {
			s.keys, s.slots, s.homes = next.keys, next.slots, homes
			return
		}
	}
}

// sweep removes the entries for which drop returns true, and closes the gaps.
func (s *shard) sweep(drop func(k change.Key, stamp uint32) bool) int {
	at, before := 0, s.size
	for i, stamp := range s.slots {
		if stamp == 0 {
			continue
		}
		s.slots[i] = 0
		if drop(s.keys[i], stamp) {
			s.size--
			continue
		}
		at = max(at, s.home(s.keys[i])) // never behind i: there are no more entries before it than there were
		s.keys[at], s.slots[at] = s.keys[i], stamp
		at++
	}
	if s.size < s.homes*2/5 {
		s.resize(s.size+s.size/4, 0)
	}
	return before - s.size
}

// get returns the stamp of a key.
func (x *index) get(k change.Key) (change.Stamp, bool) {
	s := x.shard(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.find(k)
	if !ok {
		return change.Stamp{}, false
	}
	return x.slab.get(s.slots[i]), true
}

// put keeps the greater of the key's version and v, whose stamp has this number; the stamp's reference stays the caller's.
// admit is asked before a key that is not in memory enters.
func (x *index) put(k change.Key, v change.Version, stamp uint32, admit func(change.Key) (bool, error)) error {
	s := x.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.find(k)
	if !ok {
		if admit, err := admit(k); err != nil || !admit {
			return err
		}
		x.slab.hold(stamp)
		s.insert(i, k, stamp)
		x.size.Add(1)
		return nil
	}
	if old := s.slots[i]; x.slab.compare(old, v) < 0 {
		x.slab.hold(stamp)
		s.slots[i] = stamp
		x.slab.release(old)
	}
	return nil
}

// replace gives a key that is in memory the stamp with this number, whose reference stays the caller's.
func (x *index) replace(k change.Key, stamp uint32) bool {
	s := x.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.find(k)
	if ok {
		x.slab.hold(stamp)
		x.slab.release(s.slots[i])
		s.slots[i] = stamp
	}
	return ok
}

// sweep removes every entry whose stamp is stable.
func (x *index) sweep(upTo func(change.ServerID) change.Time) {
	stable := x.slab.stable(upTo)
	for i := range x.shards {
		x.sweepShard(&x.shards[i], stable)
	}
	x.slab.settle()
	if x.slab.sparse() {
		x.compact()
	}
}

func (x *index) sweepShard(s *shard, stable []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped := s.sweep(func(_ change.Key, stamp uint32) bool {
		if int(stamp/64) >= len(stable) || stable[stamp/64]>>(stamp%64)&1 == 0 {
			return false
		}
		x.slab.release(stamp)
		return true
	})
	x.size.Add(int64(-dropped))
}

func (x *index) compact() {
	x.feeding.Lock()
	defer x.feeding.Unlock()
	for i := range x.shards {
		x.shards[i].mu.Lock()
		defer x.shards[i].mu.Unlock()
	}
	numbers := x.slab.compact()
	for i := range x.shards {
		slots := x.shards[i].slots
		for j, stamp := range slots {
			if stamp != 0 {
				slots[j] = numbers[stamp]
			}
		}
	}
}

// bytes returns what the entries take, without the slack of half-filled tables.
func (x *index) bytes() int { return int(x.size.Load())*27 + x.slab.bytes() }

// empty hands every entry of one shard to take and, if that succeeds, removes them.
func (x *index) empty(number int, take func([]Stored) error) error {
	s := &x.shards[number]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size == 0 {
		return nil
	}
	all := make([]Stored, 0, s.size)
	for i, stamp := range s.slots {
		if stamp != 0 {
			all = append(all, Stored{s.keys[i], x.slab.get(stamp)})
		}
	}
	if err := take(all); err != nil {
		return err
	}
	x.size.Add(int64(-s.size))
	s.sweep(func(_ change.Key, stamp uint32) bool { x.slab.release(stamp); return true })
	return nil
}
