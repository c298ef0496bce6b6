package clone

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
	"replicator/sandbox"
	"replicator/server"
)

// transactions is how many transactions a position of one server holds.
func transactions(t *testing.T, position change.GTIDSet) (n int64) {
	t.Helper()
	text := position.String()
	if position.Flavor() == change.MariaDB {
		_, err := fmt.Sscan(text[strings.LastIndexByte(text, '-')+1:], &n)
		require.NoError(t, err, text)
		return n
	}
	numbers := text[strings.LastIndexByte(text, ':')+1:]
	_, err := fmt.Sscan(numbers[strings.LastIndexByte(numbers, '-')+1:], &n)
	require.NoError(t, err, text)
	return n
}

// TestSnapshotIsExact: while money is moved between tables, every snapshot and every copy has all of it, and the position says
// how many transfers were made.
func TestSnapshotIsExact(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		const accounts, writers = 2000, 4
		a := r.hosts[0]
		exec(t, a, "CREATE DATABASE bank", "CREATE TABLE bank.here (id INT PRIMARY KEY, n BIGINT)", "CREATE TABLE bank.there (id INT PRIMARY KEY, n BIGINT)",
			"CREATE TABLE bank.made (id INT PRIMARY KEY, n BIGINT)", values("bank.here", "(#, 1000)", 0, accounts), values("bank.there", "(#, 1000)", 0, accounts),
			values("bank.made", "(#, 0)", 0, writers))
		at, err := r.sides[0].Dialect.Position(t.Context(), a.DB())
		require.NoError(t, err)
		began := transactions(t, at)
		ctx, stop := context.WithCancel(t.Context())
		var writing sync.WaitGroup
		defer writing.Wait()
		defer stop()
		for w := range writers {
			writing.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					_, err := a.DB().Exec(fmt.Sprintf(`BEGIN; UPDATE bank.here SET n = n - %[1]d WHERE id = %[2]d; UPDATE bank.there SET n = n + %[1]d WHERE id = %[3]d;
 UPDATE bank.made SET n = n + 1 WHERE id = %[4]d; COMMIT`, n%5, (n*7+w*500)%accounts, (n*11+w*500)%accounts, w))
					if err != nil && server.Classify(err) != fault.Busy {
						t.Error(err)
						return
					}
				}
			})
		}
		const made, money = "SELECT SUM(n) FROM bank.made", "SELECT (SELECT SUM(n) FROM bank.here) + (SELECT SUM(n) FROM bank.there)"
		o := r.options(t, "bank")
		o.Replace, o.ranges = true, 100
		for range 4 {
			snap, err := Freeze(t.Context(), r.sides[0], 3)
			require.NoError(t, err)
			want := transactions(t, snap.Position) - began
			for _, conn := range snap.sessions {
				var n, total int64
				require.NoError(t, conn.QueryRowContext(t.Context(), made).Scan(&n))
				require.NoError(t, conn.QueryRowContext(t.Context(), money).Scan(&total))
				require.Equal(t, want, n)
				require.EqualValues(t, 2*1000*accounts, total)
			}
			_, err = Copy(t.Context(), snap, o)
			require.NoError(t, err)
			var n int64
			require.NoError(t, snap.Session().QueryRowContext(t.Context(), made).Scan(&n), "the session can be used again")
			require.Equal(t, want, n)
			snap.Close()
			require.Equal(t, []string{fmt.Sprintf("SUM(n)=%d", want)}, contents(t, r.hosts[1], made))
			require.Equal(t, []string{fmt.Sprintf("n=%d", 2*1000*accounts)}, contents(t, r.hosts[1], strings.Replace(money, "there)", "there) AS n", 1)))
		}
	})
}

// TestFreezeIsRefused: by a statement that holds its tables, and without the privilege. Writers go on afterwards.
func TestFreezeIsRefused(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		a := r.hosts[0]
		exec(t, a, "CREATE DATABASE f", "CREATE TABLE f.t (id INT PRIMARY KEY)")
		conn, err := a.DB().Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, execAll(t.Context(), conn, "LOCK TABLES f.t WRITE"))
		_, err = freeze(t.Context(), r.sides[0], 1, attempts{most: 2, wait: 1, pause: time.Millisecond})
		f, ok := fault.As(err)
		require.True(t, ok, err)
		require.Equal(t, fault.Busy, f.Class)
		require.ErrorContains(t, err, "(2 attempts)")

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, cancel)
		_, err = freeze(ctx, r.sides[0], 2, attempts{most: 100, wait: 1, pause: time.Millisecond})
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, execAll(t.Context(), conn, "UNLOCK TABLES"))
		within, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err = a.DB().ExecContext(within, "INSERT INTO f.t VALUES (1)")
		require.NoError(t, err, "nothing holds the server")

		require.NoError(t, a.CreateAccount(t.Context(), "few", "s3cret", "SELECT ON *.*"))
		few := side(t, "a", a, "few", "s3cret")
		_, err = Freeze(t.Context(), few, 1)
		f, ok = fault.As(err)
		require.True(t, ok, err)
		require.Equal(t, fault.Privilege, f.Class)
		require.Equal(t, "on a: GRANT RELOAD ON *.* TO 'few'@'%'", f.Remedy)
		require.NotContains(t, err.Error(), "s3cret")
		require.NoError(t, r.hosts[1].CreateAccount(t.Context(), "some", "s3cret", "ALL ON f.*", "SELECT ON *.*"))
		o := r.options(t, "f")
		o.Target, o.Unlogged = side(t, "b", r.hosts[1], "some", "s3cret"), true
		err = Check(t.Context(), o)
		f, ok = fault.As(err)
		require.True(t, ok, err)
		require.Equal(t, fault.Privilege, f.Class)
		require.Contains(t, f.Remedy, "on b: GRANT "+o.Target.Dialect.UnloggedPrivilege()+" ON *.* TO 'some'@'%'")
		o.Unlogged = false
		r.copy(t, o)
	})
}

// TestDefinedAnew: a table of the source that is defined anew after the snapshot was taken.
func TestDefinedAnew(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		for i, ddl := range []string{"ALTER TABLE c.u ADD COLUMN w INT", "ALTER TABLE c.u DROP COLUMN v", "TRUNCATE TABLE c.u", "DROP TABLE c.u", "ALTER TABLE c.u FORCE"} {
			r.both(t, "DROP DATABASE IF EXISTS c")
			exec(t, r.hosts[0], "CREATE DATABASE c", "CREATE TABLE c.t (id INT PRIMARY KEY, v VARCHAR(200))", values("c.t", "(#, REPEAT('x', 200))", 0, 2000),
				"CREATE TABLE c.u (id INT PRIMARY KEY, v INT)", values("c.u", "(#, #)", 0, 100), "ANALYZE TABLE c.t", "ANALYZE TABLE c.u")
			o := r.options(t, "c")
			r.sessions, o.Replace = 1, true
			var once sync.Once
			o.Begin = func(context.Context, checkpoint.Querier) error {
				once.Do(func() { exec(t, r.hosts[0], ddl) })
				return nil
			}
			_, err := r.try(t.Context(), o)
			f, ok := fault.As(err)
			if ddl == "ALTER TABLE c.u FORCE" && err == nil { // the rows are the same
				r.equal(t, "SELECT * FROM c.u")
				continue
			}
			require.True(t, ok, "%s: %v", ddl, err)
			require.Equal(t, fault.Busy, f.Class, "%d: %v", i, err)
			require.Contains(t, f.Remedy, "run it again")
			if ddl != "DROP TABLE c.u" {
				o = r.options(t, "c")
				o.Replace = true
				r.copy(t, o)
				r.equal(t, "SELECT * FROM c.u")
			}
		}
	})
}

// TestDefinitionsAreNotHeld: a statement that changes a table which has been read does not wait for the end of the copy.
func TestDefinitionsAreNotHeld(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		exec(t, r.hosts[0], "CREATE DATABASE c", "CREATE TABLE c.t (id INT PRIMARY KEY, v VARCHAR(200))", values("c.t", "(#, REPEAT('x', 200))", 0, 2000),
			"CREATE TABLE c.u (id INT PRIMARY KEY, v INT)", values("c.u", "(#, #)", 0, 100), "ANALYZE TABLE c.t", "ANALYZE TABLE c.u")
		o := r.options(t, "c")
		r.sessions, o.ranges = 1, 2000
		n := 0
		o.Begin = func(ctx context.Context, _ checkpoint.Querier) error {
			if n++; n < 2 {
				return nil
			}
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			_, err := r.hosts[0].DB().ExecContext(ctx, "ALTER TABLE c.t ADD KEY (v)")
			return err
		}
		_, err := r.try(t.Context(), o)
		require.Equal(t, 2, n, "a transaction for each table")
		require.ErrorContains(t, err, "table c.t was defined anew on a while it was copied")
		require.Equal(t, 100, r.equal(t, "SELECT * FROM c.u"))
	})
}

func TestRefusals(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		exec(t, r.hosts[0], "CREATE DATABASE c", "CREATE TABLE c.isam (id INT PRIMARY KEY) ENGINE = MyISAM", "CREATE TABLE c.other (id INT PRIMARY KEY, v INT)",
			"SET NAMES utf8mb4", "CREATE TABLE c.label (id INT PRIMARY KEY, e ENUM('a', '😀'))", "CREATE TABLE c.counted (id INT PRIMARY KEY AUTO_INCREMENT)", "INSERT INTO c.counted VALUES (77)",
			"CREATE TABLE c.fine (id INT PRIMARY KEY)")
		exec(t, r.hosts[1], "CREATE DATABASE c", "CREATE TABLE c.other (id INT PRIMARY KEY, v BIGINT)", "CREATE TABLE c.counted (id INT PRIMARY KEY AUTO_INCREMENT)")
		full := 12
		for i := range full {
			r.both(t, fmt.Sprintf("CREATE TABLE c.full%02d (id INT PRIMARY KEY)", i), fmt.Sprintf("INSERT INTO c.full%02d VALUES (1)", i))
		}
		o := r.options(t, "c")
		err := Check(t.Context(), o)
		for _, want := range []string{
			"table c.isam is MyISAM on a", "table c.other on b is defined otherwise: it has `v` bigint", "the source has `v` int",
			"table c.label has label e enum('a','?')", "tables on b have rows already, 12 of them: c.full00", "c.full09 and 2 more; remedy: add --replace",
		} {
			require.ErrorContains(t, err, want)
		}
		for _, fine := range []string{"c.fine", "c.counted", "c.full10"} {
			require.NotContains(t, err.Error(), fine)
		}
		snap, err := Freeze(t.Context(), o.Source, 1)
		require.NoError(t, err)
		defer snap.Close()
		_, err = Copy(t.Context(), snap, o)
		require.ErrorContains(t, err, "table c.isam is MyISAM on a")
		require.Empty(t, contents(t, r.hosts[1], "SELECT * FROM c.counted"), "nothing was changed")

		o.Replace = true
		err = Check(t.Context(), o)
		require.NotContains(t, err.Error(), "rows already")
		require.NotContains(t, err.Error(), "c.other")
		o.With = []string{"views", "users"}
		require.ErrorContains(t, Check(t.Context(), o), `"users" is no kind of object`)

		// Without what cannot be copied; the other definition is replaced.
		exec(t, r.hosts[0], "DROP TABLE c.isam", "DROP TABLE c.label")
		o = r.options(t, "c")
		o.Replace = true
		report := r.copy(t, o)
		require.EqualValues(t, full, report.Same)
		r.equal(t, "SHOW CREATE TABLE c.other")
		r.equal(t, "SHOW CREATE TABLE c.counted")
	})
}

// TestBetweenFlavors: what one flavor cannot make of the other's definitions is for a person.
func TestBetweenFlavors(t *testing.T) {
	r := newRig(t, sandbox.MySQL97, sandbox.MariaDB1011)
	exec(t, r.hosts[0], "CREATE DATABASE x", "CREATE TABLE x.plain (id INT PRIMARY KEY, v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci",
		"CREATE TABLE x.narrow (id INT PRIMARY KEY, v BIGINT) COLLATE=utf8mb4_general_ci", values("x.plain", "(#, 'r#')", 0, 500), values("x.narrow", "(#, #)", 0, 500))
	o := r.options(t, "x")
	r.copy(t, o)
	require.Equal(t, 500, r.equal(t, "SELECT * FROM x.plain"))
	exec(t, r.hosts[1], "ALTER TABLE x.narrow MODIFY v INT", "UPDATE x.plain SET v = 'other' WHERE id = 77")
	o.Replace = true
	require.ErrorContains(t, Check(t.Context(), o), "change its definition on b by hand")
	exec(t, r.hosts[1], "ALTER TABLE x.narrow MODIFY v BIGINT")
	o.ranges = 50
	report := r.copy(t, o)
	require.EqualValues(t, 950, report.Same)
	r.equal(t, "SELECT * FROM x.plain")

	exec(t, r.hosts[0], "CREATE TABLE x.unknown (id INT PRIMARY KEY, v VARCHAR(20) COLLATE utf8mb4_0900_ai_ci)")
	o = r.options(t, "x")
	o.Replace = true
	_, err := r.try(t.Context(), o)
	require.ErrorContains(t, err, "make table x.unknown on b")
	require.ErrorContains(t, err, "remedy: make the table on b by hand, then run it again")
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Definition, f.Class)
}

var errStop = errors.New("stop")

// TestCancelled: a copy that is called off ends soon, and its sessions with it.
func TestCancelled(t *testing.T) {
	eachFlavor(t, func(t *testing.T, r *rig) {
		exec(t, r.hosts[0], "CREATE DATABASE e", "CREATE TABLE e.t (id INT, v VARCHAR(200))", values("e.t", "(#, REPEAT('x', 200))", 0, 20_000))
		for range 3 {
			exec(t, r.hosts[0], "INSERT INTO e.t SELECT id, v FROM e.t")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		o := r.options(t, "e")
		o.Begin = func(context.Context, checkpoint.Querier) error { cancel(errStop); return nil }
		_, err := r.try(ctx, o)
		require.ErrorIs(t, err, errStop)
		o.Begin = func(context.Context, checkpoint.Querier) error { return errStop }
		o.Replace = true
		began := time.Now()
		_, err = r.try(t.Context(), o)
		require.ErrorIs(t, err, errStop)
		require.Less(t, time.Since(began), 20*time.Second)
	})
}
