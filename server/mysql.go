package server

import (
	"context"

	"replicator/change"
	"replicator/fault"
)

// mysqlDialect is MySQL's, from 8.0 on.
type mysqlDialect struct{ info Info }

// statusStatement has had its name since 8.2; the old one is gone in 8.4.
func (d mysqlDialect) statusStatement() string {
	if d.info.Release.AtLeast(8, 2, 0) {
		return "SHOW BINARY LOG STATUS"
	}
	return "SHOW MASTER STATUS"
}

func (d mysqlDialect) BinlogEnd(ctx context.Context, q Querier) (change.FilePosition, error) {
	return binlogEnd(ctx, q, d.statusStatement())
}

func (mysqlDialect) Position(ctx context.Context, q Querier) (change.GTIDSet, error) {
	return position(ctx, q, change.MySQL, "SELECT @@GLOBAL.gtid_executed")
}

func (mysqlDialect) Purged(ctx context.Context, q Querier) (change.GTIDSet, error) {
	return position(ctx, q, change.MySQL, "SELECT @@GLOBAL.gtid_purged")
}

func (d mysqlDialect) ApplySession(ctx context.Context, q Querier, s Session) error {
	statements := append(s.statements(), "SET SESSION max_execution_time = 0")
	return execAll(ctx, q, statements)
}

// Listing: MySQL 8.0.19 brought the table value constructor.
func (d mysqlDialect) Listing() Listing {
	if d.info.Release.AtLeast(8, 0, 19) {
		return ListsRows
	}
	return NoListing
}

// AfterFormat undoes what replaying a FORMAT_DESCRIPTION event does to the session: it sets gtid_next to ANONYMOUS, and
// with gtid_mode=ON the next transaction would fail with error 1782.
func (mysqlDialect) AfterFormat() string { return "SET SESSION gtid_next = 'AUTOMATIC'" }

func (mysqlDialect) ReplayNames() string { return "SET NAMES binary" }

func (mysqlDialect) ReplayStored() (store, replay string) { return "", "" }

func (mysqlDialect) CanReplay(ctx context.Context, q Querier) (bool, error) { return canReplay(ctx, q) }

func binlogOff() error {
	return fault.New(fault.Precondition, "start the server with log_bin", "the binlog is off")
}

func (mysqlDialect) FreezePrivilege() string { return "RELOAD" }

func (mysqlDialect) UnloggedPrivilege() string { return "SESSION_VARIABLES_ADMIN" }

func (mysqlDialect) CopySession() []string {
	return []string{"SET SESSION information_schema_stats_expiry = 0"}
}
