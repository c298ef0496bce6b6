package conflict

import (
	"slices"
	"sync"

	"replicator/change"
)

// slab holds the stamps that entries refer to, by number and without pointers, so that a million of them are nothing to
// the garbage collector. All rows of a transaction share one stamp, and all transactions between two markers one context.
// Numbers begin at 1.
type slab struct {
	mu       sync.RWMutex
	origins  []change.ServerID // by origin number
	numbers  map[change.ServerID]int
	order    []int // origin numbers in order of identity
	stamps   []*stampChunk
	contexts contextTable
	free     uint32 // head of the list of free stamps, linked through context
	next     uint32 // the lowest number never given
	used     int
	fresh    bool     // freed numbers are not given again
	recent   []uint32 // per origin number the context used last: the next transaction often has it too; holds a reference
}

const (
	stampsPerChunk   = 1024
	contextsPerChunk = 1024
)

// stampChunk is a run of stamps: 16 bytes each. It never moves.
type stampChunk struct {
	time    [stampsPerChunk]change.Time
	context [stampsPerChunk]uint32 // of contextTable; the next free stamp when refs is 0
	refs    [stampsPerChunk]uint32
}

// contextTable holds contexts as vectors of times indexed by origin number, with the origin they belong to.
type contextTable struct {
	width  int // times per context
	chunks []*contextChunk
	free   uint32
	next   uint32
	used   int
}

type contextChunk struct {
	times  []change.Time // contextsPerChunk vectors; the first time of a free one is the next free one
	origin [contextsPerChunk]uint16
	refs   [contextsPerChunk]uint32
}

func newSlab(servers []change.ServerID) *slab {
	s := &slab{numbers: map[change.ServerID]int{}, next: 1}
	s.contexts = contextTable{width: max(1, len(servers)), next: 1}
	for _, o := range servers {
		s.number(o)
	}
	return s
}

// number returns the number of an origin, a new one if need be. s.mu is held.
func (s *slab) number(o change.ServerID) int {
	n, ok := s.numbers[o]
	if !ok {
		n = len(s.origins)
		s.numbers[o] = n
		s.origins = append(s.origins, o)
		s.recent = append(s.recent, 0)
		at, _ := slices.BinarySearchFunc(s.order, o, func(n int, o change.ServerID) int { return s.origins[n].Compare(o) })
		s.order = slices.Insert(s.order, at, n)
		if n >= s.contexts.width {
			s.contexts.widen(n + 1 + n/2)
		}
	}
	return n
}

// add stores a stamp and returns its number, with one reference that the caller owns.
func (s *slab) add(stamp change.Stamp) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	origin := s.number(stamp.Version.Origin)
	for _, e := range stamp.Context {
		s.number(e.Origin)
	}
	context := s.recent[origin]
	if context == 0 || !s.sameContext(context, stamp.Context) {
		s.contexts.release(context)
		context = s.contexts.add(origin)
		vector := s.contexts.vector(context)
		for _, e := range stamp.Context {
			vector[s.numbers[e.Origin]] = e.Time
		}
		s.recent[origin] = context
	}
	s.contexts.hold(context)
	return s.addStamp(stamp.Version.Time, context)
}

// addStamp takes over the caller's reference to the context. s.mu is held.
func (s *slab) addStamp(t change.Time, context uint32) uint32 {
	n := s.free
	if n != 0 && !s.fresh {
		chunk, i := s.stamp(n)
		s.free = chunk.context[i]
	} else {
		n = s.next
		s.next++
		if int(n/stampsPerChunk) >= len(s.stamps) {
			s.stamps = append(s.stamps, new(stampChunk))
		}
	}
	chunk, i := s.stamp(n)
	chunk.time[i], chunk.context[i], chunk.refs[i] = t, context, 1
	s.used++
	return n
}

func (s *slab) stamp(n uint32) (*stampChunk, uint32) {
	return s.stamps[n/stampsPerChunk], n % stampsPerChunk
}

func (s *slab) sameContext(n uint32, c change.Context) bool {
	vector, set := s.contexts.vector(n), 0
	for _, t := range vector {
		if t != 0 {
			set++
		}
	}
	for _, e := range c {
		if vector[s.numbers[e.Origin]] != e.Time {
			return false
		}
		if e.Time != 0 {
			set--
		}
	}
	return set == 0
}

// hold adds a reference to a stamp.
func (s *slab) hold(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chunk, i := s.stamp(n)
	chunk.refs[i]++
}

// release gives a reference back.
func (s *slab) release(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(n)
}

func (s *slab) drop(n uint32) {
	chunk, i := s.stamp(n)
	chunk.refs[i]--
	if chunk.refs[i] > 0 {
		return
	}
	s.contexts.release(chunk.context[i])
	chunk.context[i] = s.free
	s.free = n
	s.used--
}

// get returns the stamp with this number. Its context says nothing of origins whose time is 0.
func (s *slab) get(n uint32) change.Stamp {
	s.mu.RLock()
	defer s.mu.RUnlock()
	chunk, i := s.stamp(n)
	context := chunk.context[i]
	stamp := change.Stamp{Version: change.Version{
		Time: chunk.time[i], Origin: s.origins[s.contexts.origin(context)],
	}}
	vector := s.contexts.vector(context)
	for _, o := range s.order {
		if vector[o] == 0 {
			continue
		}
		if stamp.Context == nil {
			stamp.Context = make(change.Context, 0, len(vector))
		}
		stamp.Context = append(stamp.Context, change.ContextEntry{Origin: s.origins[o], Time: vector[o]})
	}
	return stamp
}

// compare orders the version of a stored stamp against v.
func (s *slab) compare(n uint32, v change.Version) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version(n).Compare(v)
}

func (s *slab) version(n uint32) change.Version {
	chunk, i := s.stamp(n)
	return change.Version{Time: chunk.time[i], Origin: s.origins[s.contexts.origin(chunk.context[i])]}
}

// stable returns, as a set of bits by number, which stamps in use are stable. Until settle is called no number is given
// again, so that the set stays right.
func (s *slab) stable(upTo func(change.ServerID) change.Time) []uint64 {
	s.mu.Lock()
	s.fresh = true
	s.mu.Unlock()
	s.mu.RLock() // lookups go on
	defer s.mu.RUnlock()
	marks := make([]change.Time, len(s.origins))
	for o, id := range s.origins {
		marks[o] = upTo(id)
	}
	set := make([]uint64, s.next/64+1)
	for n := uint32(1); n < s.next; n++ {
		chunk, i := s.stamp(n)
		if chunk.refs[i] > 0 && chunk.time[i] <= marks[s.contexts.origin(chunk.context[i])] {
			set[n/64] |= 1 << (n % 64)
		}
	}
	return set
}

// bytes returns what the stamps and contexts in use take.
func (s *slab) bytes() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.used*16 + s.contexts.used*(8*s.contexts.width+6)
}

// settle ends what stable began.
func (s *slab) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = false
}

// sparse reports whether the slab has room for much more than it holds.
func (s *slab) sparse() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.stamps) > 4 && s.used < len(s.stamps)*stampsPerChunk/4
}

// compact moves the stamps in use together and gives the rest of the memory back. It returns the new numbers by old one.
func (s *slab) compact() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	numbers := make([]uint32, s.next)
	contexts := make([]uint32, s.contexts.next)
	old := slab{stamps: s.stamps, contexts: s.contexts, next: s.next}
	clear(s.recent)
	s.stamps, s.free, s.next, s.used = nil, 0, 1, 0
	s.contexts = contextTable{width: old.contexts.width, next: 1}
	for n := uint32(1); n < old.next; n++ {
		chunk, i := old.stamp(n)
		if chunk.refs[i] == 0 {
			continue
		}
		c := chunk.context[i]
		if contexts[c] == 0 {
			contexts[c] = s.contexts.add(old.contexts.origin(c))
			copy(s.contexts.vector(contexts[c]), old.contexts.vector(c))
		} else {
			s.contexts.hold(contexts[c])
		}
		numbers[n] = s.addStamp(chunk.time[i], contexts[c])
		moved, j := s.stamp(numbers[n])
		moved.refs[j] = chunk.refs[i]
	}
	return numbers
}

func (t *contextTable) vector(n uint32) []change.Time {
	i := int(n%contextsPerChunk) * t.width
	return t.chunks[n/contextsPerChunk].times[i : i+t.width]
}

func (t *contextTable) origin(n uint32) int {
	return int(t.chunks[n/contextsPerChunk].origin[n%contextsPerChunk])
}

// add returns a context of zeroes with one reference.
func (t *contextTable) add(origin int) uint32 {
	n := t.free
	if n != 0 {
		t.free = uint32(t.vector(n)[0])
	} else {
		n = t.next
		t.next++
		if int(n/contextsPerChunk) >= len(t.chunks) {
			t.chunks = append(t.chunks, &contextChunk{times: make([]change.Time, contextsPerChunk*t.width)})
		}
	}
	clear(t.vector(n))
	chunk, i := t.chunks[n/contextsPerChunk], n%contextsPerChunk
	chunk.origin[i], chunk.refs[i] = uint16(origin), 1
	t.used++
	return n
}

func (t *contextTable) hold(n uint32) { t.chunks[n/contextsPerChunk].refs[n%contextsPerChunk]++ }

// release gives a reference back; 0 is no context.
func (t *contextTable) release(n uint32) {
	if n == 0 {
		return
	}
	chunk, i := t.chunks[n/contextsPerChunk], n%contextsPerChunk
	chunk.refs[i]--
	if chunk.refs[i] == 0 {
		t.vector(n)[0] = change.Time(t.free)
		t.free = n
		t.used--
	}
}

// widen gives every context room for more origins.
func (t *contextTable) widen(width int) {
	for _, c := range t.chunks {
		times := make([]change.Time, contextsPerChunk*width)
		for i := range contextsPerChunk {
			copy(times[i*width:], c.times[i*t.width:(i+1)*t.width])
		}
		c.times = times
	}
	t.width = width
}
