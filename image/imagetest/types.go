package imagetest

import (
	"fmt"
	"slices"
	"strings"

	"replicator/sandbox"
)

// Column is one column of the table of all types.
type Column struct {
	Name   string
	Type   string   // as CREATE TABLE takes it
	Values []string // SQL expressions, edges of the type; NULL besides is tried in every nullable column
	// Text is an expression over the column (%s) whose result, the same on both flavors, tells values apart exactly.
	// "" is HEX(%s).
	Text string
	// Only names the flavors that have the type; "" is all of them: "mysql", "mariadb", "mariadb-11.8".
	Only string
	// Generated columns get no values.
	Generated bool
}

const (
	plainText  = "CAST(%s AS CHAR)"
	doubleText = "CAST(CAST(%s AS DOUBLE) AS CHAR)"
	numberText = "CAST(%s + 0 AS CHAR)"
)

func integers(name string, bits uint) []Column {
	return []Column{
		{
			Name: name, Type: name, Text: plainText,
			Values: []string{"0", "-1", fmt.Sprint(int64(-1) << (bits - 1)), fmt.Sprint(uint64(1)<<(bits-1) - 1)},
		},
		{
			Name: name + "_u", Type: name + " UNSIGNED", Text: plainText,
			Values: []string{"0", "1", fmt.Sprint(uint64(1)<<(bits-1) + 1), fmt.Sprint(^uint64(0) >> (64 - bits))},
		},
	}
}

func members(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("'m%d'", i)
	}
	return strings.Join(list, ",")
}

func times(name string, values ...string) []Column {
	var columns []Column
	for fsp := range 7 {
		c := Column{Name: fmt.Sprintf("%s%d", name, fsp), Type: fmt.Sprintf("%s(%d) NULL", name, fsp), Text: plainText}
		for _, v := range values {
			c.Values = append(c.Values, "'"+v+"'")
		}
		columns = append(columns, c)
	}
	return columns
}

func texts() []Column {
	return []Column{
		{Name: "c_latin1", Type: "CHAR(10) CHARACTER SET latin1", Values: []string{"''", "_latin1 X'E9FF80'", "'end  '", "REPEAT('x',10)"}},
		{Name: "c_utf8", Type: "CHAR(255) CHARACTER SET utf8mb4", Values: []string{"''", "'😀 é'", "REPEAT('€',255)"}},
		{Name: "v_utf8", Type: "VARCHAR(60) CHARACTER SET utf8mb4", Values: []string{"''", "'end  '", "REPEAT('😀',60)", "'it''s \\\\ %'"}},
		{Name: "v_utf8_long", Type: "VARCHAR(300) CHARACTER SET utf8mb4", Values: []string{"''", "REPEAT('😀',300)"}},
		{Name: "v_utf8mb3", Type: "VARCHAR(20) CHARACTER SET utf8mb3", Values: []string{"''", "'héé€'"}},
		{Name: "v_gbk", Type: "VARCHAR(20) CHARACTER SET gbk", Values: []string{"''", "_gbk X'D6D0815C'"}},
		{Name: "v_sjis", Type: "VARCHAR(20) CHARACTER SET sjis", Values: []string{"''", "_sjis X'835C'"}},
		{Name: "v_ucs2", Type: "VARCHAR(20) CHARACTER SET ucs2", Values: []string{"''", "'aé'", "'a '"}},
		{Name: "v_utf16", Type: "VARCHAR(20) CHARACTER SET utf16", Values: []string{"''", "'a😀'"}},
		{Name: "v_utf16le", Type: "VARCHAR(20) CHARACTER SET utf16le", Values: []string{"''", "'a😀'"}},
		{Name: "v_utf32", Type: "VARCHAR(20) CHARACTER SET utf32", Values: []string{"''", "'a😀'"}},
		{Name: "v_bin", Type: "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", Values: []string{"'A'", "'a '"}},
		{Name: "t_tiny", Type: "TINYTEXT CHARACTER SET utf8mb4", Values: []string{"''", "REPEAT('x',255)"}},
		{Name: "t_text", Type: "TEXT CHARACTER SET latin1", Values: []string{"''", "REPEAT(_latin1 X'E9',65535)"}},
		{Name: "t_medium", Type: "MEDIUMTEXT CHARACTER SET utf8mb4", Values: []string{"'a'", "REPEAT('😀',70000)"}},
		{Name: "t_long", Type: "LONGTEXT CHARACTER SET gbk", Values: []string{"''", "REPEAT(_gbk X'D6D0',9000)"}},
		{Name: "b_fixed", Type: "BINARY(5)", Values: []string{"X'6162'", "X'0000000000'", "X'6100620000'", "X'FF20202020'"}},
		{Name: "b_one", Type: "BINARY(1)", Values: []string{"X'00'", "X'20'"}},
		{Name: "b_var", Type: "VARBINARY(300)", Values: []string{"X''", "X'610000'", "REPEAT(X'00FF',150)"}},
		{Name: "b_tiny", Type: "TINYBLOB", Values: []string{"X''", "X'00'"}},
		{Name: "b_blob", Type: "BLOB", Values: []string{"X''", "REPEAT(X'E9',65535)"}},
		{Name: "b_medium", Type: "MEDIUMBLOB", Values: []string{"X'FFFE'", "REPEAT(X'00E9',40000)"}},
		{Name: "b_long", Type: "LONGBLOB", Values: []string{"X''", "REPEAT(X'27E95C00',300000)"}},
	}
}

func labelled() []Column {
	value := "CONCAT(CAST(%[1]s + 0 AS CHAR), ':', HEX(%[1]s))"
	return []Column{
		{Name: "e_utf8", Type: "ENUM('a','B','ß 😀','it''s','1') CHARACTER SET utf8mb4", Text: value, Values: []string{"1", "0", "'it''s'", "5", "3"}},
		{Name: "e_latin1", Type: "ENUM('a','é') CHARACTER SET latin1", Text: value, Values: []string{"1", "2"}},
		{Name: "e_big", Type: "ENUM(" + members(300) + ")", Text: value, Values: []string{"1", "300", "256"}},
		{Name: "s_utf8", Type: "SET('a','b','ß') CHARACTER SET utf8mb4", Text: value, Values: []string{"0", "7", "4"}},
		{Name: "s_big", Type: "SET(" + members(64) + ")", Values: []string{"0", "18446744073709551615", "9223372036854775808", "1"}},
		{Name: "s_17", Type: "SET(" + members(17) + ")", Text: value, Values: []string{"0", "65536"}},
	}
}

var jsonDocuments = []string{
	`'{"a": 1, "bb": [1.0, -0.5, 1e300, 1e-9, 123456789012345678, 18446744073709551615, 0.1], "c": null}'`,
	`'[]'`, `'{}'`, `'null'`, `'true'`, `'"text \\" \\\\ \\n \\u0001 é 😀"'`, `'-1'`, `'1.5e15'`, `'1e15'`, `'1e14'`, `'65536'`,
	`'2147483648'`, `'-9223372036854775808'`, `'{"a": {"b": {"c": [1, [2, [3]]]}}, "": ""}'`, `'1e-14'`, `'1e-15'`, `'1e-16'`,
	`CONCAT('{"long": "', REPEAT('x', 70000), '", "n": 70000}')`, `CONCAT('[', REPEAT('70000,', 20000), '1]')`,
	`'5e-324'`, `'1.7976931348623157e308'`, `'123456.789'`,
}

// typedDocuments hold values of SQL types inside of JSON.
var typedDocuments = []string{
	"JSON_OBJECT('d', CAST('1.10' AS DECIMAL(10,2)), 'n', JSON_ARRAY(CAST('-0.005' AS DECIMAL(30,10)), 1))",
	"JSON_ARRAY(CAST('2024-02-29' AS DATE), CAST('-12:00:01.5' AS TIME(6)), CAST('2024-01-02 03:04:05.000006' AS DATETIME(6)))",
	"CAST(CAST('12345678901234567890.5' AS DECIMAL(30,1)) AS JSON)", "CAST(CAST('2024-02-29' AS DATE) AS JSON)",
}

func spatial() []Column {
	return []Column{
		{Name: "g_any", Type: "GEOMETRY", Values: []string{
			"ST_GeomFromText('POINT(1.5 -2)')", "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')",
			"ST_GeomFromText('POLYGON((0 0,0 10,10 10,10 0,0 0),(1 1,1 2,2 2,2 1,1 1))')",
		}},
		{Name: "g_point", Type: "POINT", Values: []string{"ST_GeomFromText('POINT(0 1e300)')"}},
		{Name: "g_multi", Type: "MULTIPOINT", Values: []string{"ST_GeomFromText('MULTIPOINT(1 1,2 2)')"}},
	}
}

// AllTypes are columns of every type that a flavor has, with the edges of their values.
func AllTypes() []Column {
	var columns []Column
	for i, name := range []string{"TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT"} {
		columns = append(columns, integers(name, []uint{8, 16, 24, 32, 64}[i])...)
	}
	columns = append(columns,
		Column{Name: "b_bool", Type: "BOOL", Text: plainText, Values: []string{"TRUE", "FALSE"}},
		Column{Name: "n_zero", Type: "INT(8) ZEROFILL", Text: plainText, Values: []string{"0", "4294967295"}},
		Column{Name: "d_max", Type: "DECIMAL(65,30)", Text: plainText, Values: []string{
			"99999999999999999999999999999999999.999999999999999999999999999999", "-0.000000000000000000000000000001",
			"-99999999999999999999999999999999999.999999999999999999999999999999", "0",
		}},
		Column{Name: "d_small", Type: "DECIMAL(10,2)", Text: plainText, Values: []string{"1.10", "-1.1", "0", "-99999999.99"}},
		Column{Name: "d_whole", Type: "DECIMAL(20,0)", Text: plainText, Values: []string{"12345678901234567890", "-1"}},
		Column{Name: "d_frac", Type: "DECIMAL(9,9)", Text: plainText, Values: []string{"0.123456789", "-0.000000001"}},
		Column{Name: "d_u", Type: "DECIMAL(12,4) UNSIGNED", Text: plainText, Values: []string{"0", "99999999.9999"}},
		Column{Name: "f_float", Type: "FLOAT", Text: doubleText, Values: []string{"3.402823466e38", "1.175494351e-38", "16777216", "0.1", "-1.5", "0"}},
		Column{Name: "f_double", Type: "DOUBLE", Text: plainText, Values: []string{
			"1.7976931348623157e308", "-1.7976931348623157e308", "2.2250738585072014e-308", "0.1", "0", "9007199254740993", "5e-324",
			"-1.5e-320", "1e22", "123456789.123456789",
		}},
		Column{Name: "bit1", Type: "BIT(1)", Text: numberText, Values: []string{"0", "1"}},
		Column{Name: "bit10", Type: "BIT(10)", Text: numberText, Values: []string{"0", "1023", "512"}},
		Column{Name: "bit64", Type: "BIT(64)", Text: numberText, Values: []string{"18446744073709551615", "0", "9223372036854775808"}},
		Column{Name: "y", Type: "YEAR", Text: plainText, Values: []string{"0", "1901", "2155", "2000"}},
		Column{Name: "d_date", Type: "DATE", Text: plainText, Values: []string{
			"'0000-00-00'", "'2023-00-15'", "'2023-02-31'", "'9999-12-31'", "'1000-01-01'", "'2024-02-29'",
		}},
		Column{Name: "ts_auto", Type: "TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP", Text: plainText, Values: []string{"'2001-01-01 00:00:00'"}},
		Column{Name: "dt_auto", Type: "DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)", Text: plainText, Values: []string{"'2001-01-01 00:00:00.125'"}},
		Column{Name: "g_stored", Type: "INT GENERATED ALWAYS AS (INT_c + 1) STORED", Text: plainText, Generated: true},
		Column{Name: "g_virtual", Type: "VARCHAR(30) GENERATED ALWAYS AS (CONCAT('x', SMALLINT_c)) VIRTUAL", Text: plainText, Generated: true},
		Column{Name: "hidden", Type: "INT INVISIBLE", Text: plainText, Values: []string{"7", "8"}},
		Column{Name: "select", Type: "INT", Text: plainText, Values: []string{"1"}},
		Column{Name: "od`d na.me é", Type: "INT", Text: plainText, Values: []string{"1"}},
	)
	columns = append(columns, times("TIME", "-838:59:59", "838:59:59", "-00:00:00.000001", "-00:00:01.1", "12:34:56.789012", "00:00:00", "-12:00:00.5")...)
	columns = append(columns, times("DATETIME", "0000-00-00 00:00:00", "9999-12-31 23:59:59", "1000-01-01 00:00:00", "2023-02-31 12:34:56.789012", "2024-02-29 23:59:59.000001")...)
	columns = append(columns, times("TIMESTAMP", "0000-00-00 00:00:00", "1970-01-01 00:00:01", "2038-01-19 03:14:07", "2024-03-31 01:30:00.25", "2024-10-27 00:30:00.999999")...)
	columns = append(columns, texts()...)
	columns = append(columns, labelled()...)
	columns = append(columns, spatial()...)
	return append(columns,
		Column{Name: "j", Type: "JSON", Text: "HEX(CAST(%s AS CHAR CHARACTER SET utf8mb4))", Values: jsonDocuments},
		Column{Name: "j_typed", Type: "JSON", Text: "CONCAT(JSON_TYPE(JSON_EXTRACT(%[1]s, '$.d')), JSON_TYPE(JSON_EXTRACT(%[1]s, '$[0]')), CAST(%[1]s AS CHAR))", Values: typedDocuments, Only: "mysql"},
		Column{Name: "g_srid", Type: "GEOMETRY", Values: []string{"ST_GeomFromText('POINT(1 2)', 4326)"}, Only: "mysql"},
		Column{Name: "vec", Type: "VECTOR(3)", Values: []string{"X'0000803F000000C00000003F'", "X'FFFF7F7F0000008001000000'"}, Only: "mysql"},
		Column{Name: "vec11", Type: "VECTOR(3)", Values: []string{"X'0000803F000000C00000003F'"}, Only: "mariadb-11.8"},
		Column{Name: "u", Type: "UUID", Text: plainText, Values: []string{
			"'00112233-4455-6677-8899-aabbccddeeff'", "'ffffffff-ffff-1fff-bfff-ffffffffffff'", "'00000000-0000-0000-0000-000000000000'",
			"'018f9a5e-0000-7000-8000-000000000000'", "'123e4567-e89b-12d3-a456-426614174000'",
		}, Only: "mariadb"},
		Column{Name: "ip6", Type: "INET6", Text: plainText, Values: []string{"'::'", "'2001:db8::'", "'::ffff:1.2.3.0'"}, Only: "mariadb"},
		Column{Name: "ip4", Type: "INET4", Text: plainText, Values: []string{"'0.0.0.0'", "'10.0.0.0'", "'255.255.255.255'"}, Only: "mariadb"},
		Column{Name: "z_text", Type: "VARCHAR(1000) COMPRESSED CHARACTER SET utf8mb4", Values: []string{"''", "'a'", "REPEAT('é',900)"}, Only: "mariadb"},
		Column{Name: "z_blob", Type: "BLOB COMPRESSED", Values: []string{"X''", "X'00'", "REPEAT('x',60000)"}, Only: "mariadb"},
		Column{Name: "ts_2106", Type: "TIMESTAMP(6) NULL", Text: plainText, Values: []string{"'2106-02-07 06:28:15.999999'"}, Only: "mariadb-11.8"},
	)
}

// TypesTable is a table with columns of all types, and statements that fill and change it.
type TypesTable struct {
	Name    string // qualified and quoted
	Columns []Column
}

// TypesFor picks the columns that all the given flavors have.
func TypesFor(name string, flavors ...sandbox.Flavor) TypesTable {
	t := TypesTable{Name: name}
	for _, c := range AllTypes() {
		all := true
		for _, f := range flavors {
			all = all && strings.HasPrefix(string(f), c.Only)
		}
		if all {
			t.Columns = append(t.Columns, c)
		}
	}
	return t
}

// Without is the table without some columns.
func (t TypesTable) Without(names ...string) TypesTable {
	t.Columns = slices.DeleteFunc(slices.Clone(t.Columns), func(c Column) bool { return slices.Contains(names, c.Name) })
	return t
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// Create is the CREATE TABLE statement.
func (t TypesTable) Create() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE %s (id INT PRIMARY KEY, INT_c INT, SMALLINT_c SMALLINT", t.Name)
	for _, c := range t.Columns {
		fmt.Fprintf(&b, ", %s %s", quote(c.Name), c.Type)
	}
	return b.String() + ") CHARACTER SET utf8mb4"
}

// rows is how many rows it takes to show every value, and one of NULLs.
func (t TypesTable) rows() int {
	n := 0
	for _, c := range t.Columns {
		n = max(n, len(c.Values))
	}
	return n + 1
}

const freeMode = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'"

// Fill inserts every value: rows from 0 on, then one of NULLs.
func (t TypesTable) Fill() []string {
	statements := []string{freeMode, "SET NAMES utf8mb4"}
	for id := range t.rows() {
		var names, values []string
		for _, c := range t.Columns {
			if id < len(c.Values) {
				names, values = append(names, ","+quote(c.Name)), append(values, ","+c.Values[id])
			} else if strings.Contains(c.Type, "ON UPDATE") {
				names, values = append(names, ","+quote(c.Name)), append(values, ",NULL")
			}
		}
		statements = append(statements, fmt.Sprintf("INSERT INTO %s (id, INT_c, SMALLINT_c%s) VALUES (%d, %d, %d%s)", t.Name,
			strings.Join(names, ""), id, id*1000, -id, strings.Join(values, "")))
	}
	return statements
}

// Change gives every row the values of the next one, and NULL to what the next one does not have.
func (t TypesTable) Change() []string {
	statements := []string{freeMode, "SET NAMES utf8mb4"}
	for id := range t.rows() {
		var set []string
		for _, c := range t.Columns {
			if c.Generated {
				continue
			}
			value := "NULL"
			if n := (id + 1) % t.rows(); n < len(c.Values) {
				value = c.Values[n]
			}
			set = append(set, fmt.Sprintf(", %s = %s", quote(c.Name), value))
		}
		statements = append(statements, fmt.Sprintf("UPDATE %s SET INT_c = %d%s WHERE id = %d", t.Name, id, strings.Join(set, ""), id))
	}
	return statements
}

// Delete removes every second row.
func (t TypesTable) Delete() []string {
	return []string{"DELETE FROM " + t.Name + " WHERE id MOD 2 = 0"}
}

// Select gives one row per id: the id, then the exact text of every column.
func (t TypesTable) Select() string {
	var b strings.Builder
	b.WriteString("SELECT id, INT_c, SMALLINT_c")
	for _, c := range t.Columns {
		text := c.Text
		if text == "" {
			text = "HEX(%s)"
		}
		b.WriteString(", ")
		fmt.Fprintf(&b, text, quote(c.Name))
	}
	return b.String() + " FROM " + t.Name + " ORDER BY id"
}
