package applier

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"replicator/change"
	"replicator/dml"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
	"replicator/server"
)

// applySession is a session as the applier has it.
func applySession(t testing.TB, s *sandbox.Server) (*sql.Conn, server.Dialect, server.Info) {
	t.Helper()
	ctx := t.Context()
	settings, err := mysql.ParseDSN(s.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	settings.ClientFoundRows = true
	db, err := sql.Open("mysql", settings.FormatDSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	info, err := server.Probe(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	dialect := server.NewDialect(info)
	if err := dialect.ApplySession(ctx, conn, server.Session{LockWait: 5e9, Wait: 600e9}); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{strictMode, "SET NAMES utf8mb4", "SET SESSION time_zone = '+00:00'"} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	return conn, dialect, info
}

const (
	testPacket = 64 << 20
	sorted     = "portable, sorted" // the portable path where nobody looks at rows meanwhile
)

// portableFor is a portable writer for a session that no transaction is open on yet.
func portableFor(conn *sql.Conn, dialect server.Dialect, on execer, mixed bool, packet int, path string) *portableWriter {
	w := newPortableWriter(on, targetTables(conn), mixed, packet, dialect.Listing(), newSorter(newShapes(NewDefinitions(), conn)))
	w.ahead = path == sorted
	return w
}

// targetTable reads a definition from the server.
func targetTables(conn *sql.Conn) tableFinder {
	known := map[change.TableName]*server.Table{}
	return func(ctx context.Context, name change.TableName) (*server.Table, error) {
		if t, ok := known[name]; ok {
			return t, nil
		}
		t, err := server.OneTable(ctx, conn, name)
		known[name] = t
		return t, err
	}
}

// apply carries a log out through one of the two writers, in one transaction.
func apply(t testing.TB, target *sandbox.Server, log imagetest.Log, path string, mixed bool) error {
	t.Helper()
	ctx := t.Context()
	conn, dialect, _ := applySession(t, target)
	defer func() { // a connection goes back to the pool as it is
		if _, err := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK"); err != nil {
			t.Error(err)
		}
	}()
	var w writer
	tables := targetTables(conn)
	if path == Replay {
		if _, err := conn.ExecContext(ctx, dialect.ReplayNames()); err != nil {
			return err
		}
		r := newReplayWriter(conn, dialect, testPacket)
		r.ahead = true
		if err := r.prepare(ctx, log.Format); err != nil {
			return err
		}
		w = r
	} else {
		w = portableFor(conn, dialect, conn, mixed, testPacket, path)
	}
	defer w.reset()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	for _, ev := range reused(log.Events) {
		byKey := false
		if path == Replay {
			target, err := tables(ctx, ev.Table.Name)
			if err != nil {
				return err
			}
			if ok, reason := dml.SameLayout(ev.Table, target); !ok {
				return fmt.Errorf("not replayable: %s", reason)
			}
			byKey = !target.Derived
		}
		if err := w.write(ctx, rowChanges{Event: ev, Format: log.Format, ByKey: byKey}); err != nil {
			return err
		}
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	_, err := conn.ExecContext(ctx, "COMMIT")
	return err
}

// captureKeyed captures events as the tailer gives them: with the keys of their rows.
func captureKeyed(t testing.TB, s *sandbox.Server, run func()) imagetest.Log {
	t.Helper()
	log := imagetest.Capture(t, s, run)
	info, err := server.Probe(t.Context(), s.DB())
	if err != nil {
		t.Fatal(err)
	}
	keyer := image.NewKeyer(server.NewWeigher(s.DB(), info.Flavor))
	for _, ev := range log.Events {
		if err := keyer.Keys(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
	}
	return log
}

// reused hands out events as a large transaction does that waits in a file: each in the memory of the one before.
func reused(events []*change.RowsEvent) iter.Seq2[int, *change.RowsEvent] {
	var ev change.RowsEvent
	return func(yield func(int, *change.RowsEvent) bool) {
		for i, e := range events {
			ev = change.RowsEvent{
				Table: e.Table, Kind: e.Kind, Data: append(ev.Data[:0], e.Data...), Rows: append(ev.Rows[:0], e.Rows...),
			}
			if !yield(i, &ev) {
				return
			}
		}
	}
}

// contents are the exact texts of a table's rows, by row and column.
func contents(t *testing.T, s *sandbox.Server, query string) [][]string {
	t.Helper()
	conn, _, _ := applySession(t, s)
	rows, err := conn.QueryContext(t.Context(), query)
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

func short(s string) string {
	if len(s) > 120 {
		return s[:120] + fmt.Sprintf("… (%d)", len(s))
	}
	return s
}

func compareContents(t *testing.T, what string, table imagetest.TypesTable, want, got [][]string) {
	t.Helper()
	if len(want) != len(got) || len(want) == 0 {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for i := range want {
		for j := range want[i] {
			if want[i][j] != got[i][j] {
				name := "key"
				if j >= 3 {
					name = table.Columns[j-3].Name
				}
				t.Errorf("%s, row %s, column %s: %s, want %s", what, want[i][0], name, short(got[i][j]), short(want[i][j]))
			}
		}
	}
}

// stage is one kind of change, with what the table held after it.
type stage struct {
	name string
	log  imagetest.Log
	want [][]string
}

// record makes all changes on the source and keeps what it logged.
func record(t *testing.T, source *sandbox.Server, table imagetest.TypesTable) []stage {
	t.Helper()
	imagetest.Exec(t, source, "CREATE DATABASE IF NOT EXISTS types", "SET NAMES utf8mb4", "DROP TABLE IF EXISTS "+table.Name, table.Create())
	var stages []stage
	for _, s := range []struct {
		name       string
		statements []string
	}{{"inserted", table.Fill()}, {"updated", table.Change()}, {"deleted", table.Delete()}} {
		log := captureKeyed(t, source, func() { imagetest.Exec(t, source, s.statements...) })
		stages = append(stages, stage{s.name, log, contents(t, source, table.Select())})
	}
	return stages
}

// TestAllTypes copies a table of all types over both paths, on one flavor and between flavors, and compares what the
// servers themselves say of every value.
func TestAllTypes(t *testing.T) {
	servers := map[sandbox.Flavor]*sandbox.Server{}
	for _, f := range sandbox.Flavors {
		servers[f] = sandbox.StartTest(t, sandbox.Options{Flavor: f})
		imagetest.Exec(t, servers[f], "CREATE DATABASE types")
	}
	cases := []struct {
		source, target sandbox.Flavor
		path           string
		without        []string // columns whose text MySQL writes in its own way
	}{
		{sandbox.MySQL97, sandbox.MySQL97, Replay, nil},
		{sandbox.MySQL97, sandbox.MySQL97, Portable, nil},
		{sandbox.MySQL97, sandbox.MySQL97, sorted, nil},
		{sandbox.MariaDB118, sandbox.MariaDB118, Replay, nil},
		{sandbox.MariaDB118, sandbox.MariaDB118, Portable, nil},
		{sandbox.MariaDB118, sandbox.MariaDB118, sorted, nil},
		{sandbox.MariaDB1011, sandbox.MariaDB1011, Replay, nil},
		{sandbox.MariaDB1011, sandbox.MariaDB1011, Portable, nil},
		{sandbox.MariaDB1011, sandbox.MariaDB1011, sorted, nil},
		{sandbox.MariaDB1011, sandbox.MariaDB118, Replay, nil},
		{sandbox.MariaDB118, sandbox.MariaDB1011, Replay, nil},
		{sandbox.MySQL97, sandbox.MariaDB118, Portable, nil},
		{sandbox.MySQL97, sandbox.MariaDB118, sorted, nil},
		{sandbox.MySQL97, sandbox.MariaDB1011, Portable, nil},
		{sandbox.MariaDB118, sandbox.MySQL97, Portable, []string{"j"}},
		{sandbox.MariaDB118, sandbox.MySQL97, sorted, []string{"j"}},
		{sandbox.MariaDB1011, sandbox.MySQL97, Portable, []string{"j"}},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s to %s %s", c.source, c.target, c.path), func(t *testing.T) {
			source, target := servers[c.source], servers[c.target]
			table := imagetest.TypesFor("types.t", c.source, c.target).Without(c.without...)
			stages := record(t, source, table)
			imagetest.Exec(t, target, "SET NAMES utf8mb4", "DROP TABLE IF EXISTS "+table.Name, table.Create())
			mixed := strings.HasPrefix(string(c.source), "mysql") != strings.HasPrefix(string(c.target), "mysql")
			for _, s := range stages {
				if err := apply(t, target, s.log, c.path, mixed); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				compareContents(t, s.name, table, s.want, contents(t, target, table.Select()))
			}
		})
	}
}

// notListed are the types of which a list of rows does not keep every value.
var notListed = []string{
	"SET", "JSON", "POINT", "LINESTRING", "POLYGON", "MULTI", "GEOM", "VECTOR", "UUID", "INET",
}

// TestListedTypes writes every value of all other types with one statement, in which its neighbours tell the type of a
// column together with it.
func TestListedTypes(t *testing.T) {
	servers := map[sandbox.Flavor]*sandbox.Server{}
	for _, f := range sandbox.Flavors {
		servers[f] = sandbox.StartTest(t, sandbox.Options{Flavor: f})
		imagetest.Exec(t, servers[f], "CREATE DATABASE types")
	}
	for _, c := range [][2]sandbox.Flavor{
		{my, my}, {ma, ma}, {sandbox.MariaDB1011, sandbox.MariaDB1011}, {my, ma}, {ma, my}, {my, sandbox.MariaDB1011},
	} {
		t.Run(fmt.Sprintf("%s to %s", c[0], c[1]), func(t *testing.T) {
			table := imagetest.TypesFor("types.t", c[0], c[1])
			table.Columns = slices.DeleteFunc(table.Columns, func(c imagetest.Column) bool {
				return slices.ContainsFunc(notListed, func(kind string) bool { return strings.HasPrefix(c.Type, kind) })
			})
			if n := len(table.Columns); n < 60 {
				t.Fatalf("%d columns", n)
			}
			mixed := strings.HasPrefix(string(c[0]), "mysql") != strings.HasPrefix(string(c[1]), "mysql")
			for most := 12; most > 0; most-- { // the fewer values, the narrower the types
				for i := range table.Columns {
					table.Columns[i].Values = shortValues(&table.Columns[i], most)
				}
				if n := listStatements(t, servers[c[0]], servers[c[1]], table, mixed); n != 1 {
					t.Errorf("%d statements update all rows, want 1", n)
				}
			}
		})
	}
}

// shortValues are values of a column that need not stand alone.
func shortValues(c *imagetest.Column, most int) []string {
	values := slices.DeleteFunc(slices.Clone(c.Values), func(v string) bool {
		return strings.Contains(v, "REPEAT") || strings.HasPrefix(c.Type, "ENUM") && v == "0"
	})
	return values[:min(most, len(values))]
}

// listStatements fills and changes a table, compares, and returns how many statements have updated lists of rows.
func listStatements(t *testing.T, source, target *sandbox.Server, table imagetest.TypesTable, mixed bool) (n int) {
	t.Helper()
	stages := record(t, source, table)
	imagetest.Exec(t, target, "SET NAMES utf8mb4", "DROP TABLE IF EXISTS "+table.Name, table.Create())
	for _, s := range stages {
		conn, dialect, _ := applySession(t, target)
		count := &counting{Conn: conn}
		w := portableFor(conn, dialect, count, mixed, testPacket, sorted)
		for _, ev := range reused(s.log.Events) {
			if err := w.write(t.Context(), rowChanges{Event: ev, Format: s.log.Format}); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
		}
		if err := w.flush(t.Context()); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		for _, q := range count.statements {
			if strings.HasPrefix(q, "UPDATE (") {
				n++
			}
		}
		compareContents(t, s.name, table, s.want, contents(t, target, table.Select()))
	}
	return n
}

// A table that was asked for before it was there is found as soon as it is, whether its DDL has been read or not.
func TestAbsenceIsNotRemembered(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: ma})
	imagetest.Exec(t, s, "CREATE DATABASE w")
	d, name := NewDefinitions(), change.TableName{Database: "w", Table: "late"}
	for i, exists := range []bool{false, true, true} {
		if i == 1 {
			imagetest.Exec(t, s, "CREATE TABLE w.late (id INT PRIMARY KEY)")
		}
		if found, err := d.Table(t.Context(), s.DB(), name); err != nil || (found != nil) != exists {
			t.Errorf("time %d: %v, %v", i, found, err)
		}
	}
}
