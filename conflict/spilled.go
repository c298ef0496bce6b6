package conflict

import (
	"fmt"
	"sync/atomic"

	"replicator/change"
)

// spilledCount counts the entries in the store. It is never below the truth, so that 0 means that the store can be
// passed by.
type spilledCount struct{ n atomic.Int64 }

func (c *spilledCount) isEmpty() bool { return c.n.Load() == 0 }
func (c *spilledCount) count() int    { return int(c.n.Load()) }

// full reports whether there is more in memory than may be.
func (s *State) full() bool {
	if s.limits.Store == nil || s.limits.Entries == 0 {
		return false
	}
	return int(s.index.size.Load()) > s.limits.Entries || s.index.bytes() > s.limits.Entries*bytesPerEntry
}

// spill moves whole shards to the store, in turn, until an eighth of the limit is free. Hot rows come back by themselves.
func (s *State) spill() error {
	for range shards {
		size, bytes := int(s.index.size.Load()), s.index.bytes()
		if size <= s.limits.Entries-s.limits.Entries/8 && bytes <= (s.limits.Entries-s.limits.Entries/8)*bytesPerEntry {
			return nil
		}
		if err := s.index.empty(s.hand, s.take); err != nil {
			return fmt.Errorf("spill the change index: %w", err)
		}
		s.hand = (s.hand + 1) % shards
	}
	return nil
}

func (s *State) take(entries []Stored) error {
	s.storing.Lock()
	defer s.storing.Unlock()
	s.spilled.n.Add(int64(len(entries))) // not taken back on an error: the store may hold some of them
	return s.limits.Store.Put(entries)
}

// recall prepares that a key with version v enters memory: a key is in one place at a time, or a version that was
// replaced would come to light again. It reports false when the store has a version as great.
func (s *State) recall(k change.Key, v change.Version) (bool, error) {
	stored, ok, err := s.limits.Store.Get(k)
	if err == nil && ok { // again, so that no sweep takes it out meanwhile
		s.storing.Lock()
		defer s.storing.Unlock()
		stored, ok, err = s.limits.Store.Get(k)
	}
	if err != nil {
		return false, fmt.Errorf("look up row %s in the spilled change index: %w", k, err)
	}
	if !ok {
		return true, nil
	}
	if stored.Version.Compare(v) >= 0 {
		return false, nil
	}
	if err := s.limits.Store.Remove(k); err != nil {
		return false, fmt.Errorf("recall row %s from the spilled change index: %w", k, err)
	}
	s.spilled.n.Add(-1)
	return true, nil
}

// Sweep removes what has become stable: all of it from memory, and the next part of the store. It looks at nothing when
// nothing was fed and nothing has become stable since.
func (s *State) Sweep() error {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	if now := (swept{s.stability.generation(), s.index.puts.Load()}); now != s.swept {
		s.swept = now
		s.index.sweep(s.stability.upTo)
		s.originals.sweep(s.stability)
	}
	if s.spilled.isEmpty() {
		return nil
	}
	s.storing.Lock()
	defer s.storing.Unlock()
	next, dropped, done, err := s.limits.Store.Sweep(s.cursor, sweepStored, s.Stable)
	if err != nil {
		return fmt.Errorf("sweep the spilled change index: %w", err)
	}
	s.cursor = next
	if done {
		s.cursor = change.Key{}
	}
	s.spilled.n.Add(int64(-dropped))
	return nil
}
