package conflict

import (
	"maps"
	"sync"

	"replicator/change"
)

// originals remembers, for rows that the target has asserted again, the version of the change whose value that was.
type originals struct {
	mu   sync.Mutex
	rows map[change.Key]reasserted
}

type reasserted struct{ version, original change.Version }

// Reasserted feeds that the target's own transaction of the given version states the value of an older change of its own
// again. It follows the Local of the same transaction.
func (s *State) Reasserted(key change.Key, version, original change.Version) {
	s.originals.mu.Lock()
	defer s.originals.mu.Unlock()
	if s.originals.rows == nil {
		s.originals.rows = map[change.Key]reasserted{}
	}
	s.originals.rows[key] = reasserted{version, original}
}

// Original returns the version of the change whose value the target's change of a row states again: the version itself
// where it states its own.
func (s *State) Original(key change.Key, version change.Version) change.Version {
	s.originals.mu.Lock()
	defer s.originals.mu.Unlock()
	if r, ok := s.originals.rows[key]; ok && r.version == version {
		return r.original
	}
	return version
}

// sweep drops what is stable.
func (o *originals) sweep(stability *stability) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.rows, func(_ change.Key, r reasserted) bool {
		return r.version.Time <= stability.upTo(r.version.Origin)
	})
}
