package image_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"replicator/change"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
)

// TestEventsOnServers builds events out of what a server logged, and lets the same server replay them.
func TestEventsOnServers(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			imagetest.Exec(t, s, "CREATE DATABASE d")
			for _, checksum := range []string{"CRC32", "NONE"} {
				imagetest.Exec(t, s, "SET GLOBAL binlog_checksum = "+checksum)
				for _, c := range buildCases {
					t.Run(checksum+"/"+c.name, func(t *testing.T) { c.run(t, s) })
				}
			}
			t.Run("keys", func(t *testing.T) { keysAgree(t, s) })
			t.Run("tokens", func(t *testing.T) { tokensAgree(t, s) })
			t.Run("by key", func(t *testing.T) { rowsByKey(t, s) })
		})
	}
}

type buildCase struct {
	name   string
	table  string
	before string // rows in the table
	change string // what the source does
	build  func(ev *change.RowsEvent, f *change.Format) ([]byte, error)
	want   string // rows in the table after the built events were replayed over "before"
}

const plainTable = "(id INT PRIMARY KEY, v VARCHAR(300), w DECIMAL(30,10), n INT UNSIGNED)"

func ops(pick func(ev *change.RowsEvent) []image.Op) func(*change.RowsEvent, *change.Format) ([]byte, error) {
	return func(ev *change.RowsEvent, f *change.Format) ([]byte, error) { return image.Build(ev, f, pick(ev)) }
}

func op(kind change.RowKind, before, after []byte) image.Op {
	return image.Op{Kind: kind, Before: before, After: after}
}

var buildCases = []buildCase{
	{
		name: "as it is", table: plainTable, before: "(1,'a',1.5,1),(2,NULL,2,2)",
		change: "UPDATE d.t SET v = REPEAT('x', 300), n = NULL",
		build:  func(ev *change.RowsEvent, f *change.Format) ([]byte, error) { return image.AsIs(nil, ev, f), nil },
		want:   "1," + strings.Repeat("x", 300) + ",1.5000000000,NULL;2," + strings.Repeat("x", 300) + ",2.0000000000,NULL",
	},
	{
		name: "a row cut out of three", table: plainTable, before: "(1,'a',1.5,1),(2,NULL,2,2),(3,'c',3,3)",
		change: "UPDATE d.t SET v = 'new'",
		build: ops(func(ev *change.RowsEvent) (list []image.Op) {
			for _, i := range []int{0, 2} {
				list = append(list, op(change.Update, ev.Before(ev.Rows[i]), ev.After(ev.Rows[i])))
			}
			return list
		}),
		want: "1,new,1.5000000000,1;2,NULL,2.0000000000,2;3,new,3.0000000000,3",
	},
	{
		name: "an insert becomes an update", table: plainTable, before: "(1,'old',1,1)",
		change: "REPLACE INTO d.t VALUES (1,'new',9,NULL)",
		build: ops(func(ev *change.RowsEvent) []image.Op {
			r := ev.Rows[0]
			return []image.Op{op(change.Update, ev.After(r), ev.After(r))}
		}),
		want: "1,new,9.0000000000,NULL",
	},
	{
		name: "an update becomes an insert", table: plainTable, before: "(1,'old',1,1)",
		change: "UPDATE d.t SET id = 2, v = 'two'",
		build: ops(func(ev *change.RowsEvent) []image.Op {
			return []image.Op{op(change.Insert, nil, ev.After(ev.Rows[0]))}
		}),
		want: "1,old,1.0000000000,1;2,two,1.0000000000,1",
	},
	{
		name: "a key change is split", table: plainTable, before: "(1,'old',1,1),(3,'x',1,1)",
		change: "UPDATE d.t SET id = 2, v = 'two' WHERE id = 1",
		build: ops(func(ev *change.RowsEvent) []image.Op {
			r := ev.Rows[0]
			return []image.Op{op(change.Delete, ev.Before(r), nil), op(change.Insert, nil, ev.After(r))}
		}),
		want: "2,two,1.0000000000,1;3,x,1.0000000000,1",
	},
	{
		name:   "a partitioned table",
		table:  "(id INT PRIMARY KEY, v VARCHAR(20), w INT, n INT) PARTITION BY HASH (id) PARTITIONS 3",
		before: "(1,'a',1,1),(2,'b',2,2),(3,'c',3,3)",
		change: "UPDATE d.t SET id = id + 1, v = 'n' WHERE id = 3",
		build: ops(func(ev *change.RowsEvent) []image.Op {
			r := ev.Rows[0]
			return []image.Op{op(change.Delete, ev.Before(r), nil), op(change.Insert, nil, ev.After(r))}
		}),
		want: "1,a,1,1;2,b,2,2;4,n,3,3",
	},
}

func rowsOf(t *testing.T, s *sandbox.Server, query string) string {
	t.Helper()
	rows, err := s.DB().QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for rows.Next() {
		values := make([]*string, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		text := make([]string, len(values))
		for i, v := range values {
			text[i] = "NULL"
			if v != nil {
				text[i] = *v
			}
		}
		lines = append(lines, strings.Join(text, ","))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, ";")
}

func (c buildCase) run(t *testing.T, s *sandbox.Server) {
	reset := []string{"DROP TABLE IF EXISTS d.t", "CREATE TABLE d.t " + c.table, "INSERT INTO d.t VALUES " + c.before}
	imagetest.Exec(t, s, reset...)
	log := imagetest.Capture(t, s, func() { imagetest.Exec(t, s, c.change) })
	if len(log.Events) != 1 {
		t.Fatalf("%d rows events, want 1", len(log.Events))
	}
	events, err := c.build(log.Events[0], log.Format)
	if err != nil {
		t.Fatal(err)
	}
	imagetest.Exec(t, s, reset...)
	replay(t, s, log.Format, events)
	if got := rowsOf(t, s, "SELECT * FROM d.t ORDER BY id"); got != c.want {
		t.Errorf("rows\n%s\nwant\n%s", got, c.want)
	}
}

func replay(t *testing.T, s *sandbox.Server, f *change.Format, events []byte) {
	t.Helper()
	binlog := func(b []byte) string { return "BINLOG '" + base64.StdEncoding.EncodeToString(b) + "'" }
	statements := []string{binlog(f.Event), "BEGIN", binlog(events), "COMMIT"}
	if !s.Flavor().MariaDB() {
		statements = append(statements[:1], append([]string{"SET gtid_next = 'AUTOMATIC'"}, statements[1:]...)...)
	}
	imagetest.Exec(t, s, statements...)
}

// noWeigher fails: the keys it is used for need no weights.
type noWeigher struct{}

func (noWeigher) Weights(context.Context, uint16, [][]byte) ([][]byte, error) {
	return nil, fmt.Errorf("no weights here")
}

// keysAgree checks that equal key values give equal keys whatever the width of their columns, and unequal ones do not.
func keysAgree(t *testing.T, s *sandbox.Server) {
	cases := []struct {
		name string
		// types of the key column; the values are written into each
		types  []string
		values []string
	}{
		{"integers", []string{"SMALLINT", "MEDIUMINT", "INT", "BIGINT"}, []string{"-1", "0", "300"}},
		{"unsigned", []string{"SMALLINT UNSIGNED", "INT UNSIGNED", "BIGINT UNSIGNED", "BIGINT"}, []string{"0", "65535"}},
		{"fractions", []string{"DATETIME", "DATETIME(2)", "DATETIME(3)", "DATETIME(6)"}, []string{"'2024-02-29 23:59:59'", "'1000-01-01 00:00:00'"}},
		{"times", []string{"TIME", "TIME(1)", "TIME(3)", "TIME(6)"}, []string{"'-838:59:59'", "'00:00:01'", "'-00:00:01'"}},
		{"timestamps", []string{"TIMESTAMP", "TIMESTAMP(4)", "TIMESTAMP(6)"}, []string{"'2024-02-29 23:59:59'"}},
		{"decimals", []string{"DECIMAL(10,2)", "DECIMAL(30,10)", "DECIMAL(65,30)"}, []string{"1.5", "-0.25", "0", "100"}},
		{"floats", []string{"FLOAT", "DOUBLE"}, []string{"0.5", "-1024", "0"}},
		{"binary texts", []string{
			"VARCHAR(20) COLLATE utf8mb4_bin", "CHAR(20) COLLATE utf8mb4_bin", "TEXT COLLATE utf8mb4_bin",
			"VARCHAR(300) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
		}, []string{"'a'", "'A'", "'ä'", "''"}},
		{"bytes", []string{"BINARY(8)", "BINARY(4)"}, []string{"X'6100'", "X'00'", "X'0061'"}},
		{"bits", []string{"BIT(10)", "BIT(64)"}, []string{"0", "1023"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			seen := map[string]int{} // key → value index
			for _, kind := range c.types {
				for i, k := range keysOf(t, s, kind, c.values) {
					if v, ok := seen[k]; ok != (kind != c.types[0]) || ok && v != i {
						t.Errorf("%s %s: key %s, seen before: %v (value %d)", kind, c.values[i], k, ok, v)
					}
					seen[k] = i
				}
			}
		})
	}
}

func keysOf(t *testing.T, s *sandbox.Server, kind string, values []string) (keys []string) {
	t.Helper()
	key := "k"
	if strings.HasPrefix(kind, "TEXT") {
		key = "k(10)"
	}
	imagetest.Exec(t, s, "DROP TABLE IF EXISTS d.k", "CREATE TABLE d.k (a INT, b VARCHAR(300), k "+kind+", PRIMARY KEY ("+key+"))")
	log := imagetest.Capture(t, s, func() {
		for _, v := range values {
			imagetest.Exec(t, s, "INSERT INTO d.k VALUES (NULL, 'x', "+v+")")
		}
	})
	keyer := image.NewKeyer(noWeigher{})
	for _, ev := range log.Events {
		if err := keyer.Keys(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, ev.Rows[0].Key.String())
		decodedKeyAgrees(t, keyer, ev)
	}
	return keys
}

// decodedKeyAgrees checks that the decoded values of a row, and its encoded key, give the key that its image gives.
func decodedKeyAgrees(t *testing.T, keyer *image.Keyer, ev *change.RowsEvent) {
	t.Helper()
	values, err := image.Values(ev.Table, ev.After(ev.Rows[0]))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := image.EncodeKey(ev.Table, values)
	if err != nil {
		t.Fatal(err)
	}
	table, named, err := image.DecodeKey(ev.Table.Name, encoded)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		table  *change.Table
		values []image.Value
	}{{ev.Table, values}, {table, named}} {
		key, err := keyer.RowKey(t.Context(), row.table, row.values)
		if err != nil || key != ev.Rows[0].Key {
			t.Errorf("%d columns: the decoded row has key %s (%v), its image %s", len(row.values), key, err, ev.Rows[0].Key)
		}
	}
}
