package conflict

// What stands on last-writer-wins, as the histories of conflict/model show it: 12,000 to 60,000 of each kind converge, and
// its TestEveryRuleIsNeeded names for most rules a history that does not without it.
//
// Publishing. What a decision removes or states beyond its own row change is a transaction of the target's own, without a
// marker: the physical change, if there is one to make, and for every row concerned a row in replicator.tombstone, which
// readers take as that change even where nothing was physically there. It is made with the rows locked, after a barrier
// and a second look of its own, while the group is rolled back; then the group is decided again, and loses. So a crash in
// between does no harm.
//   - Its version must be newer than those of the changes that it is against, also of the incoming one, which is not
//     applied here yet: readers raise the clock to the time in its tombstone rows before they give it its version
//     (change.Clock.Raise). Without that a value that must stand is stated again and again.
//   - Its journal entries are in the same transaction: the row that leaves; if an incoming one does, also what the group
//     would have overwritten in that row that was concurrent, for the group decided again will not find it any more.
//   - It lists what it changes row by row, whatever the flavor would cascade by itself.
//
// Secondary unique keys (Prevails). Rows are looked at in the order of the group, each with what the group has done before
// it, so that values swapped inside a transaction clash with nobody. Any choice between two rows converges; the newest is
// the one that all servers choose when every row was written once. If one of them was written again before it was seen
// everywhere, servers may choose differently, and both go. Both are in the journal. A clash that later changes explain (one of the rows has given its value up, and that
// is still on its way: State.Lacks) is better waited for; nothing diverges if it is not, but a row is lost.
//
// Foreign keys (Below, Orphan). At the end of a group, Orphan is asked for every row that the group has written or not
// applied whose parent is not there, and for the children of every row that the group touches and that is not there at its
// end, be it there before or not.
//   - Rows are applied without the server's own checks and cascades: it would delete a child whose new parent is only not
//     known yet, with everything below it, and that is not on its way.
//   - A published removal takes every row below it along: those that refer to it now, and those that would after the group.
//   - Parents need not be locked, and children of a change that is not applied need not be looked for: 40,000 histories do
//     not notice. Where the child was made, the deletion meets it in any case. It is only sooner.
//   - Where a source does not log what cascades do (MariaDB, MySQL before 9.6), a deletion in a referenced table (CASCADE,
//     SET NULL) waits until the target has everything that its origin had seen, and then takes along the children that it
//     covers, whatever becomes of the deletion itself (Below). A child that arrives before its parent waits too (patient).
//   - Such cascades over more than one level do not converge (a row in the middle that has been replaced meanwhile hides
//     what the cascade did below it), and must be refused: on such sources a table with a CASCADE or SET NULL key must not
//     be referenced by another such key, nor by itself.
//
// Waiting. Whatever waits for State.Lacks cuts the group before its transaction: what precedes it is applied and reported
// (State.Applied), or two links wait for each other for ever. With that no wait depends on itself, for what a change was
// made on top of never waits for the change. A link waits as long as a link that is cut has what it waits for; a server that
// is gone must be forgotten (it leaves the Topology).
//
// FirstWriterWins, ServerPriority (Policy.Stands). The target states its own change again when a concurrent one would be
// applied over it and it must stand. When all contenders were written once and concurrently, the right one stands on all
// servers. A change that was made on top of the original, but not of its restatement, can lose to it, and is in the journal.
// First-writer-wins needs the version of the original beside the restatement (in its tombstone row), for readers and for
// the target's own feed (State.Reasserted); server-priority does not. A restatement that its server refuses (a unique value
// that is taken, a parent that has gone) is left out: the later change stands.
//
// Add columns (DecideDelta). What an update adds is after minus before, added once on every server whatever becomes of its
// other columns, if it was made on what is now the life of its row; if not, the update is in the journal. Inserts and
// deletes, and both halves of a change of the key, are decided under LifeKey, win or lose against each other, and replace
// the whole row whatever updates have made of it: a deletion beats every update that had not seen it, and of two inserts
// of one key the newer stays with what was added to it. Keys may be used again.
//   - An update of such a table waits until the target has everything that its origin had seen.
//   - Updates stand in the index under RowKey, and only if their other columns were applied; inserts and deletes under
//     LifeKey, and only if they were applied (Limits.Lives: they take the place of the row's updates).
//   - Neither secondary unique keys nor foreign keys go together with add columns: random histories on servers end with
//     different sums. Another policy has not been tried.
//
// MergeColumns (MergeUpdate, MergeInsert, MergeDelete). Columns are registers of their own; inserts, deletes and published
// rows are registers of the whole row. A row that stays, or comes back, against a concurrent deletion is published whole, by
// every server that decides so. Such a row is taken as an insert, also where it changes nothing: an UPDATE to equal values is
// not logged, so the tombstone row must hold the image. A group in which an earlier transaction has written the row is cut
// before the one that asks for it. Secondary unique keys together with merged columns have not been tried: a row made of
// columns of two servers can hold a combination that neither had.
//
// Halt stops the link; there is nothing to converge.

import "replicator/change"

// Prevails reports whether an incoming row keeps its place against every row that holds one of its unique values: it must
// be newer than all of them, and a row without an index entry is older than whatever comes in. If so, the deletion of all
// of them is published; else that of the incoming row alone.
func Prevails(incoming change.Version, holders []Change) bool {
	for _, h := range holders {
		if h.Known && h.Stamp.Version.Compare(incoming) > 0 {
			return false
		}
	}
	return true
}

// Policy is how a table's conflicts end.
type Policy uint8

// The policies. Under all of them the later change wins at first (Decide); what differs is whether the target states its
// own change again when a concurrent one is about to overwrite it.
const (
	LastWriterWins Policy = iota
	FirstWriterWins
	ServerPriority
	MergeColumns
	Halt
)

// Stands reports whether the target's own change must stand although a concurrent one would be applied over it (the
// verdict is ApplyOver and the entry's origin is the target). own and incoming are the versions of the changes whose values
// meet: State.Original of the target's; of the incoming one the original that its transaction names, if it states a value
// again, else its own version. rank gives a server's place in the priorities, the most important lowest, those that are not
// listed all alike and behind the others.
//
// Where it stands, the target publishes its present row (or the absence of it) with the original's version.
func (p Policy) Stands(own, incoming change.Version, rank func(change.ServerID) int) bool {
	switch p {
	case FirstWriterWins:
		return own.Compare(incoming) < 0
	case ServerPriority:
		return rank(own.Origin) < rank(incoming.Origin)
	case LastWriterWins, MergeColumns, Halt:
	}
	return false
}
