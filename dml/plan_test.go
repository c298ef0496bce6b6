package dml

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"replicator/fault"
	"replicator/image/imagetest"
	"replicator/sandbox"
)

// typePairs say which column type goes into which.
var typePairs = []struct {
	source sandbox.Flavor
	from   string // column type on the source
	value  string
	target sandbox.Flavor
	to     string // column type on the target
	want   string // part of the refusal; "" is none
}{
	{my, "INT", "1", ma, "BIGINT", ""},
	{my, "INT UNSIGNED", "1", ma, "BIGINT", ""},
	{my, "BIGINT", "1", ma, "INT", "not every value"},
	{my, "INT UNSIGNED", "1", ma, "INT", "not every value"},
	{my, "INT", "1", ma, "INT UNSIGNED", "not every value"},
	{my, "INT", "1", ma, "VARCHAR(20)", "not every value"},
	{my, "DECIMAL(10,2)", "1", ma, "DECIMAL(12,3)", ""},
	{my, "DECIMAL(10,2)", "1", ma, "DECIMAL(10,3)", "not every value"},
	{my, "DOUBLE", "1", ma, "FLOAT", "not every value"},
	{my, "BIT(9)", "1", ma, "BIT(8)", "not every value"},
	{my, "DATETIME(3)", "'2024-01-01'", ma, "DATETIME(6)", ""},
	{my, "DATETIME(3)", "'2024-01-01'", ma, "DATETIME", "not every value"},
	{my, "DATETIME", "'2024-01-01'", ma, "TIMESTAMP NULL", "not every value"},
	{my, "VARCHAR(10)", "'a'", ma, "VARCHAR(20)", ""},
	{my, "VARCHAR(10) CHARACTER SET utf8mb3", "'a'", ma, "VARCHAR(10)", ""},
	{my, "VARCHAR(10)", "'a'", ma, "VARCHAR(10) CHARACTER SET utf8mb3", "character set"},
	{my, "VARCHAR(10)", "'a'", ma, "VARCHAR(10) CHARACTER SET latin1", "character set"},
	{my, "VARCHAR(10) CHARACTER SET latin1", "'a'", ma, "VARCHAR(10)", "character set"},
	{my, "VARCHAR(10)", "'a'", ma, "VARBINARY(40)", "character set"},
	{my, "VARCHAR(20)", "'a'", ma, "VARCHAR(10)", "longer values"},
	{my, "VARCHAR(10)", "'a'", ma, "CHAR(10)", "trailing spaces"},
	{my, "TEXT", "'a'", ma, "VARCHAR(100)", "longer values"},
	{my, "MEDIUMTEXT", "'a'", ma, "TEXT", "longer values"},
	{my, "BINARY(4)", "'a'", ma, "BINARY(5)", "same length"},
	{my, "VARBINARY(4)", "'a'", ma, "BINARY(4)", "same length"},
	{my, "ENUM('a','b')", "'b'", ma, "ENUM('b','a','c')", ""},
	{my, "ENUM('a','b')", "'b'", ma, "ENUM('a')", "label"},
	{my, "ENUM('a','b')", "'b'", ma, "VARCHAR(10)", "labels do not fit"},
	{my, "SET('a','b')", "'b'", ma, "SET('b','a')", ""},
	{my, "JSON", `'{"a": 1}'`, ma, "JSON", ""},
	{my, "JSON", "'1'", ma, "TEXT", "JSON goes into"},
	{ma, "JSON", `'{"b": 1.50, "a": [1e2, -0.1, 18446744073709551615]}'`, my, "JSON", ""},
	{ma, "JSON", `'{"a": 1, "a": 2}'`, my, "JSON", "twice"},
	{ma, "JSON", "'18446744073709551616'", my, "JSON", "more digits"},
	{ma, "JSON", "'0.12345678901234567890'", my, "JSON", "more digits"},
	{ma, "JSON", "'1e400'", my, "JSON", "out of range"},
	{ma, "LONGTEXT CHARACTER SET latin1", "'1'", my, "JSON", "utf8mb4"},
	{my, "JSON", "JSON_OBJECT('a', CAST(X'00FF' AS BINARY(2)))", my, "JSON NULL", "no expression can make"},
	{my, "POINT", "ST_GeomFromText('POINT(1 2)')", ma, "GEOMETRY", ""},
	{my, "POINT", "ST_GeomFromText('POINT(1 2)', 4326)", ma, "POINT", "spatial reference system 4326"},
	{my, "VECTOR(2)", "X'0000803F00000040'", ma, "VECTOR(2)", ""},
	{ma, "VECTOR(2)", "X'0000803F00000040'", my, "VECTOR(2)", ""},
	{ma, "VECTOR(3)", "X'0000803F0000004000000040'", my, "VECTOR(2)", "longer"},
	{ma, "UUID", "'123e4567-e89b-12d3-a456-426614174000'", my, "BINARY(16)", ""},
	{ma, "UUID", "'123e4567-e89b-12d3-a456-426614174000'", my, "CHAR(36)", "character set"},
	{ma, "INET6", "'2001:db8::'", my, "VARBINARY(16)", ""},
	{ma, "INET4", "'10.0.0.0'", my, "INT UNSIGNED", "do not fit"},
}

// TestRefusals tries what goes from one column type into another, and that the rest is refused before anything is written.
func TestRefusals(t *testing.T) {
	servers := map[sandbox.Flavor]*sandbox.Server{my: sandbox.StartTest(t, sandbox.Options{Flavor: my}), ma: sandbox.StartTest(t, sandbox.Options{Flavor: ma})}
	for _, s := range servers {
		imagetest.Exec(t, s, "CREATE DATABASE types")
	}
	const create = "CREATE TABLE types.t (id INT PRIMARY KEY, v %s) CHARACTER SET utf8mb4"
	for _, c := range typePairs {
		t.Run(fmt.Sprintf("%s %s to %s %s", c.source, c.from, c.target, c.to), func(t *testing.T) {
			source, target := servers[c.source], servers[c.target]
			imagetest.Exec(t, source, "DROP TABLE IF EXISTS types.t", fmt.Sprintf(create, c.from))
			log := imagetest.Capture(t, source, func() { imagetest.Exec(t, source, "INSERT INTO types.t VALUES (1, "+c.value+")") })
			want := contents(t, source, "SELECT HEX(v), v FROM types.t")
			imagetest.Exec(t, target, "DROP TABLE IF EXISTS types.t", fmt.Sprintf(create, c.to))
			err := write(t, target, log, c.source.MariaDB() != c.target.MariaDB())
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				sameOrJSON(t, target, want)
				return
			}
			f, ok := fault.As(err)
			if !ok || f.Class != fault.Definition || f.Remedy == "" || !strings.Contains(f.Text(), c.want) {
				t.Errorf("error %v, want a fault of class %s about %q", err, fault.Definition, c.want)
			}
			if rows := contents(t, target, "SELECT * FROM types.t"); len(rows) != 0 {
				t.Errorf("a refused row was written: %v", rows)
			}
		})
	}
}

// sameOrJSON compares the one row of types.t: by its bytes, or, since MySQL writes JSON in its own way, as JSON; numbers
// with other scales and labels at other places are equal by text.
func sameOrJSON(t *testing.T, target *sandbox.Server, want [][]string) {
	t.Helper()
	got := contents(t, target, "SELECT HEX(v), v FROM types.t")
	if len(got) != 1 {
		t.Fatalf("%d rows", len(got))
	}
	if got[0][0] == want[0][0] || strings.TrimRight(got[0][1], ".0") == strings.TrimRight(want[0][1], ".0") {
		return
	}
	var equal bool
	err := target.DB().QueryRowContext(t.Context(), "SELECT CAST(v AS JSON) = CAST(? AS JSON) FROM types.t", want[0][1]).Scan(&equal)
	if err != nil || !equal {
		t.Errorf("got %v, want %v (%v)", got[0], want[0], err)
	}
}

// TestNegativeZero: MySQL keeps the sign of zero, and only a parameter carries it.
func TestNegativeZero(t *testing.T) {
	source := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MySQL97})
	target := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB118})
	create := []string{"CREATE DATABASE IF NOT EXISTS w", "DROP TABLE IF EXISTS w.z", "CREATE TABLE w.z (d DOUBLE, f FLOAT, id INT PRIMARY KEY)"}
	imagetest.Exec(t, source, create...)
	imagetest.Exec(t, target, create...)
	log := imagetest.Capture(t, source, func() {
		zero := math.Copysign(0, -1)
		if _, err := source.DB().ExecContext(t.Context(), "INSERT INTO w.z VALUES (?, ?, 1)", zero, zero); err != nil {
			t.Fatal(err)
		}
	})
	want := fmt.Sprint(contents(t, source, "SELECT d, f FROM w.z"))
	imagetest.Exec(t, source, create...)
	for _, s := range []*sandbox.Server{source, target} {
		if err := write(t, s, log, s == target); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(contents(t, s, "SELECT d, f FROM w.z")); got != want || got != "[[-0 -0]]" {
			t.Errorf("%s: %s, want %s", s.Name(), got, want)
		}
	}
}
