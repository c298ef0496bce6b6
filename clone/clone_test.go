package clone

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/checkpoint"
	"replicator/image/imagetest"
	"replicator/sandbox"
)

// TestTypes: every type arrives as it is, in an empty table, over other rows, and again where it is there already.
func TestTypes(t *testing.T) {
	my, ma, old := sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011
	for _, c := range []struct {
		from, to sandbox.Flavor
		without  []string
	}{{my, my, []string{"j_typed"}}, {ma, ma, nil}, {old, ma, nil}, {my, ma, nil}, {ma, my, []string{"j"}}} {
		t.Run(string(c.from)+" "+string(c.to), func(t *testing.T) {
			r := newRig(t, c.from, c.to)
			table := imagetest.TypesFor("types.t", c.from, c.to).Without(c.without...)
			exec(t, r.hosts[0], append([]string{"CREATE DATABASE types", "SET NAMES utf8mb4", table.Create()}, table.Fill()...)...)
			exec(t, r.hosts[1], "CREATE DATABASE types", "SET NAMES utf8mb4", table.Create())
			o := r.options(t, "types")
			o.Replace, o.ranges = true, 5
			report := r.copy(t, o)
			rows := r.equal(t, table.Select())
			require.EqualValues(t, rows, report.Rows)
			require.False(t, report.Tables[0].Created)

			report = r.copy(t, o)
			require.EqualValues(t, rows, report.Same, "nothing differs")
			require.Zero(t, report.Bytes)

			exec(t, r.hosts[1], table.Change()...)
			report = r.copy(t, o)
			require.Positive(t, report.Bytes)
			r.equal(t, table.Select())
		})
	}
}

var keys = map[string]struct{ columns, row string }{
	"number":    {"k BIGINT UNSIGNED PRIMARY KEY, v INT", "(# * 1000000007, #)"},
	"negative":  {"k INT PRIMARY KEY, v INT", "(500 - #, #)"},
	"decimal":   {"k DECIMAL(20,3) PRIMARY KEY, v INT", "(#.125 - 700, #)"},
	"general":   {"k VARCHAR(40) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT", "('kÉy #', #)"},
	"unicode":   {"k VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci PRIMARY KEY, v INT", "('Ünïc\\'ö\\\\de #', #)"},
	"latin1":    {"k VARCHAR(40) CHARACTER SET latin1 PRIMARY KEY, v INT", "('ÿé #', #)"},
	"char":      {"k CHAR(20) COLLATE utf8mb4_bin PRIMARY KEY, v INT", "('# x', #)"},
	"bytes":     {"k BINARY(8) PRIMARY KEY, v INT", "(UNHEX(LEFT(SHA2(#, 224), 16)), #)"},
	"varbytes":  {"k VARBINARY(20) PRIMARY KEY, v INT", "(UNHEX(LEFT(SHA2(#, 224), 16)), #)"},
	"composite": {"i INT, j VARCHAR(10) COLLATE utf8mb4_general_ci, k DATETIME(3), v INT, PRIMARY KEY (j, i, k)", "(# DIV 7, # MOD 5, '2024-01-01' + INTERVAL # SECOND, #)"},
	"enum":      {"e ENUM('z','y','x'), k INT, v INT, PRIMARY KEY (e, k)", "(1 + # MOD 3, #, #)"},
	"bit":       {"k BIT(40) PRIMARY KEY, v INT", "(# * 100003, #)"},
	"time":      {"k TIMESTAMP(6) PRIMARY KEY DEFAULT '2000-01-01', v INT", "('2024-03-31 00:00:00' + INTERVAL # MINUTE, #)"},
	"date":      {"k DATE PRIMARY KEY, v INT", "('0000-00-00' + INTERVAL 0 DAY, #)"},
	"double":    {"k DOUBLE PRIMARY KEY, v INT", "(# * 1e-3 - 0.7, #)"},
	"prefix":    {"k TEXT CHARACTER SET utf8mb4, v INT, PRIMARY KEY (k(8))", "(CONCAT(LPAD(#, 8, '0'), '-#'), #)"},
}

// TestKeys: tables whatever their key, in small ranges: into an empty table, and over one that has other rows.
func TestKeys(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		const rows = 700
		exec(t, r.hosts[0], "CREATE DATABASE k")
		for name, key := range keys {
			insert := values("k.`"+name+"`", key.row, 0, rows)
			if name == "date" {
				insert = "INSERT INTO k.`date` VALUES ('0000-00-00', 1), ('2023-02-00', 2), ('2023-02-31', 3), ('9999-12-31', 4)"
			}
			exec(t, r.hosts[0], "SET NAMES utf8mb4", "CREATE TABLE k.`"+name+"` ("+key.columns+")", insert)
		}
		o := r.options(t, "k")
		o.ranges = 37
		check := func() Report {
			report := r.copy(t, o)
			for name := range keys {
				r.equal(t, "SELECT * FROM k.`"+name+"` ORDER BY v")
			}
			return report
		}
		all := check().Rows
		require.EqualValues(t, (len(keys)-1)*rows+4, all)
		o.Replace = true
		report := check()
		require.Equal(t, all, report.Same)

		for name := range keys {
			exec(t, r.hosts[1], "DELETE FROM k.`"+name+"` WHERE v BETWEEN 100 AND 140 OR v MOD 211 = 5")
			exec(t, r.hosts[0], "DELETE FROM k.`"+name+"` WHERE v < 50 OR v BETWEEN 300 AND 400 OR v > 650", "UPDATE k.`"+name+"` SET v = v + 10000 WHERE v = 250")
		}
		report = check()
		require.Greater(t, report.Same, int64(1500), "ranges are as they were")
		require.Less(t, report.Same, all)
		require.Greater(t, report.Removed, int64(200*(len(keys)-1)))
	})
}

// TestTables: tables that need something special.
func TestTables(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		exec(t, r.hosts[0], "CREATE DATABASE s CHARACTER SET latin1",
			"CREATE TABLE s.heap (a INT, b TEXT)", values("s.heap", "(# DIV 2, 'x#')", 0, 3000), "INSERT INTO s.heap VALUES (NULL, NULL), (NULL, NULL)",
			"CREATE TABLE s.generated (id INT PRIMARY KEY, a INT, b INT AS (a * 2) STORED, c INT AS (a + 1) VIRTUAL, d INT DEFAULT 7, UNIQUE (b))",
			"INSERT INTO s.generated (id, a, d) VALUES (1, 10, 1), (2, 20, 2), (3, NULL, NULL)",
			"CREATE TABLE s.parent (id INT PRIMARY KEY)", values("s.parent", "(#)", 0, 100),
			"CREATE TABLE s.child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES s.parent (id) ON DELETE CASCADE ON UPDATE CASCADE)",
			values("s.child", "(#, # MOD 100)", 0, 1000),
			"CREATE TABLE s.counter (id INT AUTO_INCREMENT PRIMARY KEY, v INT)", "INSERT INTO s.counter VALUES (0, 0), (1, 1), (500, 2)",
			"DELETE FROM s.counter WHERE id = 500",
			"CREATE TABLE s.empty (id INT PRIMARY KEY)",
			"CREATE TABLE s.`odd ``name``` (`a ``b` INT PRIMARY KEY, `select` INT)", "INSERT INTO s.`odd ``name``` VALUES (1, 2)",
			"CREATE TABLE s.changing (id INT PRIMARY KEY, at TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
			"INSERT INTO s.changing VALUES (1, '2001-02-03 04:05:06'), (2, NULL)",
			"CREATE TABLE s.negative (id INT PRIMARY KEY, f FLOAT, d DOUBLE)", "INSERT INTO s.negative VALUES (1, -0e0, -0e0), (2, 16777216, 0.1)",
		)
		queries := []string{
			"SELECT * FROM s.heap ORDER BY a, b", "SELECT * FROM s.generated", "SELECT * FROM s.parent", "SELECT * FROM s.child", "SELECT * FROM s.counter",
			"SELECT * FROM s.empty", "SELECT * FROM s.`odd ``name```", "SELECT * FROM s.changing", "SELECT id, CAST(f AS DOUBLE), d FROM s.negative",
		}
		o := r.options(t, "s")
		o.ranges = 50
		for _, replace := range []bool{false, true} {
			o.Replace = replace
			report := r.copy(t, o)
			for _, q := range queries {
				r.equal(t, q)
			}
			for i := range report.Tables {
				require.Equal(t, !replace, report.Tables[i].Created, report.Tables[i].Name)
			}
		}
		// The counter, and that foreign keys hold again.
		for i := range r.hosts {
			exec(t, r.hosts[i], "INSERT INTO s.counter (v) VALUES (9)", "SET SESSION foreign_key_checks = 1", "DELETE FROM s.parent WHERE id = 5")
		}
		r.equal(t, "SELECT * FROM s.counter")
		require.Equal(t, 990, r.equal(t, "SELECT * FROM s.child"))
		require.Equal(t, contents(t, r.hosts[0], "SHOW CREATE DATABASE s"), contents(t, r.hosts[1], "SHOW CREATE DATABASE s"))

		// A counter that is behind, in a table that stays.
		exec(t, r.hosts[0], "INSERT INTO s.counter VALUES (900, 1)", "DELETE FROM s.counter WHERE id = 900")
		r.copy(t, o)
		for i := range r.hosts {
			exec(t, r.hosts[i], "INSERT INTO s.counter (v) VALUES (10)")
		}
		r.equal(t, "SELECT * FROM s.counter")
	})
}

// TestUniqueValuesMove: rows of the target hold values that other rows of the source have, in other ranges.
func TestUniqueValuesMove(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		const rows = 2000
		r.both(t, "CREATE DATABASE u", "CREATE TABLE u.t (id INT PRIMARY KEY, u INT, v VARCHAR(20), UNIQUE (u))")
		exec(t, r.hosts[0], values("u.t", "(#, #, 'row #')", 0, rows))
		exec(t, r.hosts[1], values("u.t", "(#, "+fmt.Sprint(rows-1)+" - #, 'row #')", 0, rows), "DELETE FROM u.t WHERE id MOD 7 = 3",
			values("u.t", "(#, # + 10000, 'beyond')", rows, rows+500), values("u.t", "(#, #, 'before')", -300, 0))
		o := r.options(t, "u")
		o.Replace, o.ranges = true, 20
		report := r.copy(t, o)
		require.Equal(t, rows, r.equal(t, "SELECT * FROM u.t"))
		require.EqualValues(t, rows, report.Rows)
		require.GreaterOrEqual(t, report.Removed, int64(800))
		require.EqualValues(t, rows, r.copy(t, o).Same)
	})
}

// TestKilledAndBegunAgain: what a run has copied before it ended is not copied by the next one.
func TestKilledAndBegunAgain(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		const rows = 20_000
		exec(t, r.hosts[0], "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(100))", values("d.t", "(#, REPEAT('#', 10))", 0, rows),
			"CREATE TABLE d.log (id INT PRIMARY KEY, at INT)")
		exec(t, r.hosts[1], "CREATE DATABASE m", "CREATE TABLE m.marker (id INT AUTO_INCREMENT PRIMARY KEY)")
		o := r.options(t, "d")
		o.ranges, o.Replace = 200, true
		transactions := 0
		enough := errors.New("enough")
		queue := make(chan struct{}, 1)
		o.Begin = func(ctx context.Context, q checkpoint.Querier) error {
			queue <- struct{}{}
			defer func() { <-queue }()
			if transactions++; transactions > 60 {
				return enough
			}
			_, err := q.ExecContext(ctx, "INSERT INTO m.marker VALUES ()")
			return err
		}
		_, err := r.try(t.Context(), o)
		require.ErrorIs(t, err, enough)
		there := len(contents(t, r.hosts[1], "SELECT id FROM d.t"))
		require.Greater(t, there, rows/4)
		require.Less(t, there, rows)
		require.LessOrEqual(t, len(contents(t, r.hosts[1], "SELECT id FROM m.marker")), 60)
		require.GreaterOrEqual(t, len(contents(t, r.hosts[1], "SELECT id FROM m.marker")), there/200, "a marker in every transaction")

		o.Begin = nil
		report := r.copy(t, o)
		require.GreaterOrEqual(t, report.Same, int64(there), "commits whose answers nobody waited for may have come later")
		require.Less(t, report.Same, int64(rows))
		require.EqualValues(t, rows, report.Rows)
		require.Zero(t, report.Removed)
		r.equal(t, "SELECT * FROM d.t")
	})
}

// TestKeysAreMadeLater: a large table gets its keys when it has its rows, in a copy that was killed as well.
func TestKeysAreMadeLater(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		const rows = 3000
		exec(t, r.hosts[0], "CREATE DATABASE y", "CREATE TABLE y.t (id INT PRIMARY KEY, n INT NOT NULL AUTO_INCREMENT, a INT, b VARCHAR(20) COMMENT 'KEY `x`, ', c TEXT, "+
			"KEY n (n), KEY a (a) COMMENT 'one, two', UNIQUE u (b), KEY `odd ``name` (b(3), a DESC), FULLTEXT KEY f (c), KEY last (a, b))",
			values("y.t", "(#, # + 1, # MOD 7, 'b#', 'some text #')", 0, rows),
			"CREATE TABLE y.p (id INT PRIMARY KEY, a INT, KEY (a))", "CREATE TABLE y.c (id INT PRIMARY KEY, p INT, a INT, KEY (a), FOREIGN KEY (p) REFERENCES y.p (id))")
		o := r.options(t, "y")
		o.ranges, o.large, o.Replace = 100, 1, true
		var transactions atomic.Int32
		enough := errors.New("enough")
		o.Begin = func(context.Context, checkpoint.Querier) error {
			if transactions.Add(1) > 12 {
				return enough
			}
			return nil
		}
		_, err := r.try(t.Context(), o)
		require.ErrorIs(t, err, enough)
		require.NotContains(t, strings.Join(contents(t, r.hosts[1], "SHOW CREATE TABLE y.t"), ""), "KEY `a`")
		o.Begin = nil
		report := r.copy(t, o)
		require.Positive(t, report.Same)
		same := func(name string) {
			var sorted [2][]string
			for i, s := range r.hosts {
				text := contents(t, s, "SHOW CREATE TABLE y."+name)
				sorted[i] = strings.Split(strings.ReplaceAll(strings.Join(text, ""), ",\n", "\n"), "\n")
				slices.Sort(sorted[i])
			}
			require.Equal(t, sorted[0], sorted[1])
		}
		for _, name := range []string{"t", "p", "c"} {
			same(name)
			r.equal(t, "SELECT * FROM y."+name)
		}
		require.EqualValues(t, rows, r.copy(t, o).Same)
		o.Replace = false
		require.NotContains(t, Check(t.Context(), o).Error(), "defined otherwise", "the order of keys does not count")
	})
}

// TestUnlogged: nothing of the copy is in the target's binlog, or all of it.
func TestUnlogged(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		exec(t, r.hosts[0], "CREATE DATABASE l", "CREATE TABLE l.t (id INT PRIMARY KEY)", values("l.t", "(#)", 0, 100), "CREATE VIEW l.v AS SELECT 1")
		position := func() string {
			p, err := r.sides[1].Dialect.Position(t.Context(), r.sides[1].DB)
			require.NoError(t, err)
			return p.String()
		}
		o := r.options(t, "l")
		o.With = []string{"views"}
		before := position()
		o.Unlogged = true
		report := r.copy(t, o)
		require.Equal(t, []string{"view l.v"}, report.Objects)
		require.Equal(t, before, position())
		require.Equal(t, 100, r.equal(t, "SELECT * FROM l.t"))
		o.Unlogged, o.Replace = false, true
		exec(t, r.hosts[0], "DELETE FROM l.t WHERE id = 7")
		r.copy(t, o)
		require.NotEqual(t, before, position())
		require.Equal(t, 99, r.equal(t, "SELECT * FROM l.t"))
	})
}

// TestLargeValues: rows that are longer than a statement, up to what the target takes.
func TestLargeValues(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		exec(t, r.hosts[0], "CREATE DATABASE g", "CREATE TABLE g.t (id INT PRIMARY KEY, a LONGTEXT, b LONGBLOB, c LONGTEXT CHARACTER SET latin1, g GEOMETRY)")
		for i, size := range []int{10, 5000, 70_000, 1_500_000, 9_000_000} {
			exec(t, r.hosts[0], "SET NAMES utf8mb4", fmt.Sprintf(`INSERT INTO g.t VALUES (%d, REPEAT('aé''\\"', %d), REPEAT(X'0027FF5C', %d), REPEAT(_latin1 X'E9', %d), ST_GeomFromText('LINESTRING(%s)'))`,
				i, size/6, size/4, size/8, strings.TrimSuffix(strings.Repeat("1 2,", min(size, 2000)), ",")))
		}
		exec(t, r.hosts[0], "INSERT INTO g.t SELECT 100 + a.id * 10 + b.id, a.a, b.b, NULL, a.g FROM g.t a, g.t b WHERE a.id < 4 AND b.id < 4")
		o := r.options(t, "g")
		r.copy(t, o)
		const query = "SELECT id, LENGTH(a), SHA2(a, 256) AS a, LENGTH(b), SHA2(b, 256) AS b, LENGTH(c), SHA2(c, 256) AS c, SHA2(g, 256) AS g FROM g.t"
		require.Equal(t, 21, r.equal(t, query))
		o.Replace = true
		require.EqualValues(t, 21, r.copy(t, o).Same)
		exec(t, r.hosts[1], "UPDATE g.t SET b = CONCAT(b, 'x') WHERE id = 4")
		r.copy(t, o)
		r.equal(t, query)

		exec(t, r.hosts[1], "SET GLOBAL max_allowed_packet = 2097152", "DELETE FROM g.t")
		r.sides[1] = side(t, "b", r.hosts[1], "root", r.hosts[1].Password())
		o.Target = r.sides[1]
		_, err := r.try(t.Context(), o)
		require.ErrorContains(t, err, "set max_allowed_packet on b to at least")
		exec(t, r.hosts[0], "DELETE FROM g.t WHERE LENGTH(a) > 1000000")
		r.copy(t, o)
		require.Equal(t, 15, r.equal(t, query))
	})
}

// TestTableInUse: rows that somebody else writes into a table that was empty do not stop the copy.
func TestTableInUse(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		r.both(t, "CREATE DATABASE w", "CREATE TABLE w.t (id INT PRIMARY KEY, v INT)")
		exec(t, r.hosts[0], values("w.t", "(#, #)", 0, 1000))
		o := r.options(t, "w")
		o.ranges, r.sessions = 100, 1
		written := make(chan struct{}, 1)
		written <- struct{}{}
		o.Begin = func(ctx context.Context, _ checkpoint.Querier) error {
			select {
			case <-written:
				exec(t, r.hosts[1], "INSERT INTO w.t VALUES (950, -1)")
			default:
			}
			return ctx.Err()
		}
		report := r.copy(t, o)
		require.EqualValues(t, 1000, report.Rows)
		require.Equal(t, 1000, r.equal(t, "SELECT * FROM w.t"))
	})
}

func TestObjects(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		exec(t, r.hosts[0], "CREATE DATABASE o", "CREATE DATABASE other", "SET NAMES utf8mb4", "USE o",
			"CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))", "INSERT INTO t VALUES (1, 'a'), (2, 'b')", "CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(20))",
			"CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x + 1",
			"SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'", "CREATE PROCEDURE p() SELECT \"id\" || 'é' AS x FROM t", "SET SESSION sql_mode = ''",
			// One that needs another which comes later in the alphabet.
			"CREATE VIEW z AS SELECT id, v, f(id) AS n FROM t WHERE v <> 'ü'", "CREATE VIEW a AS SELECT * FROM z",
			"CREATE TABLE gone (id INT)", "CREATE VIEW broken AS SELECT * FROM gone", "DROP TABLE gone", "CREATE VIEW other.v AS SELECT 1",
			"CREATE TRIGGER unguarded BEFORE INSERT ON t FOR EACH ROW INSERT INTO log (what) VALUES ('é')",
			"CREATE TRIGGER guarded AFTER INSERT ON t FOR EACH ROW BEGIN IF @replicator_apply IS NULL THEN SET @x = 1; END IF; END",
			"CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO INSERT INTO log (what) VALUES ('event ON COMPLETION PRESERVE ENABLE')",
		)
		o := r.options(t, "o")
		o.With = Kinds
		report := r.copy(t, o)
		want := []string{
			"function o.f", "procedure o.p", "view o.z", "view o.a", "trigger o.guarded", "trigger o.unguarded", "event o.e (disabled)",
		}
		require.ElementsMatch(t, want, report.Objects)
		require.Len(t, report.Missing, 1, report.Missing)
		require.Contains(t, report.Missing[0], "view o.broken: ")
		require.Equal(t, 2, r.equal(t, "SELECT * FROM o.a"))
		require.Empty(t, contents(t, r.hosts[1], "SELECT * FROM o.log"), "no trigger fired")
		require.Equal(t, []string{"x=1é", "x=2é"}, contents(t, r.hosts[1], "CALL o.p()"))
		require.Equal(t, []string{"STATUS=DISABLED"}, contents(t, r.hosts[1], "SELECT STATUS FROM information_schema.EVENTS"))
		exec(t, r.hosts[1], "INSERT INTO o.t VALUES (3, 'c')")
		require.Equal(t, []string{"what=é"}, contents(t, r.hosts[1], "SELECT what FROM o.log"))
		exec(t, r.hosts[1], "DROP VIEW o.a", "CREATE VIEW o.a AS SELECT 'mine'")

		// Existing ones stay, unless they may be replaced; the trigger would fire.
		o.With = []string{"views", "routines"}
		o.Replace = true
		_, err := r.try(t.Context(), o)
		require.ErrorContains(t, err, "trigger unguarded of table o.t on b would fire")
		o.With, o.Replace = Kinds, false
		_, err = r.try(t.Context(), o)
		require.ErrorContains(t, err, "trigger unguarded of table o.t on b would fire")
		o.Replace = true
		report = r.copy(t, o)
		require.Subset(t, report.Objects, []string{"view o.a", "trigger o.unguarded"})
		for _, equal := range []string{"function o.f", "procedure o.p", "trigger o.guarded", "event o.e (disabled)"} {
			require.NotContains(t, report.Objects, equal)
		}
		require.Equal(t, 2, r.equal(t, "SELECT * FROM o.a"))
		r.equal(t, "SELECT id FROM o.log")
		exec(t, r.hosts[1], "DROP TRIGGER o.unguarded", "DELETE FROM o.t", "DELETE FROM o.log", "DROP VIEW o.a", "CREATE VIEW o.a AS SELECT 'mine'")
		o.Replace = false
		report = r.copy(t, o)
		require.True(t, slices.ContainsFunc(report.Missing, func(m string) bool { return strings.HasPrefix(m, "view o.a: b has another one") }), report.Missing)
		require.Equal(t, []string{"mine=mine"}, contents(t, r.hosts[1], "SELECT * FROM o.a"))
	})
}
