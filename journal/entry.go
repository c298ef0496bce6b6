// Package journal keeps every row that loses a conflict, in the table replicator.conflict of each server where it lost, and
// lists, shows and restores what it has.
package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"replicator/change"
	"replicator/image"
)

// Kind says what two changes met in. Those that PostgreSQL 18 knows have its names
// (https://www.postgresql.org/docs/18/logical-replication-conflicts.html).
type Kind string

// The kinds. The incoming change is the one that a link brings to a target.
const (
	InsertExists        Kind = "insert_exists"         // inserts a row that exists
	UpdateOriginDiffers Kind = "update_origin_differs" // updates a row that another origin has changed
	UpdateMissing       Kind = "update_missing"        // updates a row that is not there, for no known reason
	UpdateDeleted       Kind = "update_deleted"        // updates a row that another origin has deleted
	DeleteOriginDiffers Kind = "delete_origin_differs" // deletes a row that another origin has changed
	DeleteMissing       Kind = "delete_missing"        // deletes a row that is not there
	UpdateExists        Kind = "update_exists"         // brings a value of a secondary unique key that another row has
	MultipleUnique      Kind = "multiple_unique"       // brings values of unique keys that several other rows have
	ParentMissing       Kind = "parent_missing"        // brings a child whose parent has been deleted
	ChildExists         Kind = "child_exists"          // deletes a parent that has children which its origin had not seen
	// Resync: a person had the table made equal to another server's. It is no conflict of two changes, but its row can be
	// restored like those.
	Resync Kind = "resync"
)

// Removal says in plain words why the replicator itself removes a row, to settle a conflict of this kind: a clause that begins
// with "because". It is "" of kinds that end with one of the two changes of the row.
func (k Kind) Removal() string {
	switch k {
	case UpdateExists:
		return "because another row has the same value of a unique key"
	case MultipleUnique:
		return "because other rows have the same values of unique keys"
	case ParentMissing, ChildExists:
		return "because the row that it refers to is gone"
	case InsertExists, UpdateOriginDiffers, UpdateMissing, UpdateDeleted, DeleteOriginDiffers, DeleteMissing, Resync:
	}
	return ""
}

// Sides says what a conflict's winning side is to its losing row: stands is that row as the winning change leaves it. Where
// the replicator removed it for the sake of another row, the winner's row is that one: then nothing stands, and other is the
// row that has the same value of a unique key; nil where the winner's is of another table.
func (k Kind) Sides(winner, loser *Row) (stands, other *Row) {
	switch {
	case k.Removal() == "" || winner == nil || loser == nil:
		return winner, nil
	case winner.Table.Name != loser.Table.Name:
		return nil, nil
	case winner.KeyText() == loser.KeyText():
		return winner, nil
	}
	return nil, winner
}

// The states of an entry.
const (
	Open         = "open"
	Acknowledged = "acknowledged"
	Restored     = "restored"
)

// Waits reports whether a link waits for a person's decision about a conflict: nothing has won yet.
func Waits(policy, state string) bool { return policy == "halt" && state == Open }

// Row is one row's values with the definition that they belong to.
type Row struct {
	Table  *change.Table
	Values []image.Value // one per column
	// Omitted are the columns whose values the journal did not keep; they are Null in Values. Only rows that were read from a
	// journal have any.
	Omitted map[int]Omission
}

// Side is one of the two changes that met.
type Side struct {
	Version change.Version // zero: not known (older than everything that is still remembered)
	GTID    change.GTID    // zero: not known
	User    string         // from the change_log, "" when there is none
	Comment string
	Row     *Row // the row as this change leaves it; nil: it deletes the row
}

// Entry is one conflict on one server.
type Entry struct {
	Table  change.TableName
	Key    change.Key // of the row that lost
	KeyRow *Row       // any image of that row, for its key; never nil
	Kind   Kind
	Policy string
	Winner Side
	Loser  Side
	At     time.Time // zero: now, by the target's clock
}

// ID names a conflict; every server computes the same.
type ID [8]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// NewID returns the first 64 bits of SHA-256 over the table's name ("database.table", then a zero byte), the row's key
// (16 bytes), and the loser's version (16 bytes of origin, 8 bytes of time, big-endian).
func NewID(table change.TableName, key change.Key, loser change.Version) ID {
	b := append([]byte(table.String()), 0)
	b = append(b, key[:]...)
	b = append(b, loser.Origin[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(loser.Time))
	sum := sha256.Sum256(b)
	return ID(sum[:8])
}

// ID names this conflict.
func (e *Entry) ID() ID { return NewID(e.Table, e.Key, e.Loser.Version) }
