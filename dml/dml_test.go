package dml

import (
	"context"
	"database/sql"
	"testing"

	"replicator/change"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
	"replicator/server"
)

const my, ma = sandbox.MySQL97, sandbox.MariaDB118

// session is a session as package server opens it, in which statements of this package run.
func session(t testing.TB, s *sandbox.Server) *sql.Conn {
	t.Helper()
	conn, err := s.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for _, q := range []string{
		"SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'", "SET NAMES utf8mb4",
		"SET SESSION time_zone = '+00:00'",
	} {
		if _, err := conn.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

func planFor(t testing.TB, conn *sql.Conn, source *change.Table, target change.TableName, mixed bool) (*Plan, error) {
	t.Helper()
	table, err := server.OneTable(t.Context(), conn, target)
	if err != nil {
		t.Fatal(err)
	}
	return NewPlan(source, table, mixed)
}

// execute runs a statement, in the mode that it needs.
func execute(t testing.TB, conn *sql.Conn, s *Statement) error {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if s.Loose {
		if _, err := conn.ExecContext(ctx, "SET @strict = @@sql_mode, SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"); err != nil {
			t.Fatal(err)
		}
		defer func() { // the values are named by their numbers, and strict mode is for the rest
			if _, err := conn.ExecContext(ctx, "SET SESSION sql_mode = @strict"); err != nil {
				t.Error(err)
			}
		}()
	}
	_, err := conn.ExecContext(ctx, string(s.Text), s.Args...)
	return err
}

// write carries a log out, statement by statement.
func write(t testing.TB, target *sandbox.Server, log imagetest.Log, mixed bool) error {
	t.Helper()
	conn := session(t, target)
	for _, ev := range log.Events {
		p, err := planFor(t, conn, ev.Table, ev.Table.Name, mixed)
		if err != nil {
			return err
		}
		for _, r := range ev.Rows {
			s, err := p.RenderOp(image.Op{Kind: ev.Kind, Before: ev.Before(r), After: ev.After(r)})
			if err != nil {
				return err
			}
			if err := execute(t, conn, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// contents are the exact texts of a table's rows, by row and column.
func contents(t testing.TB, s *sandbox.Server, query string) [][]string {
	t.Helper()
	rows, err := session(t, s).QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for rows.Next() {
		values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		row := make([]string, len(values))
		for i, v := range values {
			row[i] = "NULL"
			if v.Valid {
				row[i] = v.String
			}
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
