package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"replicator/sandbox"
)

// TestTombstonesAreTrimmed: what settled a clash is removed when it is old, the rest stays, and replication takes no notice.
func TestTombstonesAreTrimmed(t *testing.T) {
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB118)
	c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v INT UNIQUE)",
		"CREATE TABLE app.passed (site INT PRIMARY KEY, n INT)")
	c.start()
	c.awaitLinks(30 * time.Second)
	c.clash(1)
	for _, s := range c.sites { // not old enough
		s.unlogged(t, "UPDATE replicator.tombstone SET written_at = written_at - INTERVAL 6 DAY")
	}
	kept := c.tombstones()
	c.clash(2)
	aged := 0
	for _, s := range c.sites {
		aged += s.unlogged(t, "UPDATE replicator.tombstone SET written_at = written_at - INTERVAL 7 DAY WHERE written_at > UTC_TIMESTAMP() - INTERVAL 1 DAY")
	}
	if kept == 0 || aged == 0 {
		t.Fatalf("%d tombstones are to be kept, %d to be removed", kept, aged)
	}
	await(t, 25*time.Second, func() error {
		if n := c.tombstones(); n != kept {
			return fmt.Errorf("%d tombstones are left, want %d", n, kept)
		}
		return nil
	})
	// A row that was buried is written again: its tombstone's end is no change that it could lose to.
	c.sites[1].exec(t, "REPLACE INTO app.t VALUES (10, 10), (11, 11)")
	await(t, 20*time.Second, func() error { return errors.Join(c.sites[0].has("app.t", 10), c.sites[0].has("app.t", 11)) })
	c.awaitEqual(20*time.Second, "app.t")
	c.awaitLinks(10 * time.Second)
}

// clash gives two rows one value of a unique key, on two servers that do not see each other, and waits until it is settled.
func (c *cluster) clash(v int) {
	c.tb.Helper()
	west := c.sites[1]
	if err := west.proxy.Cut(); err != nil {
		c.tb.Fatal(err)
	}
	c.awaitLink(10*time.Second, "east", "west", "retrying")
	for i, s := range c.sites {
		s.exec(c.tb, "INSERT INTO app.t VALUES (?, ?)", 10*v+i, v)
	}
	if err := west.proxy.Heal(); err != nil {
		c.tb.Fatal(err)
	}
	c.awaitLinks(30 * time.Second)
	// The rows are equal before every link has settled the clash. What the servers wrote has been read when the first
	// round is over, and how the others settled it when the second one is.
	for round := range 2 {
		for i, s := range c.sites {
			s.exec(c.tb, "REPLACE INTO app.passed VALUES (?, ?)", i, 2*v+round)
		}
		await(c.tb, 30*time.Second, func() error { return c.havePassed(2*v + round) })
	}
	c.awaitEqual(30*time.Second, "app.t")
}

// havePassed reports whether every link has applied a round of clash.
func (c *cluster) havePassed(round int) error {
	for _, s := range c.sites {
		var n int
		if err := s.db.QueryRow("SELECT COUNT(*) FROM app.passed WHERE n = ?", round).Scan(&n); err != nil {
			return err
		}
		if n != len(c.sites) {
			return fmt.Errorf("%s has %d of %d writes of round %d", s.name, n, len(c.sites), round)
		}
	}
	return nil
}

// tombstones counts those of all servers.
func (c *cluster) tombstones() (total int) {
	c.tb.Helper()
	for _, s := range c.sites {
		var n int
		if err := s.db.QueryRow("SELECT COUNT(*) FROM replicator.tombstone").Scan(&n); err != nil {
			c.tb.Fatal(err)
		}
		total += n
	}
	return total
}

// unlogged runs a statement that is not in the binlog, and returns how many rows it changed.
func (s *site) unlogged(tb testing.TB, statement string) int {
	tb.Helper()
	ctx := context.Background()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	var changed int64
	for _, q := range []string{"SET SESSION sql_log_bin = 0", statement, "SET SESSION sql_log_bin = 1"} {
		result, err := conn.ExecContext(ctx, q)
		if err != nil {
			tb.Fatalf("on %s: %s: %v", s.name, q, err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			tb.Fatal(err)
		}
		changed += n
	}
	return int(changed)
}
