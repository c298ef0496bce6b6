// Package change holds the values that flow from a binlog to a target: transactions and their rows, versions, clocks and
// positions. It knows no database, no network and no logger.
package change

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// FilePosition is a place in one server's binlog files. The zero value is before everything.
type FilePosition struct {
	File   string // e.g. "binlog.000012"; files are compared by the number after the last dot
	Offset uint64
}

// Compare orders positions of one server.
func (p FilePosition) Compare(o FilePosition) int {
	if p.File == o.File {
		return cmp.Compare(p.Offset, o.Offset)
	}
	return cmp.Or(cmp.Compare(p.fileNumber(), o.fileNumber()), cmp.Compare(p.Offset, o.Offset))
}

// fileNumber is the number after the last dot of the file's name, 0 when there is none.
func (p FilePosition) fileNumber() uint64 {
	n, _ := strconv.ParseUint(p.File[strings.LastIndexByte(p.File, '.')+1:], 10, 64)
	return n
}

func (p FilePosition) String() string { return fmt.Sprintf("%s:%d", p.File, p.Offset) }

// Format is what a target must know to replay a source's events: its FORMAT_DESCRIPTION event.
type Format struct {
	Event         []byte // the whole event: header, body, CRC32
	ServerVersion string
	Checksum      bool // events end in a CRC32
}

// Kind says what a transaction is to a link.
type Kind uint8

// The kinds of transaction.
const (
	// Local was committed by an application and changes rows of replicated tables.
	Local Kind = iota + 1
	// Replicated carries a marker: the applier committed it.
	Replicated
	// Passive changes nothing that is replicated: upkeep of the replicator schema, other tables, nothing at all.
	Passive
	// Definition is a DDL statement (or another statement that is logged as text).
	Definition
)

func (k Kind) String() string {
	switch k {
	case Local:
		return "local"
	case Replicated:
		return "replicated"
	case Passive:
		return "passive"
	case Definition:
		return "definition"
	}
	return "unknown"
}

// Statement is a DDL statement met in a binlog.
type Statement struct {
	Database string // the session's default database
	Text     string
	// Destructive is set when passing the statement over would diverge in silence: TRUNCATE, DROP or RENAME.
	Destructive bool
	// Tables names every table that the statement touches, as far as it was understood; a DROP DATABASE names
	// {database, "*"}.
	Tables []TableName
}

// Marker is what the marker rows of a replicated transaction say.
type Marker struct {
	Source   ServerID // whose binlog the link read
	Seq      uint64   // of the last marker row
	Clock    Clock    // the fold over the source's binlog at the position that the marker saves
	Manifest []ManifestEntry
}

// ManifestEntry is one source transaction inside a replicated one.
type ManifestEntry struct {
	GTID  GTID
	Stamp Stamp
	Keys  []Key // of all its row changes, those included that lost or changed nothing; an entry of many comes in parts
}

// LogRow is a row that an application wrote to its change_log: who changed which row, and why. A column that the
// configuration does not name, or that is NULL, is "".
type LogRow struct {
	Table   string // the table's name, with or without its database, as the application wrote it
	Key     string // the row's key, as the application wrote it
	User    string
	Comment string
	Time    Time // 0: none
}

// Body gives the rows events of a transaction in order, from memory or from a spool file. It can be read any number of
// times and by several links at once.
type Body interface {
	// Each calls f for every rows event until f fails. The event is valid only during the call.
	Each(f func(*RowsEvent) error) error
}

// Transaction is one committed transaction of a source, whole. It is immutable once published.
type Transaction struct {
	Kind Kind
	GTID GTID
	// Stamp is the version of a transaction that was committed on the server itself, and what the server had applied
	// when it committed it. It is zero on Replicated.
	Stamp Stamp
	// Clock is the fold after this transaction: it is saved with the position, and continues from there.
	Clock     Clock
	Committed time.Time    // the commit time that the source gave; seconds on MariaDB
	End       FilePosition // where the commit event ends
	Format    *Format
	Statement *Statement // of a Definition
	Marker    *Marker    // of a Replicated transaction
	Log       []LogRow   // of a Local transaction: what the application wrote about it to its change_log
	Settles   string     // of a Local transaction by which an owner settled a conflict: its kind
	// Originals are the rows of which a Local transaction states an older value again, with the version of the change that
	// they are from.
	Originals map[Key]Version
	// Losers are the rows that a settling transaction removes, with the version of the change that it takes back by that.
	Losers  map[Key]Version
	Body    Body  // of a Local transaction, else nil
	Rows    int64 // row changes in Body
	Bytes   int64 // size of Body's events
	Spooled bool  // Body is on disk: too large to hold in memory
}

// Events is a Body in memory.
type Events []*RowsEvent

// Each implements Body.
func (e Events) Each(f func(*RowsEvent) error) error {
	for _, ev := range e {
		if err := f(ev); err != nil {
			return err
		}
	}
	return nil
}
