package conflict

import "replicator/change"

// LifeKey is the key under which the beginning and the end of a row stand in the index, in tables with add columns: its
// key with the last bit set.
func LifeKey(k change.Key) change.Key {
	k[len(k)-1] |= 1
	return k
}

// RowKey is the key under which updates of a row stand in the index, in tables with add columns: its key with the last bit
// cleared.
func RowKey(k change.Key) change.Key {
	k[len(k)-1] &^= 1
	return k
}

func isLife(k change.Key) bool { return k[len(k)-1]&1 == 1 }

// DecideDelta decides about an update in a table with add columns: it counts (Apply) when it was made on what is now the
// life of its row, and is lost (Lose) or superseded when it was made on another one. life is the index entry of LifeKey.
// The target must have everything that the update's origin had seen (State.Lacks of its context is empty). What the update
// adds is then added whatever becomes of its other columns, for which Decide is asked with the entry of RowKey.
func DecideDelta(incoming, life change.Stamp, known bool) Verdict {
	switch {
	case !known || incoming.Covers(life.Version):
		return Apply
	case life.Covers(incoming.Version):
		return Superseded
	}
	return Lose
}
