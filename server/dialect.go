package server

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"replicator/change"
)

// Dialect is what has to be said differently to the two flavors. It holds no connection.
type Dialect interface {
	// BinlogEnd is the end of the binlog. Read while row locks are held, everything that changed those rows before is in
	// front of it: the barrier. It needs REPLICATION CLIENT (MySQL) or BINLOG MONITOR (MariaDB).
	BinlogEnd(ctx context.Context, q Querier) (change.FilePosition, error)
	// Position is what the binlog holds, as a position to start reading at. It is no barrier on MySQL: a row lock may
	// be free before the GTID of its last holder is in it.
	Position(ctx context.Context, q Querier) (change.GTIDSet, error)
	// Purged is what the binlog no longer holds although Position covers it; on MariaDB the position at the beginning
	// of its oldest file, which is empty when all of the history is there.
	Purged(ctx context.Context, q Querier) (change.GTIDSet, error)
	// ApplySession prepares a connection for applying. Call it once for each connection.
	ApplySession(ctx context.Context, q Querier, s Session) error
	// Listing is how the server takes a list of rows for a table.
	Listing() Listing
	replay
	copies
	checks
}

// copies is the part of a dialect that those use who copy rows, or a whole server.
type copies interface {
	views
	// FreezePrivilege lets an account FLUSH TABLES WITH READ LOCK.
	FreezePrivilege() string
	// UnloggedPrivilege lets an account keep its own statements out of the binlog.
	UnloggedPrivilege() string
	// CopySession are statements that let a session rest inside a transaction for as long as it likes (besides wait_timeout),
	// and that make information_schema tell the sizes of tables as they are now.
	CopySession() []string
}

// views is the part of a dialect that tells what a reader of rows has seen. A transaction is in the binlog before its rows
// can be seen, on both flavors; so neither Position nor the end of the binlog says it.
type views interface {
	// View opens a transaction on the session that sees the rows as of one moment, everything that after covers included:
	// a position that a reader of the binlog has reached. Whoever wants rows ends it.
	View(ctx context.Context, session Querier, after change.GTIDSet) error
	// Seen returns a position that covers everything that could be seen before, by anybody.
	Seen(ctx context.Context, q Querier) (change.GTIDSet, error)
}

// Listing is a form of the table value constructor.
type Listing uint8

// The forms: none at all, VALUES ROW(1,2),ROW(3,4), whose columns the alias names, and VALUES (1,2),(3,4), whose columns a
// SELECT before it has to name.
const (
	NoListing Listing = iota
	ListsRows
	ListsValues
	Listings // how many there are
)

// replay is the part of a dialect that sends events in BINLOG statements.
type replay interface {
	// AfterFormat is the statement to send after a FORMAT_DESCRIPTION event was replayed, "" when there is none.
	AfterFormat() string
	// ReplayNames is the statement that sets the character sets in which BINLOG statements are cheapest to the server.
	ReplayNames() string
	// ReplayStored are two statements that take the place of a BINLOG statement with a literal: the first, to be prepared,
	// keeps the base64 that is its parameter in the session, the second replays it and forgets it. "" where the server
	// knows no such way.
	ReplayStored() (store, replay string)
	// CanReplay reports whether the account may run BINLOG statements.
	CanReplay(ctx context.Context, q Querier) (bool, error)
}

// checks is the part of a dialect that only the preflight checks use.
type checks interface {
	// settings reports on the variables that only this flavor has.
	settings(r *report)
	// retention is how long the server keeps its binlogs; 0 is for ever.
	retention() time.Duration
	// replicates reports whether the server is itself a replica of another one, outside of this program.
	replicates(ctx context.Context, q Querier) (bool, error)
	// needed lists what the account of a role needs.
	needed(role Role) []privilege
	// ignoresReadOnly is the privilege that lets an account write while read_only is on.
	ignoresReadOnly() privilege
}

// NewDialect gives the dialect of a server.
func NewDialect(i Info) Dialect {
	if i.Flavor == change.MariaDB {
		return mariadb{i}
	}
	return mysqlDialect{i}
}

// Session is what an applying session is to have.
type Session struct {
	// LockWait bounds the wait for a row lock; whole seconds, at least 1.
	LockWait time.Duration
	// Wait is how long the server waits for the next statement before it ends the session and frees its locks; whole
	// seconds, at least 1.
	Wait time.Duration
}

func (s Session) statements() []string {
	return []string{
		"SET SESSION innodb_lock_wait_timeout = " + wholeSeconds(s.LockWait),
		"SET SESSION wait_timeout = " + wholeSeconds(s.Wait),
		"SET @replicator_apply = 1", // triggers that are guarded by it do nothing
		"SET SESSION unique_checks = 1, foreign_key_checks = 1",
	}
}

func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64(max((d+time.Second-1)/time.Second, 1)), 10)
}

func execAll(ctx context.Context, q Querier, statements []string) error {
	for _, s := range statements {
		if _, err := q.ExecContext(ctx, s); err != nil {
			return Fault(err, "prepare session: "+s)
		}
	}
	return nil
}

// binlogEnd runs a statement whose first columns are file and position, whatever follows them.
func binlogEnd(ctx context.Context, q Querier, statement string) (change.FilePosition, error) {
	row, err := firstRow(ctx, q, statement)
	if err != nil {
		return change.FilePosition{}, Fault(err, "read the end of the binlog")
	}
	if len(row) < 2 {
		return change.FilePosition{}, binlogOff()
	}
	offset, err := strconv.ParseUint(row[1].String, 10, 64)
	if err != nil {
		return change.FilePosition{}, fmt.Errorf("read the end of the binlog: %w", err)
	}
	return change.FilePosition{File: row[0].String, Offset: offset}, nil
}

// firstRow returns the first row of a statement whose number of columns differs between versions, nil when there is none.
func firstRow(ctx context.Context, q Querier, statement string) ([]sql.NullString, error) {
	row, _, err := firstNamedRow(ctx, q, statement)
	return row, err
}

func firstNamedRow(ctx context.Context, q Querier, statement string) ([]sql.NullString, []string, error) {
	rows, err := q.QueryContext(ctx, statement)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, nil, err
	}
	if !rows.Next() {
		return nil, names, rows.Err()
	}
	row := make([]sql.NullString, len(names))
	targets := make([]any, len(names))
	for i := range row {
		targets[i] = &row[i]
	}
	if err := rows.Scan(targets...); err != nil {
		return nil, nil, err
	}
	return row, names, rows.Err()
}

func position(ctx context.Context, q Querier, f change.Flavor, query string) (change.GTIDSet, error) {
	var text string
	if err := q.QueryRowContext(ctx, query).Scan(&text); err != nil {
		return change.GTIDSet{}, Fault(err, "read the GTID position")
	}
	set, err := change.ParseGTIDSet(f, text)
	if err != nil {
		return change.GTIDSet{}, fmt.Errorf("read the GTID position: %w", err)
	}
	return set, nil
}

// canReplay tries an empty BINLOG statement: the servers look at the privilege first, and then refuse the text.
func canReplay(ctx context.Context, q Querier) (bool, error) {
	_, err := q.ExecContext(ctx, "BINLOG ''")
	switch {
	case err == nil, isNumber(err, 1064, 1149):
		return true, nil
	case isNumber(err, 1227, 1142, 1044, 1295):
		return false, nil
	}
	return false, Fault(err, "try whether the account may run BINLOG")
}

// Quote writes a name as an identifier.
func Quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// QuoteText writes a text as a string literal, under any sql_mode.
func QuoteText(text string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(text, `\`, `\\`), "'", "''") + "'"
}
