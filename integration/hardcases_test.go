package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"replicator/mesh"
	"replicator/sandbox"
)

// apart gives the named servers to a process of their own, which reaches every server through proxies of its own. What is
// left stays with c.
func (c *cluster) apart(names ...string) *cluster {
	c.tb.Helper()
	other := &cluster{
		tb: c.tb, dir: c.tb.TempDir(), binary: c.binary, extra: c.extra, log: &logBuffer{}, listen: sandbox.AddressTest(c.tb),
	}
	theirs := map[string]bool{}
	for _, n := range names {
		theirs[n] = true
	}
	for _, s := range c.sites {
		twin := *s
		twin.proxy = sandbox.ProxyTest(c.tb, s.server.Addr())
		if theirs[s.name] {
			s.own = ", own: false"
		} else {
			twin.own = ", own: false"
		}
		other.sites = append(other.sites, &twin)
	}
	c.tb.Cleanup(func() {
		other.kill()
		if c.tb.Failed() {
			c.tb.Logf("the log of the process of %s:\n%s", strings.Join(names, " and "), other.log.tail(100))
		}
	})
	return other
}

func (s *site) hasNot(table string, id int) error {
	if err := s.has(table, id); err == nil {
		return fmt.Errorf("%s has row %d", s.name, id)
	}
	return nil
}

// hard-cases.md 35: a delete overtakes the insert that it follows, the owner crashes, the insert arrives.
func TestDeleteOvertakesInsert(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB118, sandbox.MySQL97)
	c.everywhere("CREATE DATABASE app", plainTable)
	north := c.apart("north")
	c.start()
	north.start()
	c.awaitLinks(30 * time.Second)
	north.awaitLinks(30 * time.Second)
	if err := north.sites[0].proxy.Cut(); err != nil { // north no longer hears of east
		t.Fatal(err)
	}
	c.sites[0].exec(t, "INSERT INTO app.t VALUES (1, 'short-lived'), (2, 'stays')")
	await(t, 20*time.Second, func() error { return c.sites[1].has("app.t", 1) })
	c.sites[1].exec(t, "DELETE FROM app.t WHERE id = 1")
	c.sites[1].exec(t, "INSERT INTO app.t VALUES (3, 'behind the delete')")
	await(t, 20*time.Second, func() error { return c.sites[2].has("app.t", 3) }) // so north has the delete
	north.kill()
	north.start()
	if err := north.sites[0].proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	await(t, 60*time.Second, func() error { return c.sites[2].has("app.t", 2) }) // so north has the insert
	c.awaitEqual(20*time.Second, "app.t")
	if err := c.sites[2].hasNot("app.t", 1); err != nil {
		t.Error(err)
	}
}

// hard-cases.md 39: a server that joins later gets everything since the others' birth, by numbers that all readers share.
func TestServerJoinsLater(t *testing.T) {
	t.Parallel()
	for _, m := range meshes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, m.flavors...)
			c.everywhere("CREATE DATABASE app", plainTable)
			all := c.sites
			c.sites = all[:2]
			c.start()
			c.awaitLinks(30 * time.Second)
			for i := range 50 {
				all[i%2].exec(t, "INSERT INTO app.t VALUES (?, 'before')", i)
			}
			all[0].exec(t, "UPDATE app.t SET v = 'changed' WHERE id < 10")
			c.awaitEqual(20*time.Second, "app.t")
			c.stop()
			c.sites = all
			c.start()
			c.awaitLinks(60 * time.Second)
			c.awaitEqual(30*time.Second, "app.t")
			all[2].exec(t, "UPDATE app.t SET v = 'from the new one' WHERE id >= 40")
			c.awaitEqual(20*time.Second, "app.t")
			if err := all[0].has("app.t", 45); err != nil {
				t.Error(err)
			}
		})
	}
}

// hard-cases.md 45: a large transaction and a hot row meet local writes to the same table; both get through.
func TestLargeTransactionMeetsLocalWrites(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			const rows = 50_000
			c := newCluster(t, flavor, flavor)
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			var values []string
			for id := range rows {
				values = append(values, fmt.Sprintf("(%d,'new')", id))
			}
			c.sites[0].exec(t, "INSERT INTO app.t VALUES "+strings.Join(values, ","))
			c.awaitEqual(60*time.Second, "app.t")

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var writes atomic.Int64
			var writer sync.WaitGroup
			writer.Go(func() { // about 500 a second, and a tenth of them to one row
				tick := time.NewTicker(2 * time.Millisecond)
				defer tick.Stop()
				for i := 0; ; i++ {
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
					}
					id := (i * 7919) % rows
					if i%10 == 0 {
						id = 1
					}
					if _, err := c.sites[1].db.Exec("UPDATE app.t SET v = ? WHERE id = ?", fmt.Sprint("local ", i), id); err != nil && !contention(err) {
						t.Error(err)
						return
					}
					writes.Add(1)
				}
			})
			began := time.Now()
			c.sites[0].transaction(t, "UPDATE app.t SET v = CONCAT('large ', id)")
			for range 20 {
				c.sites[0].exec(t, "UPDATE app.t SET v = 'hot' WHERE id = 1")
			}
			c.sites[0].exec(t, "INSERT INTO app.t VALUES (?, 'behind')", rows)
			await(t, 60*time.Second, func() error { return c.sites[1].has("app.t", rows) })
			t.Logf("a transaction of %d rows got through in %s beside %d local writes", rows, time.Since(began).Round(time.Millisecond), writes.Load())
			cancel()
			writer.Wait()
			c.awaitEqual(60*time.Second, "app.t")
		})
	}
}

// hard-cases.md 26: servers are killed under load. Their own durability is full, so nothing acknowledged is lost.
func TestServersAreKilled(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			o := sandbox.Options{Flavor: flavor, Durable: true}
			c := newClusterOf(t, o, o)
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			written := 0
			for round := range 3 {
				victim := c.sites[round%2]
				ctx, cancel := context.WithCancel(t.Context())
				var load sync.WaitGroup
				load.Go(func() {
					for ctx.Err() == nil {
						_, err := c.sites[0].db.Exec("INSERT INTO app.t VALUES (?, 'x')", written)
						var answer *mysql.MySQLError
						switch {
						case err == nil, errors.As(err, &answer) && answer.Number == 1062: // the answer was lost, the row is there
							written++
						case errors.As(err, &answer) && answer.Number != 1053:
							t.Errorf("insert: %v", err)
							return
						}
					}
				})
				await(t, 20*time.Second, func() error { return victim.atLeast(50 * (round + 1)) })
				if err := victim.server.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := victim.server.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				cancel()
				load.Wait()
			}
			c.awaitLinks(60 * time.Second)
			c.awaitEqual(60*time.Second, "app.t")
			if err := c.sites[1].atLeast(written); err != nil {
				t.Error(err)
			}
		})
	}
}

// atLeast reports whether the plain table has that many rows.
func (s *site) atLeast(want int) error {
	var n int
	if err := s.db.QueryRow("SELECT COUNT(*) FROM app.t").Scan(&n); err != nil {
		return err
	}
	if n < want {
		return fmt.Errorf("%s has %d rows, want at least %d", s.name, n, want)
	}
	return nil
}

// Where only one direction is listed, changes flow in that direction only.
func TestOneWayLink(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MySQL97)
	c.extra = "links: [{from: east, to: west}]\ntables: {include: [\"app.*\"], exclude: [\"*.tmp_*\"]}\n"
	c.everywhere("CREATE DATABASE app", plainTable, "CREATE TABLE app.tmp_x (id INT PRIMARY KEY)", "CREATE DATABASE other",
		"CREATE TABLE other.t (id INT PRIMARY KEY)")
	c.start()
	c.awaitLinks(30 * time.Second)
	c.sites[1].exec(t, "INSERT INTO app.t VALUES (1, 'of west')")
	c.sites[0].exec(t, "INSERT INTO app.tmp_x VALUES (1)")
	c.sites[0].exec(t, "INSERT INTO other.t VALUES (1)")
	c.sites[0].exec(t, "INSERT INTO app.t VALUES (2, 'of east')")
	await(t, 20*time.Second, func() error { return c.sites[1].has("app.t", 2) })
	for _, none := range []error{c.sites[0].hasNot("app.t", 1), c.sites[1].hasNot("app.tmp_x", 1), c.sites[1].hasNot("other.t", 1)} {
		if none != nil {
			t.Error(none)
		}
	}
}

// A DDL is passed over with a warning that names it; what would diverge stops its links until a person has seen to it.
func TestDDLIsNotReplicated(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavor, flavor)
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			c.everywhere("ALTER TABLE app.t ADD COLUMN more INT")
			c.sites[0].exec(t, "INSERT INTO app.t VALUES (1, 'a', 5)")
			c.sites[1].exec(t, "INSERT INTO app.t VALUES (2, 'b', 6)")
			c.awaitEqual(20*time.Second, "app.t")
			c.awaitLog("ALTER TABLE app.t ADD COLUMN more INT")
			c.sites[0].exec(t, "TRUNCATE TABLE app.t")
			c.sites[0].exec(t, "INSERT INTO app.t VALUES (3, 'c', 7)")
			stopped := c.awaitLink(20*time.Second, "east", "west", mesh.Stopped)
			if stopped.Error.Class != "ddl" || !strings.Contains(stopped.Error.Message, "TRUNCATE TABLE app.t") {
				t.Errorf("the link shows %+v", stopped.Error)
			}
			c.sites[1].exec(t, "TRUNCATE TABLE app.t")
			c.awaitLink(20*time.Second, "west", "east", mesh.Stopped) // what is resumed before says nothing of this statement
			c.resume("east", "west")
			c.resume("west", "east")
			c.awaitEqual(20*time.Second, "app.t")
			if err := c.sites[1].has("app.t", 3); err != nil {
				t.Errorf("what followed the statement: %v", err)
			}
			// A table that the other side does not have any more can be dropped.
			c.sites[1].exec(t, "CREATE TABLE app.gone (id INT PRIMARY KEY)")
			c.sites[1].exec(t, "DROP TABLE app.gone")
			c.sites[1].exec(t, "INSERT INTO app.t VALUES (4, 'd', 8)")
			c.awaitEqual(20*time.Second, "app.t")
		})
	}
}
