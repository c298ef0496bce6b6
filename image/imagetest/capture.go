// Package imagetest reads the rows events that a real server logs while a test changes its tables.
package imagetest

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"replicator/change"
	"replicator/image"
	"replicator/sandbox"
)

// Log is what a server logged.
type Log struct {
	Format *change.Format
	Events []*change.RowsEvent // split, without keys; equal definitions share one Table
}

// readTimeout bounds the wait for events that the server has logged already.
const readTimeout = 30 * time.Second

// pseudoReplica is the server id of the reader; no test runs two readers on one server at once.
const pseudoReplica = 4000000001

// Exec runs statements on one connection of s and fails the test when one fails.
func Exec(tb testing.TB, s *sandbox.Server, statements ...string) {
	tb.Helper()
	ctx := tb.Context()
	conn, err := s.DB().Conn(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	for _, q := range statements {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			tb.Fatalf("%s on %s: %v", q, s.Name(), err)
		}
	}
}

// position is the end of the server's binlog.
func position(tb testing.TB, s *sandbox.Server) mysql.Position {
	tb.Helper()
	query := "SHOW BINARY LOG STATUS"
	if s.Flavor().MariaDB() {
		query = "SHOW MASTER STATUS"
	}
	rows, err := s.DB().QueryContext(tb.Context(), query)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		tb.Fatal(err)
	}
	var p mysql.Position
	var rest any
	into := []any{&p.Name, &p.Pos}
	for range len(columns) - 2 {
		into = append(into, &rest)
	}
	if !rows.Next() {
		tb.Fatalf("%s has no binlog", s.Name())
	}
	if err := rows.Scan(into...); err != nil {
		tb.Fatal(err)
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	return p
}

// Capture returns what s logs while run runs.
func Capture(tb testing.TB, s *sandbox.Server, run func()) Log {
	tb.Helper()
	start := position(tb, s)
	run()
	end := position(tb, s)
	flavor := mysql.MySQLFlavor
	if s.Flavor().MariaDB() {
		flavor = mysql.MariaDBFlavor
	}
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: pseudoReplica, Flavor: flavor, Host: "127.0.0.1", Port: uint16(s.Port()), User: "root",
		Password: s.Password(), RawModeEnabled: true, DisableRetrySync: true, VerifyChecksum: true,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	defer syncer.Close()
	stream, err := syncer.StartSync(start)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), readTimeout)
	defer cancel()
	c := capture{tb: tb, tables: map[uint64]*change.Table{}}
	for {
		e, err := stream.GetEvent(ctx)
		if err != nil {
			tb.Fatalf("read the binlog of %s: %v", s.Name(), err)
		}
		c.event(e)
		if c.log.Format != nil && e.Header.LogPos >= end.Pos && e.Header.EventType != replication.FORMAT_DESCRIPTION_EVENT {
			return c.log
		}
	}
}

type capture struct {
	tb     testing.TB
	log    Log
	all    []*change.Table
	tables map[uint64]*change.Table // by table id
}

func (c *capture) event(e *replication.BinlogEvent) {
	c.tb.Helper()
	raw := e.RawData
	switch e.Header.EventType {
	case replication.FORMAT_DESCRIPTION_EVENT:
		c.log.Format = &change.Format{Event: raw, Checksum: raw[len(raw)-5] == 1}
	case replication.TABLE_MAP_EVENT:
		c.tables[mysql.FixedLengthInt(raw[19:25])] = c.table(raw)
	case replication.WRITE_ROWS_EVENTv1, replication.UPDATE_ROWS_EVENTv1, replication.DELETE_ROWS_EVENTv1,
		replication.WRITE_ROWS_EVENTv2, replication.UPDATE_ROWS_EVENTv2, replication.DELETE_ROWS_EVENTv2:
		ev := &change.RowsEvent{Table: c.tables[mysql.FixedLengthInt(raw[19:25])], Data: raw}
		if err := image.Split(ev, c.log.Format.Checksum); err != nil {
			c.tb.Fatal(err)
		}
		c.log.Events = append(c.log.Events, ev)
	default: // commits, rotations and the like
	}
}

func (c *capture) table(raw []byte) *change.Table {
	c.tb.Helper()
	for _, t := range c.all {
		if image.SameDefinition(t.MapEvent, raw, c.log.Format.Checksum) {
			return t
		}
	}
	t, err := image.ParseTable(raw, c.log.Format.Checksum)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.all = append(c.all, t)
	return t
}
