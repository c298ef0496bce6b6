package server

import (
	"context"

	"replicator/change"
)

// mariadb is MariaDB's, from 10.6 on.
type mariadb struct{ info Info }

func (mariadb) BinlogEnd(ctx context.Context, q Querier) (change.FilePosition, error) {
	return binlogEnd(ctx, q, "SHOW MASTER STATUS")
}

// Position is gtid_binlog_pos with every domain: gtid_current_pos leaves out what the binlog has and adds what it has not.
func (mariadb) Position(ctx context.Context, q Querier) (change.GTIDSet, error) {
	return position(ctx, q, change.MariaDB, "SELECT @@GLOBAL.gtid_binlog_pos")
}

func (mariadb) Purged(ctx context.Context, q Querier) (change.GTIDSet, error) {
	first, err := firstRow(ctx, q, "SHOW BINARY LOGS")
	if err != nil {
		return change.GTIDSet{}, Fault(err, "list the binlogs")
	}
	if len(first) == 0 {
		return change.GTIDSet{}, binlogOff()
	}
	// Position 4 is the beginning of every file; "" is returned for the very first file of a history.
	return position(ctx, q, change.MariaDB, "SELECT COALESCE(BINLOG_GTID_POS("+QuoteText(first[0].String)+", 4), '')")
}

func (d mariadb) ApplySession(ctx context.Context, q Querier, s Session) error {
	statements := append(s.statements(), "SET SESSION max_statement_time = 0")
	if d.info.Has("innodb_snapshot_isolation") {
		// On, a locking read of a row that changed since the snapshot fails with error 1020 instead of reading it.
		statements = append(statements, "SET SESSION innodb_snapshot_isolation = OFF")
	}
	if err := execAll(ctx, q, statements); err != nil {
		return err
	}
	// Without BINLOG ADMIN it stays on: every replayed statement is then logged a second time as text, which costs room
	// and nothing else.
	_, err := q.ExecContext(ctx, "SET SESSION binlog_annotate_row_events = OFF")
	if err != nil && !isNumber(err, 1227) {
		return Fault(err, "prepare session: switch row annotations off")
	}
	return nil
}

func (mariadb) Listing() Listing { return ListsValues }

func (mariadb) AfterFormat() string { return "" }

// ReplayNames: from binary, the server checks a string literal byte by byte for being utf8mb3; from latin1 it copies ASCII a
// word at a time. Results and errors stay as they are.
func (mariadb) ReplayNames() string { return "SET NAMES binary, character_set_client = latin1" }

// ReplayStored uses the two fragments of BINLOG; the second stays empty. It must not be prepared: run again, a prepared
// one takes the names of its variables from memory that is no longer theirs, and fails with error 1232.
func (mariadb) ReplayStored() (store, replay string) {
	return "SET @replicator_events = ?, @replicator_rest = ''", "BINLOG @replicator_events, @replicator_rest"
}

func (mariadb) CanReplay(ctx context.Context, q Querier) (bool, error) { return canReplay(ctx, q) }

func (mariadb) FreezePrivilege() string { return "RELOAD" }

func (mariadb) UnloggedPrivilege() string { return "BINLOG ADMIN" }

func (mariadb) CopySession() []string {
	return []string{"SET SESSION idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0, idle_write_transaction_timeout = 0"}
}
