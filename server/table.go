package server

import (
	"slices"
	"strings"

	"replicator/change"
)

// Table is a table's definition as its server gives it now (information_schema), in contrast to change.Table, which is
// what a TABLE_MAP event said when the rows were written. Names are as the server spells them.
type Table struct {
	Name       change.TableName
	Kind       string // TABLE_TYPE: "BASE TABLE", "SEQUENCE" or "SYSTEM VERSIONED" (MariaDB)
	Engine     string // "InnoDB", …
	Columns    []Column
	PrimaryKey []KeyPart // in key order; empty when the table has none
	// UniqueKeys are the secondary ones, ordered by name.
	UniqueKeys  []UniqueKey
	ForeignKeys []ForeignKey // those of this table as the child, ordered by name
	Triggers    []Trigger    // ordered by name; only those that the account may see (TRIGGER privilege)
	// Derived says that the server computes more of a row than what is written to it: generated columns, or indexes other
	// than B-trees over columns (expressions, hashes, full text, spatial).
	Derived bool
}

// Column is one column, in the order of the binlog's row images.
type Column struct {
	Name     string
	Type     string // COLUMN_TYPE: "int unsigned", "varchar(20)", "enum('a','b')"; lower case apart from quoted labels
	DataType string // DATA_TYPE: "int", "varchar", "enum"
	Charset  string // "" for types without one; "binary" never appears here
	// Collation is its name, CollationID the server's number for it; "" and 0 for types without one.
	Collation     string
	CollationID   uint16
	Nullable      bool
	Generated     bool // stored or virtual: must be left out of INSERT and SET
	AutoUpdate    bool // ON UPDATE CURRENT_TIMESTAMP: must be named in every UPDATE or it changes by itself
	AutoIncrement bool
	Invisible     bool
	Compressed    bool // MariaDB's COMPRESSED, which binlog readers cannot decode
	// Expression is the text of a generated column, as its server prints it.
	Expression string
}

// KeyPart is one column of a key.
type KeyPart struct {
	Column int // index into Table.Columns, -1 for an expression (MySQL's functional key parts)
	Prefix int // characters (bytes for binary columns) that count; 0 = all
}

// UniqueKey is a secondary unique key.
type UniqueKey struct {
	Name  string
	Parts []KeyPart
}

// ForeignKey is a reference from this table (the child) to a parent.
type ForeignKey struct {
	Name          string
	Columns       []string
	Parent        change.TableName
	ParentColumns []string
	OnUpdate      string // "CASCADE", "SET NULL", "RESTRICT", "NO ACTION", "SET DEFAULT"
	OnDelete      string
}

// Trigger is a trigger of the table.
type Trigger struct {
	Name      string
	Timing    string // BEFORE or AFTER
	Event     string // INSERT, UPDATE or DELETE
	Statement string
}

// Remedy is what to do about a trigger that is not guarded.
func (t Trigger) Remedy() string {
	if t.Statement == "" {
		return "GRANT TRIGGER on the table's database to the account: without it the trigger's body cannot be seen"
	}
	return "put its body into IF @replicator_apply IS NULL THEN … END IF: what it did on the origin arrives by itself"
}

// Guarded reports whether the trigger looks at the session variable @replicator_apply, which the applier sets to 1: such a
// trigger does nothing for rows that it applies by SQL.
func (t Trigger) Guarded() bool {
	return strings.Contains(strings.ToLower(t.Statement), "@replicator_apply")
}

// Column returns the index of the named column (case-insensitive, as on every server), -1 when there is none.
func (t *Table) Column(name string) int {
	return slices.IndexFunc(t.Columns, func(c Column) bool { return strings.EqualFold(c.Name, name) })
}
