package conflict

import (
	"crypto/sha256"

	"replicator/change"
)

// ColumnKey is the key under which changes of one column of a row stand in the index, in tables whose columns are merged:
// the first 128 bits of SHA-256 over the row's key and the column's name. Inserts, deletes and published rows stand under
// the row's own key.
func ColumnKey(row change.Key, column string) change.Key {
	sum := sha256.Sum256(append(row[:], column...))
	return change.Key(sum[:16])
}

// Merge is what becomes of a change in a table whose columns are merged.
type Merge uint8

// The merges.
const (
	// Merged: the change is carried out, each column as the verdict over it says (DecideColumn). An update of a row that is not there
	// inserts its after image; what that row is made of is on its way.
	Merged Merge = iota + 1
	// Resurrect: an update wins over a concurrent deletion. Its whole after image is published.
	Resurrect
	// Keep: a deletion loses to a concurrent update of some column. The row as it is at the target is published, whole.
	Keep
	// Lost: the change lost as a whole to a concurrent one, and belongs in the journal.
	Lost
	// Stale: something made on top of the change arrived before it.
	Stale
)

// MergeUpdate decides about an update: row is the entry of the row's own key, exists says whether the row is there. When
// Merged, DecideColumn is asked for every column that the update changed.
func MergeUpdate(incoming change.Stamp, row Change, exists bool) Merge {
	switch Decide(incoming, row.Stamp, row.Known) {
	case Lose:
		return Lost
	case Superseded:
		return Stale
	case ApplyOver:
		if !exists {
			return Resurrect
		}
	case Apply:
	}
	return Merged
}

// MergeInsert decides about an insert or a published row. When Merged, a column for which DecideColumn does not
// say to apply keeps its value if the row is there.
func MergeInsert(incoming change.Stamp, row Change) Merge {
	switch Decide(incoming, row.Stamp, row.Known) {
	case Lose:
		return Lost
	case Superseded:
		return Stale
	case Apply, ApplyOver:
	}
	return Merged
}

// MergeDelete decides about a deletion; columns are the entries of every column of the row.
func MergeDelete(incoming change.Stamp, row Change, columns []Change) Merge {
	if m := MergeInsert(incoming, row); m != Merged {
		return m
	}
	m := Merged
	for _, c := range columns {
		switch Decide(incoming, c.Stamp, c.Known) {
		case Superseded:
			return Stale
		case Lose:
			m = Keep
		case Apply, ApplyOver:
		}
	}
	return m
}

// DecideColumn decides about one column: row is the entry of the row's own key, column that of its ColumnKey. What the
// incoming change meets is the newer of the two.
func DecideColumn(incoming change.Stamp, row, column Change) Verdict {
	if !column.Known || row.Known && row.Stamp.Version.Compare(column.Stamp.Version) > 0 {
		column = row
	}
	return Decide(incoming, column.Stamp, column.Known)
}
