package applier

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
	"replicator/server"
)

const my, ma = sandbox.MySQL97, sandbox.MariaDB118

// counting counts the statements of a writer.
type counting struct {
	*sql.Conn
	statements []string
}

func (c *counting) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	c.statements = append(c.statements, query)
	return c.Conn.ExecContext(ctx, query, args...)
}

// TestWriters is what both writers owe to the link: order, errors that can be told apart, bounded statements.
func TestWriters(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
		imagetest.Exec(t, s, "CREATE DATABASE w")
		for _, path := range []string{Replay, Portable, sorted} {
			t.Run(string(flavor)+"/"+path, func(t *testing.T) {
				t.Run("missing row", func(t *testing.T) { writerMissing(t, s, path) })
				t.Run("duplicate", func(t *testing.T) { writerDuplicate(t, s, path) })
				t.Run("cascades", func(t *testing.T) { writerCascades(t, s, path) })
				t.Run("packet", func(t *testing.T) { writerPacket(t, s, path) })
				t.Run("many rows", func(t *testing.T) { writerMany(t, s, path) })
				t.Run("prefix key", func(t *testing.T) { writerPrefix(t, s, path) })
				t.Run("order", func(t *testing.T) { writerOrder(t, s, path) })
				t.Run("long values", func(t *testing.T) { writerLong(t, s, path) })
			})
		}
		t.Run(string(flavor)+"/other order", func(t *testing.T) { writerByName(t, s) })
	}
}

func capture(t *testing.T, s *sandbox.Server, before, change []string) imagetest.Log {
	t.Helper()
	imagetest.Exec(t, s, before...)
	return captureKeyed(t, s, func() { imagetest.Exec(t, s, change...) })
}

var keyed = []string{"DROP TABLE IF EXISTS w.t", "CREATE TABLE w.t (id INT PRIMARY KEY, u INT UNIQUE, v VARCHAR(20))"}

func writerMissing(t *testing.T, s *sandbox.Server, path string) {
	for _, statement := range []string{"UPDATE w.t SET v = 'x' WHERE id = 2", "DELETE FROM w.t WHERE id IN (1, 2)"} {
		log := capture(t, s, append(keyed[:2:2], "INSERT INTO w.t VALUES (1,1,'a'),(2,2,'b')"), []string{statement})
		imagetest.Exec(t, s, append(keyed[:2:2], "INSERT INTO w.t VALUES (1,1,'a')")...)
		if err := apply(t, s, log, path, false); !missingRow(err) {
			t.Errorf("%s: error %v, want a missing row", statement, err)
		}
		if rows := contents(t, s, "SELECT * FROM w.t"); len(rows) != 1 {
			t.Errorf("%s: %v is left", statement, rows)
		}
	}
}

func writerDuplicate(t *testing.T, s *sandbox.Server, path string) {
	for _, present := range []string{"(1,9,'old')", "(9,1,'old')"} {
		log := capture(t, s, keyed, []string{"INSERT INTO w.t VALUES (7,7,'new'),(1,1,'new')"})
		imagetest.Exec(t, s, append(keyed[:2:2], "INSERT INTO w.t VALUES "+present)...)
		if err := apply(t, s, log, path, false); !server.IsDuplicateKey(err) {
			t.Errorf("error %v, want a duplicate key", err)
		}
		if rows := contents(t, s, "SELECT v FROM w.t"); len(rows) != 1 || rows[0][0] != "old" {
			t.Errorf("%v is left", rows)
		}
	}
}

// writerCascades: MySQL 9.7 logs the children of a cascade, with the flag that switches checks off, others do not.
func writerCascades(t *testing.T, s *sandbox.Server, path string) {
	tables := []string{
		"DROP TABLE IF EXISTS w.c, w.p", "CREATE TABLE w.p (id INT PRIMARY KEY)",
		"CREATE TABLE w.c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES w.p (id) ON DELETE CASCADE ON UPDATE CASCADE)",
		"INSERT INTO w.p VALUES (1),(2),(3)", "INSERT INTO w.c VALUES (10,1),(11,1),(20,2),(30,3)",
	}
	log := capture(t, s, tables, []string{"UPDATE w.p SET id = 5 WHERE id = 1", "DELETE FROM w.p WHERE id = 2"})
	want := contents(t, s, "SELECT * FROM w.c ORDER BY id")
	imagetest.Exec(t, s, tables...)
	if err := apply(t, s, log, path, false); err != nil {
		t.Fatal(err)
	}
	got := contents(t, s, "SELECT * FROM w.c ORDER BY id")
	if fmt.Sprint(got) != fmt.Sprint(want) || len(want) != 3 {
		t.Errorf("children %v, want %v", got, want)
	}
}

// writerPacket: a change that is larger than a statement may be is refused with the size that would do.
func writerPacket(t *testing.T, s *sandbox.Server, path string) {
	const packet = 1 << 20
	create := []string{"DROP TABLE IF EXISTS w.big", "CREATE TABLE w.big (id INT PRIMARY KEY, b LONGBLOB)"}
	log := capture(t, s, create, []string{"INSERT INTO w.big VALUES (1, REPEAT('x', 3000000))"})
	conn, dialect, _ := applySession(t, s)
	var w writer = portableFor(conn, dialect, conn, false, packet, path)
	if path == Replay {
		w = newReplayWriter(conn, dialect, packet)
	}
	err := w.write(t.Context(), rowChanges{Event: log.Events[0], Format: log.Format})
	f, ok := fault.As(err)
	if !ok || f.Class != fault.Precondition || !strings.Contains(f.Remedy, "max_allowed_packet") {
		t.Errorf("error %v, want one that names max_allowed_packet", err)
	}
}

// A statement that fails while the next one is gathered stops the writer, and reset makes an end of it.
func TestReplayAheadFails(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			imagetest.Exec(t, s, "CREATE DATABASE w")
			create := []string{"DROP TABLE IF EXISTS w.f", "CREATE TABLE w.f (id INT PRIMARY KEY, v VARCHAR(1000))"}
			var inserts []string
			for id := range 400 {
				inserts = append(inserts, fmt.Sprintf("INSERT INTO w.f VALUES (%d, REPEAT('v', 1000))", id))
			}
			log := capture(t, s, create, inserts)
			imagetest.Exec(t, s, create...)
			imagetest.Exec(t, s, "INSERT INTO w.f VALUES (7, 'in the way')")
			conn, dialect, _ := applySession(t, s)
			w := newReplayWriter(conn, dialect, testPacket)
			w.ahead, w.limit = true, 32<<10
			ctx := t.Context()
			if err := w.prepare(ctx, log.Format); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
				t.Fatal(err)
			}
			written, err := 0, error(nil)
			for _, ev := range log.Events {
				if err = w.write(ctx, rowChanges{Event: ev, Format: log.Format}); err != nil {
					break
				}
				written++
			}
			if !server.IsDuplicateKey(err) || written < 24 || written > 120 {
				t.Errorf("after %d of %d events: %v", written, len(log.Events), err)
			}
			w.reset()
			if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(contents(t, s, "SELECT id, v FROM w.f")); got != "[[7 in the way]]" {
				t.Errorf("left %s", got)
			}
		})
	}
}

// While the target waits for a row lock, the writer takes what comes next.
func TestReplayGathersAhead(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: my})
	imagetest.Exec(t, s, "CREATE DATABASE w")
	create := []string{"DROP TABLE IF EXISTS w.f", "CREATE TABLE w.f (id INT PRIMARY KEY, v VARCHAR(1000))"}
	var inserts []string
	for id := range 40 {
		inserts = append(inserts, fmt.Sprintf("INSERT INTO w.f VALUES (%d, REPEAT('v', 1000))", id))
	}
	log := capture(t, s, create, inserts)
	imagetest.Exec(t, s, create...)
	conn, dialect, _ := applySession(t, s)
	w := newReplayWriter(conn, dialect, testPacket)
	w.ahead, w.limit = true, 32<<10
	ctx := t.Context()
	if err := w.prepare(ctx, log.Format); err != nil {
		t.Fatal(err)
	}
	holder, err := s.DB().BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback() }() // after the end it does nothing
	if _, err := holder.ExecContext(ctx, "INSERT INTO w.f VALUES (0, 'held')"); err != nil {
		t.Fatal(err)
	}
	for _, ev := range log.Events { // one statement is sent, and the rest of the rows is no whole one
		if err := w.write(ctx, rowChanges{Event: ev, Format: log.Format}); err != nil {
			t.Fatal(err)
		}
	}
	if w.sent == nil || len(w.sent) > 0 || w.batch.Len() == 0 {
		t.Errorf("%d bytes are gathered, and the statement before them has been answered", w.batch.Len())
	}
	if err := holder.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := w.flush(ctx); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(contents(t, s, "SELECT COUNT(*) FROM w.f")); got != "[[40]]" {
		t.Errorf("%s rows", got)
	}
}

// writerMany: rows share statements, none of which is larger than it should be.
func writerMany(t *testing.T, s *sandbox.Server, path string) {
	const rows = 2000
	create := []string{"DROP TABLE IF EXISTS w.m", "CREATE TABLE w.m (a INT, b INT, v VARCHAR(500), PRIMARY KEY (a, b))"}
	fill := fmt.Sprintf("INSERT INTO w.m WITH RECURSIVE n AS (SELECT 0 i UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i, -i, REPEAT('v', 400) FROM n", rows-1)
	if s.Flavor().MariaDB() {
		create = append(create, "SET SESSION max_recursive_iterations = 10000")
	} else {
		create = append(create, "SET SESSION cte_max_recursion_depth = 10000")
	}
	log := capture(t, s, create[:2], []string{create[2], fill, "DELETE FROM w.m WHERE a < 1990"})
	imagetest.Exec(t, s, create[:2]...)
	conn, dialect, _ := applySession(t, s)
	count := &counting{Conn: conn}
	var w writer = portableFor(conn, dialect, count, false, testPacket, path)
	if path == Replay {
		r := newReplayWriter(count, dialect, testPacket)
		r.ahead = true
		if err := r.prepare(t.Context(), log.Format); err != nil {
			t.Fatal(err)
		}
		w = r
	}
	for _, ev := range log.Events {
		if err := w.write(t.Context(), rowChanges{Event: ev, Format: log.Format}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, s, "SELECT COUNT(*), MIN(a) FROM w.m"); got[0][0] != "10" || got[0][1] != "1990" {
		t.Errorf("left %v", got)
	}
	if n := len(count.statements); n > 40 {
		t.Errorf("%d statements for %d rows", n, 2*rows)
	}
	_, replay := dialect.ReplayStored()
	most, stored := batchBytes, 0
	if path == Replay && replay == "" {
		most = mostBytes
	}
	for _, q := range count.statements {
		if len(q) > most+statementRoom {
			t.Errorf("a statement has %d bytes", len(q))
		}
		if q == replay {
			stored++
		}
	}
	if path == Replay && replay != "" && stored < 2 {
		t.Errorf("%d of %d statements replay what is stored", stored, len(count.statements))
	}
	if r, ok := w.(*replayWriter); ok && (r.limit != batchBytes || cap(r.text) > 2*batchBytes) {
		t.Errorf("after the end, the next statement is of %d bytes, and %d are kept", r.limit, cap(r.text))
	}
}

func writerPrefix(t *testing.T, s *sandbox.Server, path string) {
	create := []string{"DROP TABLE IF EXISTS w.x", "CREATE TABLE w.x (k TEXT CHARACTER SET utf8mb4, v INT, PRIMARY KEY (k(3)))"}
	log := capture(t, s, append(create[:2:2], "INSERT INTO w.x VALUES ('äöütail', 1), ('abc', 1), ('abd', 1)"),
		[]string{"UPDATE w.x SET v = 2, k = 'äöü!' WHERE v = 1 AND k LIKE 'äöü%'", "DELETE FROM w.x WHERE k = 'abd'"})
	imagetest.Exec(t, s, append(create[:2:2], "INSERT INTO w.x VALUES ('äöü', 1), ('abcd', 1), ('abd', 1)")...)
	if err := apply(t, s, log, path, false); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(contents(t, s, "SELECT k, v FROM w.x ORDER BY k")); got != "[[abcd 1] [äöü! 2]]" {
		t.Errorf("left %s", got)
	}
}

// writerOrder: changes of one row, or of one value of a unique key, come in their order.
func writerOrder(t *testing.T, s *sandbox.Server, path string) {
	create := []string{"DROP TABLE IF EXISTS w.t", "CREATE TABLE w.t (id INT PRIMARY KEY, u VARCHAR(20) UNIQUE, v VARCHAR(20))"}
	fill := "INSERT INTO w.t VALUES (1,'a','1'), (2,'b','2'), (3,'c','3'), (4,NULL,'4'), (5,'e','5')"
	log := capture(t, s, append(create[:2:2], fill), []string{
		"UPDATE w.t SET v = 'x' WHERE id < 4", "UPDATE w.t SET v = 'y' WHERE id < 3", "DELETE FROM w.t WHERE id = 3",
		"INSERT INTO w.t VALUES (3, 'd', 'new')", "UPDATE w.t SET v = 'z' WHERE id = 3",
		"DELETE FROM w.t WHERE id = 1", "INSERT INTO w.t VALUES (9, 'A', 'the value of row 1')",
		"UPDATE w.t SET u = NULL WHERE id = 2", "UPDATE w.t SET u = 'b' WHERE id = 4", "UPDATE w.t SET id = 8 WHERE id = 5",
		"INSERT INTO w.t VALUES (5, 'f', 'the key of row 8')", "UPDATE w.t SET v = 'last' WHERE id IN (5, 8)",
	})
	want := fmt.Sprint(contents(t, s, "SELECT * FROM w.t ORDER BY id"))
	imagetest.Exec(t, s, append(create[:2:2], fill)...)
	if err := apply(t, s, log, path, false); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(contents(t, s, "SELECT * FROM w.t ORDER BY id")); got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
}

// TestListFindsRowsByKey: an update of many rows looks each one up in the primary key, whatever its type and collation.
func TestListFindsRowsByKey(t *testing.T) {
	const rows, changed = 3000, 100
	keys := map[string]string{ // type of the key: a value from n
		"INT": "n", "BIGINT UNSIGNED": "18446744073709551615 - n", "DECIMAL(20,5)": "n + 0.5", "BINARY(4)": "LPAD(n, 4, '0')",
		"VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci": "CONCAT('Schlüssel ', n)",
		"VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin":        "CONCAT('Schlüssel ', n)",
		"CHAR(20) CHARACTER SET latin1 COLLATE latin1_german1_ci":      "CONCAT('Schlüssel ', n)",
		"DATETIME(3)": "'2024-01-01 00:00:00' + INTERVAL n SECOND",
		"INT, m INT DEFAULT 7, PRIMARY KEY (k, m) -- ": "n",
	}
	for _, flavor := range sandbox.Flavors {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
		imagetest.Exec(t, s, "CREATE DATABASE w", "CREATE TABLE w.n (n INT PRIMARY KEY)")
		for n := 0; n < rows; n += 500 {
			var values []string
			for i := range 500 {
				values = append(values, fmt.Sprintf("(%d)", n+i))
			}
			imagetest.Exec(t, s, "INSERT INTO w.n VALUES "+strings.Join(values, ","))
		}
		for kind, value := range keys {
			t.Run(string(flavor)+" "+kind, func(t *testing.T) {
				create := []string{
					"SET NAMES utf8mb4", "DROP TABLE IF EXISTS w.k",
					"CREATE TABLE w.k (k " + kind + " PRIMARY KEY\n, n INT, v VARCHAR(20)) CHARACTER SET utf8mb4",
					"INSERT INTO w.k (k, n, v) SELECT " + value + ", n, 'old' FROM w.n", "ANALYZE TABLE w.k",
				}
				if strings.HasSuffix(kind, "-- ") {
					create[2] = strings.Replace(create[2], " PRIMARY KEY\n", "\n", 1)
				}
				log := capture(t, s, create, []string{fmt.Sprintf("UPDATE w.k SET v = 'new' WHERE n MOD %d = 0", rows/changed)})
				imagetest.Exec(t, s, "UPDATE w.k SET v = 'old' WHERE n MOD 60 = 0") // the others are as they shall be: found all the same
				conn, dialect, _ := applySession(t, s)
				count := &counting{Conn: conn}
				w := portableFor(conn, dialect, count, false, testPacket, sorted)
				read := func() (n int) {
					t.Helper()
					var name string
					if err := conn.QueryRowContext(t.Context(), "SHOW SESSION STATUS LIKE 'Handler_read_rnd_next'").Scan(&name, &n); err != nil {
						t.Fatal(err)
					}
					return n
				}
				before := read()
				for _, ev := range log.Events {
					if err := w.write(t.Context(), rowChanges{Event: ev, Format: log.Format}); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				if n := read() - before; n > 10_000 { // the questions read some thousands
					t.Errorf("%d rows read one after the other to find %d", n, changed)
				}
				if len(count.statements) != 1 {
					t.Errorf("%d statements", len(count.statements))
				}
				if got := contents(t, s, "SELECT COUNT(*) FROM w.k WHERE v = 'new'"); got[0][0] != fmt.Sprint(changed) {
					t.Errorf("%s rows are new, want %d", got[0][0], changed)
				}
			})
		}
	}
}

// writerLong: what a writer keeps is its own, whatever becomes of the event.
func writerLong(t *testing.T, s *sandbox.Server, path string) {
	create := []string{"DROP TABLE IF EXISTS w.l", "CREATE TABLE w.l (id INT PRIMARY KEY, b BLOB, c TEXT)"}
	var changes []string
	for id, letter := range []string{"p", "q", "r", "s"} {
		changes = append(changes, fmt.Sprintf("INSERT INTO w.l VALUES (%d, REPEAT('%s', 9000), REPEAT('%[2]s', 9000))", id, letter))
	}
	log := capture(t, s, create, append(changes, "UPDATE w.l SET c = REPEAT('u', 7000) WHERE id = 1"))
	want := fmt.Sprint(contents(t, s, "SELECT id, SHA2(b, 256), SHA2(c, 256) FROM w.l ORDER BY id"))
	imagetest.Exec(t, s, create...)
	if err := apply(t, s, log, path, false); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(contents(t, s, "SELECT id, SHA2(b, 256), SHA2(c, 256) FROM w.l ORDER BY id")); got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
}

// writerByName: columns in another order, generated ones, and one more, are matched by name.
func writerByName(t *testing.T, s *sandbox.Server) {
	log := capture(t, s, []string{"DROP TABLE IF EXISTS w.o", "CREATE TABLE w.o (id INT PRIMARY KEY, a INT, b INT)"},
		[]string{"INSERT INTO w.o VALUES (1,10,20),(2,30,40)", "UPDATE w.o SET a = 11 WHERE id = 1", "DELETE FROM w.o WHERE id = 2"})
	imagetest.Exec(t, s, "DROP TABLE w.o", "CREATE TABLE w.o (b BIGINT, more INT NULL, id INT PRIMARY KEY, a INT, s INT AS (a + b) STORED)")
	if err := apply(t, s, log, Portable, false); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(contents(t, s, "SELECT id, a, b, s, more FROM w.o")); got != "[[1 11 20 31 NULL]]" {
		t.Errorf("rows %s", got)
	}
	table, err := targetTables(connOf(t, s))(t.Context(), log.Events[0].Table.Name)
	if err != nil {
		t.Fatal(err)
	}
	if ok, reason := dml.SameLayout(log.Events[0].Table, table); ok || reason == "" {
		t.Errorf("replayable: %t %q", ok, reason)
	}
}

// TestGeneratedKey: MySQL lets a stored generated column be the primary key.
func TestGeneratedKey(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MySQL97})
	create := []string{
		"CREATE DATABASE IF NOT EXISTS w", "DROP TABLE IF EXISTS w.g",
		"CREATE TABLE w.g (a INT, k INT AS (a + 1) STORED PRIMARY KEY, v INT)", "INSERT INTO w.g (a, v) VALUES (1,1),(2,2)",
	}
	log := capture(t, s, create, []string{"UPDATE w.g SET v = 9 WHERE a = 1", "DELETE FROM w.g WHERE a = 2", "INSERT INTO w.g (a, v) VALUES (3,3)"})
	imagetest.Exec(t, s, create...)
	if err := apply(t, s, log, Portable, false); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(contents(t, s, "SELECT a, k, v FROM w.g ORDER BY a")); got != "[[1 2 9] [3 4 3]]" {
		t.Errorf("rows %s", got)
	}
}

func connOf(t *testing.T, s *sandbox.Server) *sql.Conn {
	conn, _, _ := applySession(t, s)
	return conn
}

// TestOldTemporals: tables made before MySQL 5.6 and MariaDB 10.1 keep dates and times in a form of which a binlog tells
// too little. Plain ones are read, and none is written.
func TestOldTemporals(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: ma})
	for kind, want := range map[string]string{
		"DATETIME": "2024-02-29 23:59:58", "TIME": "-12:34:56", "TIMESTAMP NULL": "2024-02-29 23:59:58",
	} {
		log := capture(t, s, []string{
			"CREATE DATABASE IF NOT EXISTS w", "SET GLOBAL mysql56_temporal_format = OFF", "DROP TABLE IF EXISTS w.old",
			"CREATE TABLE w.old (id INT PRIMARY KEY, v " + kind + ")", "SET GLOBAL mysql56_temporal_format = ON",
		}, []string{"SET time_zone = '+00:00'", "INSERT INTO w.old VALUES (1, '" + want + "')"})
		ev := log.Events[0]
		values, err := image.Values(ev.Table, ev.After(ev.Rows[0]))
		if err != nil || string(values[1].Bytes) != want {
			t.Errorf("%s: %s %v, want %s", kind, values[1].Bytes, err, want)
		}
		for _, path := range []string{Replay, Portable} {
			err := apply(t, s, log, path, false)
			if err == nil || path == Portable && !strings.Contains(err.Error(), "FORCE") {
				t.Errorf("%s over %s: error %v", kind, path, err)
			}
		}
	}
}
