// Package conflict decides between changes of one row that were made on several servers, and keeps what such decisions
// need: per target, the newest version of every row whose change is not yet stable. It is pure: it knows no database, no
// network and no clock, and learns everything from the calls of its owner.
package conflict

import "replicator/change"

// Verdict says what becomes of one incoming row change.
type Verdict uint8

// The verdicts.
const (
	// Apply: the change is applied, and what it overwrites is older and was known where it was made.
	Apply Verdict = iota + 1
	// ApplyOver: the change is applied and wins over a concurrent one: a conflict, and the row image that is about to be
	// overwritten belongs in the journal.
	ApplyOver
	// Lose: the change is not applied, it lost to a concurrent one: a conflict, and its image belongs in the journal.
	Lose
	// Superseded: the change is not applied, for the entry was made on top of it and only arrived earlier. No conflict.
	Superseded
)

func (v Verdict) String() string {
	switch v {
	case Apply:
		return "apply"
	case ApplyOver:
		return "apply over"
	case Lose:
		return "lose"
	case Superseded:
		return "superseded"
	}
	return "unknown"
}

// Applies reports whether the change reaches the row.
func (v Verdict) Applies() bool { return v == Apply || v == ApplyOver }

// Conflict reports whether two changes were concurrent, so that one of two images must be kept in the journal.
func (v Verdict) Conflict() bool { return v == ApplyOver || v == Lose }

// Decide compares an incoming change with the index entry of its row; known is false when there is none. A change with
// two keys is decided for each of them.
func Decide(incoming, entry change.Stamp, known bool) Verdict {
	if !known {
		return Apply
	}
	switch incoming.Version.Compare(entry.Version) {
	case 0: // one's own commit met again
		return Apply
	case 1:
		if incoming.Covers(entry.Version) {
			return Apply
		}
		return ApplyOver
	}
	if entry.Covers(incoming.Version) {
		return Superseded
	}
	return Lose
}
