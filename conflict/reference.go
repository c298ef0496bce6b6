package conflict

import "replicator/change"

// Fate says what becomes of a child whose parent will not be on the target when a group is committed.
type Fate uint8

// The fates.
const (
	// Settle: the deletion of the parent and the child's change were concurrent. The child's removal (SET NULL: the child
	// with NULL) is published, with everything below it.
	Settle Fate = iota + 1
	// Hide: the deletion of the parent took the child along where it was made, and the source did not log that. The child
	// goes (SET NULL: gets NULL) in the group itself, with everything below it; it is neither published nor in the manifest,
	// as it is not in the index of the source.
	Hide
	// Leave: the parent is on its way, or the change that gave the child another parent before this one was deleted. The
	// child is applied without a look at its parent.
	Leave
	// Wait: the group is cut before this transaction, which is tried again when the target has more of other sources.
	Wait
)

func (f Fate) String() string {
	switch f {
	case Settle:
		return "settle"
	case Hide:
		return "hide"
	case Leave:
		return "leave"
	case Wait:
		return "wait"
	}
	return "unknown"
}

// Change is what the index says of a row, the group's own changes included.
type Change struct {
	Stamp change.Stamp
	Known bool // false: everything that can still come in is newer
}

// Below decides about a child, there before the group, of a row whose deletion the group brings. logged says that the
// deletion's source logs what cascades do: then a child that it had seen had left that parent, and the change that says so is
// on its way. If it does not, the deletion must wait until the target has everything that its origin had seen
// (State.Lacks of its context is empty), and Below is asked even if the deletion itself is not applied.
func Below(child, deletion Change, logged bool) Fate {
	switch {
	case !child.Known || deletion.Stamp.Covers(child.Stamp.Version): // of one transaction, too
		if logged {
			return Leave
		}
		return Hide
	case child.Stamp.Covers(deletion.Stamp.Version):
		return Leave
	}
	return Settle
}

// Orphan decides about a child (a row that the group has written, or one whose parent the group has deleted or not
// applied) whose parent's row is not there at the end of the group. lacks says that the target does not yet have
// everything that the origin of the child's change had seen (State.Lacks of its context is not empty). patient says that
// the group has written the child and that the foreign key cascades on a source that does not log it (see policy.go).
func Orphan(child, parent Change, lacks, patient bool) Fate {
	switch {
	case parent.Known && (!child.Known || parent.Stamp.Covers(child.Stamp.Version)):
		return Leave
	case parent.Known && !child.Stamp.Covers(parent.Stamp.Version), !lacks:
		return Settle
	case patient:
		return Wait
	}
	return Leave
}
