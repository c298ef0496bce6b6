package conflict

import "replicator/change"

// Hold keeps the entries of an index that a source does not cover, while rows of that source are copied to the target.
//
// Rows that are read on the source after the Hold was made have in them everything that Covered covers. Whatever else they
// have in them, or lack, is in the index of the target, once the target has everything that the source had when they were
// read. A row for which the index has no entry but covered ones may therefore be replaced by its copy; any other is the
// business of the links.
//
// One thing it cannot see: what never reaches the source counts as covered, and would be undone by the copy. Whoever copies
// makes sure that the source receives the target's own changes and those of every server that the target receives, or that
// this is meant.
type Hold struct {
	// Covered is how far the target had the source when the Hold was made.
	Covered change.Clock

	source    change.ServerID
	stability *stability
	from      change.Version // what lies before the index: the time of its first checkpoint on the target,
	before    change.Context // and what the target had of others then
}

// Hold begins to keep entries, and keeps them until Release: the index grows meanwhile. known is false when the target has
// nothing of the source yet.
func (s *State) Hold(source change.ServerID) (h *Hold, known bool) {
	st := s.stability
	st.mu.Lock()
	defer st.mu.Unlock()
	clock, known := st.applied[source]
	if !known {
		return nil, false
	}
	h = &Hold{Covered: clock, source: source, stability: st, from: change.Version{Time: s.began.Time, Origin: st.target}, before: s.began.Context}
	st.holds[h] = struct{}{}
	clear(st.marks)
	return h, true
}

// Complete reports whether the source has everything that lies before the index: of that the index knows nothing. What is
// dropped later, the source has by the rules of stability; but it may have been born since the index began. Rows must not be
// copied before.
func (h *Hold) Complete() bool {
	for _, e := range h.before {
		if !h.Covers(change.Version{Time: e.Time, Origin: e.Origin}) {
			return false
		}
	}
	return h.Covers(h.from)
}

// Covers reports whether rows that were read on the source since have this change in them, or will never have it: it does
// not reach the source.
func (h *Hold) Covers(v change.Version) bool {
	return v.Time <= h.stability.passed(h.source, h.Covered, v.Origin)
}

// Release lets entries go again. It may be called several times.
func (h *Hold) Release() {
	s := h.stability
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, held := s.holds[h]; held {
		delete(s.holds, h)
		clear(s.marks)
		s.moves++
	}
}
