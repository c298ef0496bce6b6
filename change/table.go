package change

import "encoding/hex"

// TableName is a database and a table, as the server spells them.
type TableName struct{ Database, Table string }

// String is the form that configuration and messages use: database.table, unquoted.
func (n TableName) String() string { return n.Database + "." + n.Table }

// Table is a table's definition as a source's TABLE_MAP event gives it (binlog_row_metadata=FULL): what the columns were
// when the rows were written, whatever they are now. It is immutable, and one reader hands out the same *Table for equal
// definitions, so pointers can be compared and used as map keys.
type Table struct {
	Name       TableName
	Columns    []Column
	PrimaryKey []KeyPart // in key order; empty when the table has none
	// MapEvent is the TABLE_MAP event as it stood in the binlog: header, body, and CRC32 where the format has one.
	MapEvent []byte
	// Settles is "" of a table as the binlog defines it. Else the events that refer to this value are tombstones: Deletes
	// of rows of table Name by which a server settled a conflict of this kind (update_exists, parent_missing, …). The rows
	// may never have existed there. Their before images are those of image.EncodeKey, and nothing but Name is set.
	Settles string
	// Numbered says that each server gives the rows numbers of its own (a change_log whose primary key is an
	// AUTO_INCREMENT alone). Its events are Inserts only, the keys of their rows include the origin, and a target numbers
	// them again.
	Numbered bool
	// Layout is what package image has worked out for all rows of the definition; it asks nobody else to look at it. It may
	// be nil.
	Layout any
}

// Column is one column of a row image.
type Column struct {
	Name     string
	Type     byte   // MYSQL_TYPE_* of the binlog, with ENUM, SET and CHAR told apart (the "real type")
	Meta     uint16 // the type's metadata as the TABLE_MAP event carries it
	Unsigned bool
	Nullable bool
	// Collation is the server's collation number; 63 (binary) for bytes, 0 for types without one.
	Collation uint16
	Labels    []string // of ENUM and SET, in the column's character set
}

// KeyPart is one column of a primary key.
type KeyPart struct {
	Column int // index into Table.Columns
	Prefix int // characters (bytes for binary columns) that count; 0 = all
}

// Key identifies one row of one table across the mesh: the first 128 bits of the SHA-256 over table and canonical primary
// key values. Two servers compute the same Key for the same row, whatever their flavor.
type Key [16]byte

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// RowKind says what a rows event does.
type RowKind uint8

// The kinds of row change.
const (
	Insert RowKind = iota + 1
	Update
	Delete
)

func (k RowKind) String() string {
	switch k {
	case Insert:
		return "insert"
	case Update:
		return "update"
	case Delete:
		return "delete"
	}
	return "unknown"
}

// Span is a row image inside RowsEvent.Data.
type Span struct{ Offset, Length uint32 }

// Row is one changed row of a RowsEvent. Insert has no Before, Delete no After.
type Row struct {
	Before, After Span
	// Key is the key of the Before image, NewKey of the After image. On Insert and Delete both are the one there is;
	// on Update they differ only where the primary key was changed.
	Key, NewKey Key
}

// RowsEvent is one WRITE, UPDATE or DELETE rows event of a replicated table.
type RowsEvent struct {
	Table *Table
	Kind  RowKind
	// Data is the event as it stood in the binlog, decompressed where it was compressed (MariaDB): the 19-byte header,
	// the body, and CRC32 where the format has one. All columns are present in every image.
	Data []byte
	Rows []Row
}

// Before returns the before image of a row (null bitmap and values), nil on Insert.
func (e *RowsEvent) Before(r Row) []byte { return e.image(r.Before) }

// After returns the after image of a row, nil on Delete.
func (e *RowsEvent) After(r Row) []byte { return e.image(r.After) }

func (e *RowsEvent) image(s Span) []byte {
	if s.Length == 0 {
		return nil
	}
	return e.Data[s.Offset : s.Offset+s.Length : s.Offset+s.Length]
}
