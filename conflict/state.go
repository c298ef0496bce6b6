package conflict

import (
	"fmt"
	"sync"

	"replicator/change"
)

// Stored is an index entry as a Store keeps it.
type Stored struct {
	Key   change.Key
	Stamp change.Stamp
}

// Store takes the entries that exceed the limit in memory. It begins empty: nothing of an index outlives its process.
// Get is called from several goroutines at once, the others one at a time. Who opened it closes it.
type Store interface {
	// Get returns the entry of a key, and whether there is one.
	Get(key change.Key) (change.Stamp, bool, error)
	// Put adds entries, none of whose keys it has.
	Put(entries []Stored) error
	// Remove takes out an entry that it has.
	Remove(key change.Key) error
	// Sweep looks at up to limit entries in key order, from the given key on, and removes those for which drop returns
	// true. It returns the key to continue at; done says that there are no more.
	Sweep(from change.Key, limit int, drop func(change.Version) bool) (next change.Key, dropped int, done bool, err error)
}

// Limits bound what a State may take. The zero value of a field means its default.
type Limits struct {
	// Entries are kept in memory; what exceeds them goes to Store. An entry costs about 30 bytes, at most 48: where
	// stamps are shared so little that it would cost more, fewer are kept. Without a Store there is no limit.
	Entries int
	Store   Store
	// Segments of the target's own binlog that the frontier tells apart; default 1024.
	Segments int
	// Lives says that there are tables with add columns: the beginning or end of a row takes the place of its updates.
	Lives bool
}

// bytesPerEntry is what an entry may take before fewer than Limits.Entries are kept.
const bytesPerEntry = 48

// sweepStored is how many entries of the store one Sweep looks at, while feeding waits: about ten milliseconds.
const sweepStored = 1 << 14

// State is what the owner of one target knows of changes to its rows: the change index, what of it is stable, and the
// frontier from which it can be built again.
//
// It is fed from the target's own binlog by one goroutine, in binlog order: Local, Replicated, Checkpoint. Links call
// Applied and Lookup, and somebody calls Sweep and Frontier about once a second; these are safe at any time.
//
// Rebuild contract. Nothing of a State is stored but the frontier. A new owner, or one that lost its place in the
// target's binlog, makes a new State and
//  1. calls Checkpoint with the saved frontier (or the target's birth when there is none) before it feeds anything:
//     everything before it counts as stable;
//  2. feeds everything from that position, with the clock's fold continued from the saved clock, and fails closed where
//     the binlog no longer reaches back to it;
//  3. trusts no Lookup until the feed has passed the binlog's end as it was read after the last predecessor could still
//     commit (its connections are gone, or its fence is broken). The barrier of every commit waits for at least that, so
//     a decision that is confirmed behind a barrier needs nothing more.
//
// The feed must begin before links report Applied, or at least never leave a part of the binlog out: an entry that is
// swept and fed again is harmless, one that is not fed at all is not.
// Applied needs no rebuild: each link reports the clock of its last marker when it starts.
type State struct {
	limits    Limits
	stability *stability
	frontier  frontier
	began     change.Clock // at the first checkpoint
	start     sync.Once
	index     *index
	originals originals

	sweeping sync.Mutex
	swept    swept      // what the last sweep of memory saw
	cursor   change.Key // where the sweep of the store goes on
	hand     int        // the shard to be spilled next

	storing sync.Mutex // held to change the store
	spilled spilledCount
}

// swept identifies what a sweep has seen: how far stability and feeding had come.
type swept struct{ generation, puts uint64 }

// NewState returns the state of a target about which nothing is known yet.
func NewState(target change.ServerID, topology Topology, limits Limits) *State {
	if limits.Segments == 0 {
		limits.Segments = defaultSegments
	}
	return &State{
		limits:    limits,
		stability: newStability(target, topology),
		frontier:  frontier{limit: limits.Segments},
		index:     newIndex(topology.servers),
	}
}

// Local feeds the keys of rows that an application changed on the target itself. A transaction may come in parts.
func (s *State) Local(stamp change.Stamp, keys []change.Key) error {
	if len(keys) == 0 {
		return nil
	}
	s.frontier.note(stamp.Version)
	return s.put(stamp, keys)
}

// Replicated feeds a transaction that the applier committed on the target. A marker may come in parts.
func (s *State) Replicated(m *change.Marker) error {
	for _, e := range m.Manifest {
		if len(e.Keys) == 0 {
			continue
		}
		s.frontier.note(e.Stamp.Version)
		if err := s.put(e.Stamp, e.Keys); err != nil {
			return err
		}
	}
	return nil
}

// Checkpoint says that everything before position has been fed, and that the fold of the target's own clock is clock
// there. Call it before feeding begins, and then about once a second. It keeps a copy of position.
func (s *State) Checkpoint(position change.GTIDSet, clock change.Clock) {
	s.start.Do(func() { s.began = clock })
	s.frontier.checkpoint(boundary{position.Clone(), clock})
}

// Applied says that the target has everything of source up to clock.Time, and that the fold over source's binlog has
// arrived at clock there. A link calls it when it starts, with the clock of its last marker; after each commit, never
// before it; and when it passes transactions that change nothing. Older clocks take nothing back.
func (s *State) Applied(source change.ServerID, clock change.Clock) {
	s.stability.advance(source, clock)
}

// AppliedUpTo returns the time up to which the target has a source, 0 before Applied was called for it.
func (s *State) AppliedUpTo(source change.ServerID) change.Time {
	return s.stability.appliedUpTo(source)
}

// Lookup returns the newest change of a row that is not yet stable, and whether there is one.
func (s *State) Lookup(key change.Key) (change.Stamp, bool, error) {
	sh := s.index.shard(key)
	sh.mu.RLock() // held over both looks, or an entry could move to the store in between
	defer sh.mu.RUnlock()
	if i, ok := sh.find(key); ok {
		return s.index.slab.get(sh.slots[i]), true, nil
	}
	if s.spilled.isEmpty() {
		return change.Stamp{}, false, nil
	}
	stamp, ok, err := s.limits.Store.Get(key)
	if err != nil {
		return change.Stamp{}, false, fmt.Errorf("look up row %s in the spilled change index: %w", key, err)
	}
	return stamp, ok, nil
}

// Found is the answer to one key of LookupAll.
type Found struct {
	Stamp change.Stamp
	Known bool
}

// LookupAll looks up many keys; the answers are in the order of the keys. It is not a snapshot: changes that are fed
// meanwhile may be seen or not.
func (s *State) LookupAll(keys []change.Key) ([]Found, error) {
	found := make([]Found, len(keys))
	for i, k := range keys {
		var err error
		if found[i].Stamp, found[i].Known, err = s.Lookup(k); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Stable reports whether nothing that conflicts with this change can still arrive at the target.
func (s *State) Stable(v change.Version) bool { return v.Time <= s.stability.upTo(v.Origin) }

// Lacks returns the servers linked to the target of which it has less than this context says, that is: something that a
// change with this context was made on top of is still on its way. Applied before that arrives, the change is decided
// as safely as ever, but against an entry older than what it was made on: where three servers change one row in turn, a
// sequential change can then look like a concurrent one. A link that waits a moment for links that work avoids that.
func (s *State) Lacks(c change.Context) []change.ServerID { return s.stability.lacks(c) }

// Frontier returns the newest checkpoint before which every change is stable; ok is false while there is none. It only
// moves forward. The position must not be changed.
func (s *State) Frontier() (position change.GTIDSet, clock change.Clock, ok bool) {
	b, ok := s.frontier.advance(s.stability)
	return b.position, b.clock, ok
}

// Behind reports whether changes have been fed that the frontier, as Frontier returned it last, does not cover.
func (s *State) Behind() bool { return s.frontier.behind() }

// Stats are the sizes of a State.
type Stats struct {
	Entries int // in memory
	Bytes   int // that they take
	Spilled int // entries in the store
}

// Stats returns the present sizes.
func (s *State) Stats() Stats {
	return Stats{Entries: int(s.index.size.Load()), Bytes: s.index.bytes(), Spilled: s.spilled.count()}
}

func (s *State) put(stamp change.Stamp, keys []change.Key) error {
	s.index.feeding.Lock()
	defer s.index.feeding.Unlock()
	s.index.puts.Add(1)
	number := s.index.slab.add(stamp)
	defer s.index.slab.release(number)
	admit := func(change.Key) (bool, error) { return true, nil }
	if !s.spilled.isEmpty() {
		admit = func(k change.Key) (bool, error) { return s.recall(k, stamp.Version) }
	}
	for i, k := range keys {
		if s.limits.Lives && isLife(k) {
			if err := s.reset(RowKey(k), number); err != nil {
				return err
			}
		}
		if err := s.index.put(k, stamp.Version, number, admit); err != nil {
			return err
		}
		if i%1024 == 1023 && s.full() {
			if err := s.spill(); err != nil {
				return err
			}
		}
	}
	if s.full() {
		return s.spill()
	}
	return nil
}

// reset puts the stamp with this number in the place of a key's entry, be it newer, if it has one.
func (s *State) reset(k change.Key, number uint32) error {
	if s.index.replace(k, number) || s.spilled.isEmpty() {
		return nil
	}
	s.storing.Lock()
	defer s.storing.Unlock()
	_, ok, err := s.limits.Store.Get(k)
	if err == nil && ok {
		err = s.limits.Store.Remove(k)
	}
	if err != nil {
		return fmt.Errorf("reset row %s in the spilled change index: %w", k, err)
	}
	if ok {
		s.spilled.n.Add(-1)
	}
	return nil
}
