package dml

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"replicator/change"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
	"replicator/server"
)

func sameValue(a, b image.Value) bool {
	return a.Kind == b.Kind && a.Int == b.Int && a.Uint == b.Uint && math.Float64bits(a.Float) == math.Float64bits(b.Float) &&
		bytes.Equal(a.Bytes, b.Bytes)
}

func brief(v image.Value) string {
	text := fmt.Sprintf("%d:%d:%d:%v:%q", v.Kind, v.Int, v.Uint, v.Float, v.Bytes)
	if len(text) > 120 {
		text = text[:120] + "…"
	}
	return text
}

// sameRows compares what was found with the images that were asked for.
func sameRows(t *testing.T, table *change.Table, images [][]byte, found []Found) {
	t.Helper()
	if len(found) != len(images) || len(images) == 0 {
		t.Fatalf("found %d rows of %d", len(found), len(images))
	}
	seen := map[int]bool{}
	for _, f := range found {
		if seen[f.Index] {
			t.Fatalf("row %d is found twice", f.Index)
		}
		seen[f.Index] = true
		want, err := image.Values(table, images[f.Index])
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if !sameValue(want[i], f.Values[i]) {
				t.Errorf("row %d, column %s: read %s, want %s", f.Index, table.Columns[i].Name, brief(f.Values[i]), brief(want[i]))
			}
		}
	}
}

func images(log imagetest.Log) (all [][]byte) {
	for _, ev := range log.Events {
		for _, r := range ev.Rows {
			all = append(all, ev.After(r))
		}
	}
	return all
}

// prepared asks through prepared statements, whose answers come in another form.
type prepared struct {
	t    *testing.T
	conn *sql.Conn
}

func (p prepared) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := p.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	p.t.Cleanup(func() { _ = stmt.Close() })
	return stmt.QueryContext(ctx, args...)
}

// TestReadAllTypes: whatever a server logs of a row, a SELECT says the same of it, and what a SELECT says makes an equal row.
func TestReadAllTypes(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			table := imagetest.TypesFor("types.t", flavor)
			imagetest.Exec(t, s, "CREATE DATABASE types", "SET NAMES utf8mb4", table.Create())
			log := imagetest.Capture(t, s, func() { imagetest.Exec(t, s, table.Fill()...) })
			conn := session(t, s)
			source := log.Events[0].Table
			p, err := planFor(t, conn, source, source.Name, false)
			if err != nil {
				t.Fatal(err)
			}
			for _, on := range []Querier{conn, prepared{t, conn}} {
				q, err := p.SelectImages(images(log), Options{Lock: on == conn})
				if err != nil {
					t.Fatal(err)
				}
				found, err := q.Run(t.Context(), on)
				if err != nil {
					t.Fatal(err)
				}
				sameRows(t, source, images(log), found)
			}
			t.Run("definition", func(t *testing.T) { sameDefinition(t, source, TableOf(p.Target())) })
			t.Run("copy", func(t *testing.T) { copyRows(t, s, table, p.Target()) })
		})
	}
}

// sameDefinition compares what information_schema gives with the TABLE_MAP event.
func sameDefinition(t *testing.T, want, got *change.Table) {
	if fmt.Sprint(want.PrimaryKey) != fmt.Sprint(got.PrimaryKey) || want.Name != got.Name || len(want.Columns) != len(got.Columns) {
		t.Errorf("%v %v %d, want %v %v %d", got.Name, got.PrimaryKey, len(got.Columns), want.Name, want.PrimaryKey, len(want.Columns))
	}
	for i := range want.Columns {
		w, g := fmt.Sprintf("%#v", want.Columns[i]), fmt.Sprintf("%#v", got.Columns[i])
		w = strings.ReplaceAll(w, "😀", "?") // which is what information_schema shows
		if w != g && want.Columns[i].Name != "vec11" {
			t.Errorf("column %s is %.200s, want %.200s", want.Columns[i].Name, g, w)
		}
	}
}

// copyRows reads rows that no binlog has shown, and writes them into an empty table.
func copyRows(t *testing.T, s *sandbox.Server, table imagetest.TypesTable, target *server.Table) {
	table = table.Without("j_typed") // its text does not tell all
	imagetest.Exec(t, s, "SET NAMES utf8mb4", strings.Replace(table.Create(), "types.t", "types.c", 1))
	conn := session(t, s)
	source := TableOf(target)
	read, err := NewPlan(source, target, false)
	if err != nil {
		t.Fatal(err)
	}
	without := *source
	without.Columns = nil
	for _, c := range source.Columns {
		if c.Name != "j_typed" {
			without.Columns = append(without.Columns, c)
		}
	}
	into, err := planFor(t, conn, &without, change.TableName{Database: "types", Table: "c"}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := contents(t, s, table.Select())
	var keys [][]image.Value
	for i := range want {
		row := make([]image.Value, len(source.Columns))
		row[0] = image.Value{Kind: image.Int, Int: int64(i)}
		keys = append(keys, row)
	}
	q, err := read.SelectRows(keys, Options{})
	if err != nil {
		t.Fatal(err)
	}
	found, err := q.Run(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		var row []image.Value
		for i, v := range f.Values {
			if source.Columns[i].Name != "j_typed" {
				row = append(row, v)
			}
		}
		insert, err := into.Render(Change{Kind: change.Insert, After: row})
		if err != nil {
			t.Fatal(err)
		}
		if err := execute(t, conn, insert); err != nil {
			t.Fatal(err)
		}
	}
	got := contents(t, s, strings.Replace(table.Select(), "types.t", "types.c", 1))
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range want {
		for j := range want[i] {
			if want[i][j] != got[i][j] {
				t.Errorf("row %d, column %d: %.100s, want %.100s", i, j, got[i][j], want[i][j])
			}
		}
	}
}

// TestReadBetweenFlavors: rows that came from the other flavor are read as their source knows them.
func TestReadBetweenFlavors(t *testing.T) {
	servers := map[sandbox.Flavor]*sandbox.Server{my: sandbox.StartTest(t, sandbox.Options{Flavor: my}), ma: sandbox.StartTest(t, sandbox.Options{Flavor: ma})}
	for _, c := range []struct {
		from, to sandbox.Flavor
		without  []string
	}{{my, ma, nil}, {ma, my, []string{"j"}}} {
		t.Run(string(c.from), func(t *testing.T) {
			source, target := servers[c.from], servers[c.to]
			table := imagetest.TypesFor("types.t", c.from, c.to).Without(c.without...)
			for _, s := range servers {
				imagetest.Exec(t, s, "CREATE DATABASE IF NOT EXISTS types", "SET NAMES utf8mb4", "DROP TABLE IF EXISTS types.t", table.Create())
			}
			log := imagetest.Capture(t, source, func() { imagetest.Exec(t, source, table.Fill()...) })
			if err := write(t, target, log, true); err != nil {
				t.Fatal(err)
			}
			conn := session(t, target)
			p, err := planFor(t, conn, log.Events[0].Table, log.Events[0].Table.Name, true)
			if err != nil {
				t.Fatal(err)
			}
			q, err := p.SelectImages(images(log), Options{})
			if err != nil {
				t.Fatal(err)
			}
			found, err := q.Run(t.Context(), conn)
			if err != nil {
				t.Fatal(err)
			}
			sameRows(t, p.Source(), images(log), found)
		})
	}
}

// TestReadByName: labels in another order, more digits, a column that the target lacks.
func TestReadByName(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{my, ma} {
		t.Run(string(flavor), func(t *testing.T) {
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			imagetest.Exec(t, s, "CREATE DATABASE d", `CREATE TABLE d.t (id INT PRIMARY KEY, e ENUM('a','b'), s SET('x','y','z'),
 n DECIMAL(6,2), d DATETIME(2), i INT(6) ZEROFILL, g INT AS (id + 1))`)
			log := imagetest.Capture(t, s, func() {
				imagetest.Exec(t, s, "INSERT INTO d.t (id, e, s, n, d, i) VALUES (1, 'b', 'x,z', 1.50, '2024-01-02 03:04:05.60', 7), (2, NULL, '', 0, NULL, 0)")
			})
			imagetest.Exec(t, s, "DROP TABLE d.t", `CREATE TABLE d.t (i INT UNSIGNED ZEROFILL, s SET('z','y','x','more'), more INT, id BIGINT PRIMARY KEY,
 d DATETIME(6), e ENUM('c','b','a'), n DECIMAL(12,5) ZEROFILL, g INT)`)
			imagetest.Exec(t, s, "INSERT INTO d.t (id, e, s, n, d, i, g) VALUES (1, 'b', 'x,z', 1.50, '2024-01-02 03:04:05.60', 7, 2), (2, NULL, '', 0, NULL, 0, 3), (3, 'c', '', 1.23456, '2024-01-02 03:04:05.654321', 0, 4)")
			conn := session(t, s)
			source := *log.Events[0].Table
			for i := range source.Columns { // DECIMAL ZEROFILL takes no negative numbers
				source.Columns[i].Unsigned = source.Columns[i].Unsigned || source.Columns[i].Name == "n"
			}
			p, err := planFor(t, conn, &source, source.Name, false)
			if err != nil {
				t.Fatal(err)
			}
			q, err := p.SelectImages(images(log), Options{})
			if err != nil {
				t.Fatal(err)
			}
			found, err := q.Run(t.Context(), conn)
			if err != nil {
				t.Fatal(err)
			}
			sameRows(t, &source, images(log), found)
			third := make([]image.Value, len(source.Columns))
			third[0] = image.Value{Kind: image.Int, Int: 3}
			if q, err = p.SelectRows([][]image.Value{third}, Options{}); err != nil {
				t.Fatal(err)
			}
			if _, err := q.Run(t.Context(), conn); err == nil || !strings.Contains(err.Error(), "label") {
				t.Errorf("error %v, want one about a label", err)
			}
			imagetest.Exec(t, s, "UPDATE d.t SET e = 0 WHERE id = 9", "UPDATE d.t SET e = 'a' WHERE id = 3", "ALTER TABLE d.t DROP COLUMN g")
			p, err = planFor(t, conn, &source, source.Name, false)
			if err == nil {
				t.Fatalf("a target without a column: %v", p)
			}
		})
	}
}

// TestSelectWhere finds rows by any of their columns.
func TestSelectWhere(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{my, ma} {
		t.Run(string(flavor), func(t *testing.T) {
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			imagetest.Exec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a INT, v VARCHAR(100), UNIQUE KEY (v(3), a)) CHARACTER SET utf8mb4",
				"INSERT INTO d.t VALUES (1, 10, 'abcdef'), (2, 10, 'äöü-'), (3, 20, 'abc'), (4, NULL, 'abc')")
			conn := session(t, s)
			table, err := server.OneTable(t.Context(), conn, change.TableName{Database: "d", Table: "t"})
			if err != nil {
				t.Fatal(err)
			}
			p, err := NewPlan(TableOf(table), table, false)
			if err != nil {
				t.Fatal(err)
			}
			number := func(n int64) image.Value { return image.Value{Kind: image.Int, Int: n} }
			text := func(s string) image.Value { return image.Value{Kind: image.Text, Bytes: []byte(s)} }
			for _, c := range []struct {
				parts  []change.KeyPart
				tuples [][]image.Value
				limit  int
				want   string
			}{
				{[]change.KeyPart{{Column: 2, Prefix: 3}, {Column: 1}}, [][]image.Value{{text("ABCx"), number(10)}, {text("äöü"), number(10)}, {text("x"), number(1)}}, 0, "[0:1 1:2]"},
				{[]change.KeyPart{{Column: 1}}, [][]image.Value{{number(10)}}, 0, "[0:1 0:2]"},
				{[]change.KeyPart{{Column: 1}}, [][]image.Value{{number(10)}, {{}}}, 0, "[0:1 0:2 1:4]"},
				{[]change.KeyPart{{Column: 1}}, [][]image.Value{{number(10)}}, 1, "[0:1]"},
			} {
				for _, lock := range []bool{false, true} {
					q, err := p.SelectWhere(c.parts, c.tuples, Options{Lock: lock, Limit: c.limit})
					if err != nil {
						t.Fatal(err)
					}
					found, err := q.Run(t.Context(), conn)
					if err != nil {
						t.Fatal(err)
					}
					got := map[string]bool{}
					for _, f := range found {
						got[fmt.Sprintf("%d:%d", f.Index, f.Values[0].Int)] = true
					}
					if text := strings.TrimPrefix(fmt.Sprint(sorted(got)), "map"); text != c.want {
						t.Errorf("%v: found %s, want %s", c.tuples, text, c.want)
					}
				}
			}
		})
	}
}

func sorted(set map[string]bool) []string {
	return slices.Sorted(maps.Keys(set))
}

// TestOnly sets some columns, and leaves the others as they are.
func TestOnly(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{my, ma} {
		t.Run(string(flavor), func(t *testing.T) {
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			imagetest.Exec(t, s, "CREATE DATABASE d",
				"CREATE TABLE d.t (id INT PRIMARY KEY, a INT, b INT, at DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
				"INSERT INTO d.t VALUES (1, 1, 1, '2001-01-01')")
			conn := session(t, s)
			table, err := server.OneTable(t.Context(), conn, change.TableName{Database: "d", Table: "t"})
			if err != nil {
				t.Fatal(err)
			}
			p, err := NewPlan(TableOf(table), table, false)
			if err != nil {
				t.Fatal(err)
			}
			row := []image.Value{{Kind: image.Int, Int: 1}, {Kind: image.Int, Int: 7}, {Kind: image.Int, Int: 8}, {}}
			u, err := p.Render(Change{Kind: change.Update, Before: row, After: row, Only: []int{2}})
			if err != nil {
				t.Fatal(err)
			}
			if err := execute(t, conn, u); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(contents(t, s, "SELECT * FROM d.t")); got != "[[1 1 8 2001-01-01 00:00:00]]" {
				t.Errorf("row %s", got)
			}
		})
	}
}
