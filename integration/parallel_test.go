package integration

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"replicator/sandbox"
)

// oneByOne makes a group of every transaction, and as many as possible at once.
const oneByOne = "apply: {workers: 4, group_transactions: 1}\nlog: {level: debug}\n"

const (
	failedBeside = "a group failed beside others"
	gaveWay      = "groups give way"
)

// parallel runs a test with two servers of each flavor between which groups are applied at once.
func parallel(t *testing.T, f func(t *testing.T, c *cluster, east, west *site)) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavor, flavor)
			c.extra = oneByOne
			c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, n INT NOT NULL)")
			c.start()
			c.awaitLinks(30 * time.Second)
			east := c.sites[0]
			for id := 1; id <= 8; id++ {
				east.exec(t, "INSERT INTO app.t VALUES (?, 0)", id)
			}
			c.awaitEqual(30*time.Second, "app.t")
			f(t, c, east, c.sites[1])
		})
	}
}

// uncommitted reads column n of app.t, in the order of the rows, with what nobody has committed yet.
func (s *site) uncommitted(t *testing.T) []int {
	t.Helper()
	tx, err := s.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelReadUncommitted})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // it has only read
	return numbers(t, tx)
}

func numbers(t *testing.T, q interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
},
) []int {
	t.Helper()
	rows, err := q.QueryContext(t.Context(), "SELECT n FROM app.t ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []int
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// lock keeps a row of app.t from everybody until the transaction ends.
func (s *site) lock(t *testing.T, id int) *sql.Tx {
	t.Helper()
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() }) // after the end it does nothing
	if _, err := tx.Exec("UPDATE app.t SET n = n WHERE id = ?", id); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRow("SELECT n FROM app.t WHERE id = ? FOR UPDATE", id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return tx
}

// Groups that have nothing in common are carried out while one before them waits for a row, and are not committed before
// it.
func TestGroupsAreAppliedAtOnce(t *testing.T) {
	parallel(t, func(t *testing.T, c *cluster, east, west *site) {
		tx := west.lock(t, 1)
		for id := 1; id <= 4; id++ {
			east.exec(t, "UPDATE app.t SET n = 1 WHERE id = ?", id)
		}
		awaitSoon(t, 30*time.Second, func() error {
			if got := west.uncommitted(t)[:4]; !slices.Equal(got, []int{0, 1, 1, 1}) {
				return fmt.Errorf("the rows behind a locked one are %v", got)
			}
			return nil
		})
		if got := numbers(t, west.db)[:4]; !slices.Equal(got, []int{0, 0, 0, 0}) {
			t.Errorf("committed are %v, although the first change cannot be", got)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		c.awaitEqual(30*time.Second, "app.t")
	})
}

// Groups that are applied at once commit in the order of the source: whoever reads the target sees a state that the source
// has had.
func TestGroupsCommitInOrder(t *testing.T) {
	parallel(t, func(t *testing.T, c *cluster, east, west *site) {
		done := make(chan error, 1)
		go func() {
			for k, end := 1, time.Now().Add(5*time.Second); time.Now().Before(end); k++ {
				for id := 1; id <= 8; id++ {
					if _, err := east.db.Exec("UPDATE app.t SET n = ? WHERE id = ?", k, id); err != nil {
						done <- err
						return
					}
				}
			}
			done <- nil
		}()
		reads, states := 0, map[string]bool{}
		for writing := true; writing; reads++ {
			got := numbers(t, west.db)
			if !slices.IsSortedFunc(got, func(a, b int) int { return b - a }) || got[0] > got[7]+1 {
				t.Fatalf("read %v: the source has never had that", got)
			}
			states[fmt.Sprint(got)] = true
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				writing = false
			default:
			}
		}
		c.awaitEqual(30*time.Second, "app.t")
		t.Logf("%d reads saw %d states", reads, len(states))
		if len(states) < 10 {
			t.Errorf("%d states were seen: too few to say anything", len(states))
		}
	})
}

// Groups that depend on others wait for them: through the same row, a value of a unique key, a parent.
func TestDependentGroupsWait(t *testing.T) {
	parallel(t, func(t *testing.T, c *cluster, east, _ *site) {
		c.everywhere("CREATE TABLE app.u (id INT PRIMARY KEY, name VARCHAR(20) UNIQUE, part INT, UNIQUE (part, id))",
			"CREATE TABLE app.parent (id INT PRIMARY KEY, n INT NOT NULL DEFAULT 0)",
			"CREATE TABLE app.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES app.parent (id))")
		if err := east.proxy.Cut(); err != nil {
			t.Fatal(err)
		}
		for i := 1; i <= 60; i++ {
			for _, query := range []string{
				"INSERT INTO app.parent (id) VALUES (%[1]d)",
				"INSERT INTO app.child VALUES (%[1]d, %[1]d)",
				"UPDATE app.parent SET n = n + 1 WHERE id = %[1]d",
				"INSERT INTO app.child VALUES (1000 + %[1]d, %[1]d)",
				"INSERT INTO app.u VALUES (%[1]d, 'name %[1]d', 1)",
				"UPDATE app.u SET name = 'other %[1]d' WHERE id = %[1]d",
				"INSERT INTO app.u VALUES (1000 + %[1]d, 'NAME %[1]d', 2)", // equal under the collation
				"DELETE FROM app.u WHERE id = 1000 + %[1]d",
				"INSERT INTO app.u VALUES (1000 + %[1]d, 'Name %[1]d', NULL)",
				"UPDATE app.child SET p = NULL WHERE id = %[1]d",
			} {
				east.exec(t, fmt.Sprintf(query, i))
			}
		}
		if err := east.proxy.Heal(); err != nil {
			t.Fatal(err)
		}
		c.awaitEqual(time.Minute, "app.u", "app.parent", "app.child")
		if n := strings.Count(c.log.tail(1<<20), failedBeside); n > 0 {
			t.Errorf("%d groups came too early", n)
		}
	})
}

// Groups that write one row are carried out one after the other: a later one that came to the row first would be in the way
// of the one before, and be rolled back. Here it would always come first, because the one before has much to do until then.
func TestGroupsOfOneRowWait(t *testing.T) {
	parallel(t, func(t *testing.T, c *cluster, east, _ *site) {
		c.everywhere("CREATE TABLE app.bulk (id INT PRIMARY KEY)")
		if err := east.proxy.Cut(); err != nil {
			t.Fatal(err)
		}
		for i := range 15 {
			writes := [][2]string{
				{"UPDATE app.t SET n = n + 1 WHERE id = 1", "UPDATE app.t SET n = n + 1 WHERE id = 1"},
				{"DELETE FROM app.t WHERE id = 2", "INSERT INTO app.t VALUES (2, 7)"},
				{"UPDATE app.t SET id = id + 10 WHERE id MOD 10 = 3", "UPDATE app.t SET n = n + 1 WHERE id MOD 10 = 3"},
			}[i%3]
			east.exec(t, fmt.Sprintf(`BEGIN;
 INSERT INTO app.bulk WITH RECURSIVE d AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM d WHERE n < 69) SELECT %d + 70 * a.n + b.n FROM d a, d b;
 %s; COMMIT`, 4900*i, writes[0]))
			east.exec(t, writes[1])
		}
		if err := east.proxy.Heal(); err != nil {
			t.Fatal(err)
		}
		c.awaitEqual(time.Minute, "app.t", "app.bulk")
		log := c.log.tail(1 << 20)
		if failed, gave := strings.Count(log, failedBeside), strings.Count(log, gaveWay); failed+gave > 0 {
			t.Errorf("%d groups came too early, %d times groups gave way", failed, gave)
		}
	})
}

// A group that has done its part holds locks while it waits for the one before. When that one needs them, by way of an
// application's transaction, the group gives way: neither server nor application could know why they wait.
func TestGroupGivesWay(t *testing.T) {
	parallel(t, func(t *testing.T, c *cluster, east, west *site) {
		tx := west.lock(t, 1)
		east.exec(t, "UPDATE app.t SET n = 1 WHERE id = 1")
		east.exec(t, "UPDATE app.t SET n = 1 WHERE id = 2")
		awaitSoon(t, 30*time.Second, func() error {
			if got := west.uncommitted(t)[:2]; !slices.Equal(got, []int{0, 1}) {
				return fmt.Errorf("the row behind a locked one and that one are %v", got)
			}
			return nil
		})
		if _, err := tx.Exec("UPDATE app.t SET n = -1 WHERE id = 2"); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		c.awaitEqual(30*time.Second, "app.t")
		if !strings.Contains(c.log.tail(1<<20), gaveWay) {
			t.Error("no group gave way")
		}
	})
}

// A conflict in one of several groups is decided as ever, and what came behind it follows.
func TestConflictBesideOtherGroups(t *testing.T) {
	parallel(t, func(t *testing.T, c *cluster, east, west *site) {
		for _, s := range c.sites {
			if err := s.proxy.Cut(); err != nil {
				t.Fatal(err)
			}
		}
		for k := 1; k <= 20; k++ {
			for id := 1; id <= 8; id++ {
				east.exec(t, "UPDATE app.t SET n = ? WHERE id = ?", k, id)
			}
		}
		next := time.Now().Unix() + 1
		await(t, 30*time.Second, func() error { // MariaDB counts in seconds
			return west.shows("SELECT COUNT(*) FROM (SELECT 1) one WHERE UNIX_TIMESTAMP() > ?", next)
		})
		west.exec(t, "UPDATE app.t SET n = -1 WHERE id = 4") // later than all: it wins
		for _, s := range c.sites {
			if err := s.proxy.Heal(); err != nil {
				t.Fatal(err)
			}
		}
		c.awaitLinks(time.Minute)
		c.awaitEqual(30*time.Second, "app.t")
		if got := numbers(t, east.db); !slices.Equal(got, []int{20, 20, 20, -1, 20, 20, 20, 20}) {
			t.Errorf("the rows are %v", got)
		}
	})
}
