// Package checkpoint keeps what the replicator must remember in the servers themselves, in the schema replicator: who a
// server is and when it was born, how far each source has been applied (the marker, in the rows' own transaction), and
// from where the owner rebuilds its change index (the frontier).
package checkpoint

import (
	"context"
	"database/sql"
	"fmt"

	"replicator/change"
	"replicator/fault"
)

// Schema is the database that holds the replicator's tables on every server. It is never replicated; tailers read what
// they need of it from the binlog.
const Schema = "replicator"

// The tables that tailers read.
var (
	MarkerTable    = change.TableName{Database: Schema, Table: "marker"}
	HeartbeatTable = change.TableName{Database: Schema, Table: "heartbeat"}
	TombstoneTable = change.TableName{Database: Schema, Table: "tombstone"}
	IdentityTable  = change.TableName{Database: Schema, Table: "identity"}
)

// Querier runs statements: a *sql.DB, *sql.Conn or *sql.Tx.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// migrations lists the statements that lead from version i to version i+1. Steps are only ever added. Each statement can
// be run again after a crash in the middle of its step, because DDL commits by itself.
var migrations = [][]string{
	{
		`CREATE TABLE IF NOT EXISTS replicator.identity (
  singleton   TINYINT NOT NULL PRIMARY KEY COMMENT 'always 1',
  id          VARBINARY(16) NOT NULL COMMENT 'the server''s identity in its mesh',
  mesh        VARCHAR(64) NOT NULL,
  position    LONGBLOB NOT NULL COMMENT 'birth: every reader of this server begins here',
  clock       BIGINT NOT NULL COMMENT 'birth: start of the folded clock, microseconds since 1970',
  settings    TEXT NOT NULL COMMENT 'what the folded clock depends on',
  server_uuid VARCHAR(64) NOT NULL COMMENT 'the server that was given this identity',
  born_at     DATETIME(6) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
		`CREATE TABLE IF NOT EXISTS replicator.marker (
  source     VARBINARY(16) NOT NULL COMMENT 'whose binlog was read',
  seq        BIGINT UNSIGNED NOT NULL COMMENT 'numbers the commits of this source here',
  position   LONGBLOB NOT NULL COMMENT 'covered GTID set of the source up to and including this commit',
  clock      BLOB NOT NULL COMMENT 'folded clock of the source at that position',
  manifest   LONGBLOB NOT NULL COMMENT 'source transactions inside this commit',
  owner      VARBINARY(16) NOT NULL COMMENT 'the process start that committed it',
  applied_at DATETIME(6) NOT NULL,
  PRIMARY KEY (source, seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
		`CREATE TABLE IF NOT EXISTS replicator.frontier (
  singleton TINYINT NOT NULL PRIMARY KEY COMMENT 'always 1',
  position  LONGBLOB NOT NULL COMMENT 'own GTID set before which every change is stable',
  clock     BLOB NOT NULL COMMENT 'own folded clock at that position'
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
		`CREATE TABLE IF NOT EXISTS replicator.heartbeat (
  singleton TINYINT NOT NULL PRIMARY KEY COMMENT 'always 1',
  context   BLOB NOT NULL COMMENT 'per origin, the time up to which this server has applied it',
  beat_at   DATETIME(6) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
	},
	{
		`CREATE TABLE IF NOT EXISTS replicator.conflict (
  seq            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  id             BINARY(8) NOT NULL COMMENT 'the conflict, the same on every server',
  decided_at     DATETIME(6) NOT NULL,
  database_name  VARCHAR(64) NOT NULL,
  table_name     VARCHAR(64) NOT NULL,
  row_key        VARBINARY(16) NOT NULL COMMENT 'hash of table and primary key',
  key_columns    LONGTEXT NOT NULL COMMENT 'JSON: the primary key as people read it',
  kind           VARCHAR(32) NOT NULL,
  policy         VARCHAR(32) NOT NULL,
  winner_origin  VARBINARY(16) NULL COMMENT 'NULL: not known',
  winner_time    BIGINT NULL COMMENT 'version: microseconds since 1970',
  winner_gtid    VARCHAR(128) NULL,
  winner_user    TEXT NULL,
  winner_comment TEXT NULL,
  winner_row     LONGBLOB NULL COMMENT 'NULL: there is no row',
  loser_origin   VARBINARY(16) NULL,
  loser_time     BIGINT NULL,
  loser_gtid     VARCHAR(128) NULL,
  loser_user     TEXT NULL,
  loser_comment  TEXT NULL,
  loser_row      LONGBLOB NULL,
  columns        LONGTEXT NOT NULL COMMENT 'JSON: the columns in which the rows differ',
  restorable     TINYINT NOT NULL,
  bytes          BIGINT NOT NULL COMMENT 'what this entry takes, for trimming',
  state          VARCHAR(16) NOT NULL COMMENT 'open, acknowledged or restored',
  state_at       DATETIME(6) NULL,
  notified       TINYINT NOT NULL DEFAULT 0 COMMENT '1: everybody concerned has been told',
  UNIQUE KEY id (id),
  KEY untold (notified, seq),
  KEY state (state, seq, id),
  KEY age (decided_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
		`CREATE TABLE IF NOT EXISTS replicator.notice (
  id         BINARY(8) NOT NULL COMMENT 'the conflict',
  party      VARBINARY(320) NOT NULL COMMENT 'who is told: an address or the webhook',
  claimed_by VARBINARY(16) NOT NULL COMMENT 'the process start that tells',
  claimed_at DATETIME(6) NOT NULL,
  sent_at    DATETIME(6) NULL,
  message    VARCHAR(255) NULL COMMENT 'Message-ID',
  PRIMARY KEY (id, party),
  KEY party (party, sent_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
		`CREATE TABLE IF NOT EXISTS replicator.tombstone (
  id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  database_name VARCHAR(64) NOT NULL,
  table_name    VARCHAR(64) NOT NULL,
  row_key       VARBINARY(16) NOT NULL COMMENT 'hash of table and primary key',
  reason        VARCHAR(32) NOT NULL COMMENT 'the kind of conflict that is settled',
  key_columns   LONGBLOB NULL COMMENT 'definition and values of the primary key; NULL: the row does not leave',
  clock         BIGINT NOT NULL COMMENT 'the transaction is newer than this',
  origin        VARBINARY(16) NULL COMMENT 'version of the change whose value is stated again or, of a row that leaves, that is taken back',
  time          BIGINT NULL,
  written_at    DATETIME(6) NOT NULL,
  KEY age (written_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
	},
	{
		`CREATE TABLE IF NOT EXISTS replicator.policies (
  singleton TINYINT NOT NULL PRIMARY KEY COMMENT 'always 1',
  policies  LONGTEXT NOT NULL COMMENT 'JSON: by what the owner decides conflicts here',
  since     DATETIME(6) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
	},
	{
		`CREATE TABLE IF NOT EXISTS replicator.resync (
  id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  database_name VARCHAR(64) NOT NULL,
  table_name    VARCHAR(64) NOT NULL,
  source        VARBINARY(16) NOT NULL COMMENT 'the server whose rows this one gets',
  conditions    LONGTEXT NOT NULL COMMENT 'SQL: the rows that are meant; empty: all',
  throttle      BIGINT NOT NULL COMMENT 'rows a second that are compared, at most; 0: no limit',
  state         VARCHAR(16) NOT NULL COMMENT 'waiting, running, done, failed or cancelled',
  note          TEXT NULL COMMENT 'what it waits for, or why it failed',
  reached       LONGBLOB NULL COMMENT 'key of the last row that is done; NULL: none',
  definition    VARCHAR(64) NOT NULL DEFAULT '' COMMENT 'of the table, by which it was done: a hash',
  total         BIGINT NULL COMMENT 'rows that there are, about',
  compared      BIGINT NOT NULL DEFAULT 0,
  inserted      BIGINT NOT NULL DEFAULT 0,
  updated       BIGINT NOT NULL DEFAULT 0,
  deleted       BIGINT NOT NULL DEFAULT 0,
  newer         BIGINT NOT NULL DEFAULT 0 COMMENT 'rows about which a later change decides',
  moving        BIGINT NOT NULL DEFAULT 0 COMMENT 'rows that never stood still',
  asked_at      DATETIME(6) NOT NULL,
  started_at    DATETIME(6) NULL,
  seen_at       DATETIME(6) NULL COMMENT 'when it was worked on last',
  ended_at      DATETIME(6) NULL,
  KEY state (state, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
	},
	{
		`CREATE TABLE IF NOT EXISTS replicator.verification (
  kind          VARCHAR(16) NOT NULL COMMENT 'result: of a table; progress: of a comparison under way; finding: to be told; schedule',
  id            VARBINARY(16) NOT NULL COMMENT 'of a progress the comparison, of a finding its own, else empty',
  database_name VARCHAR(64) NOT NULL COMMENT 'empty: not of one table',
  table_name    VARCHAR(64) NOT NULL,
  began_at      DATETIME(6) NOT NULL COMMENT 'what differed then has been found',
  saved_at      DATETIME(6) NOT NULL,
  is_equal      TINYINT NULL COMMENT 'of a result',
  detail        LONGBLOB NULL COMMENT 'JSON',
  notified      TINYINT NOT NULL DEFAULT 1 COMMENT '0: a finding that not everybody concerned has been told',
  PRIMARY KEY (kind, id, database_name, table_name),
  KEY age (kind, saved_at),
  KEY untold (notified)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
	},
	{
		`CREATE TABLE IF NOT EXISTS replicator.reading (
  id       BIGINT UNSIGNED NOT NULL PRIMARY KEY COMMENT 'the greatest is the newest; of older ones fewer and fewer stay',
  position LONGBLOB NOT NULL COMMENT 'own GTID set up to which the owner had read its binlog',
  clock    BLOB NOT NULL COMMENT 'own folded clock at that position',
  sources  TEXT NOT NULL COMMENT 'servers with links to this one, as its owner was configured',
  cloning  TEXT NOT NULL COMMENT 'of these: those that were being cloned',
  saved_at DATETIME(6) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
		`CREATE TABLE IF NOT EXISTS replicator.clone (
  singleton TINYINT NOT NULL PRIMARY KEY COMMENT 'always 1',
  source    VARBINARY(16) NOT NULL COMMENT 'the server whose rows this one gets, or got',
  was       VARBINARY(16) NULL COMMENT 'the identity that this server had before',
  id        VARBINARY(16) NULL COMMENT 'the identity that it was given',
  position  LONGBLOB NOT NULL COMMENT 'own GTID set when it began',
  seq       BIGINT UNSIGNED NOT NULL COMMENT 'greater than the number of any marker before',
  begun_at  DATETIME(6) NOT NULL,
  ended_at  DATETIME(6) NULL COMMENT 'NULL: the server takes no part in the mesh yet'
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
	},
}

// SchemaVersion is the version of the replicator schema that this program creates and understands.
func SchemaVersion() int { return len(migrations) }

// Migrate creates the replicator schema on a server or brings it to this program's version. Several processes may call it
// at once. A schema that is newer than the program is refused.
func Migrate(ctx context.Context, conn *sql.Conn) error {
	const lock = "replicator.migrate"
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, 30)", lock).Scan(&got); err != nil {
		return fmt.Errorf("lock the replicator schema for migration: %w", err)
	}
	if got.Int64 != 1 {
		return fault.New(fault.Busy, "wait: it is tried again", "another process migrates the replicator schema")
	}
	// The lock also ends with the session, so a failure here is harmless.
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "DO RELEASE_LOCK(?)", lock) }()

	version, err := currentVersion(ctx, conn)
	if err != nil {
		return err
	}
	if version > len(migrations) {
		return fault.New(fault.Precondition, "run the replicator version that created it, or a later one",
			"the schema replicator has version %d, this program knows up to %d", version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		for _, statement := range migrations[version] {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("migrate the replicator schema to version %d: %w", version+1, err)
			}
		}
		if _, err := conn.ExecContext(ctx,
			"INSERT INTO replicator.schema_version (version, applied_at) VALUES (?, UTC_TIMESTAMP(6))", version+1); err != nil {
			return fmt.Errorf("record version %d of the replicator schema: %w", version+1, err)
		}
	}
	return nil
}

func currentVersion(ctx context.Context, conn *sql.Conn) (int, error) {
	var exists int
	const find = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = 'schema_version'"
	if err := conn.QueryRowContext(ctx, find, Schema).Scan(&exists); err != nil {
		return 0, fmt.Errorf("look for the replicator schema: %w", err)
	}
	if exists == 0 {
		for _, statement := range []string{
			"CREATE DATABASE IF NOT EXISTS replicator",
			`CREATE TABLE IF NOT EXISTS replicator.schema_version (
  version    INT NOT NULL PRIMARY KEY,
  applied_at DATETIME(6) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
		} {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return 0, fmt.Errorf("create the replicator schema: %w", err)
			}
		}
	}
	var version int
	if err := conn.QueryRowContext(ctx, "SELECT COALESCE(MAX(version), 0) FROM replicator.schema_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("read the version of the replicator schema: %w", err)
	}
	return version, nil
}
