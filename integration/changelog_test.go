package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"replicator/change"
	"replicator/sandbox"
	"replicator/server"
)

const logSettings = `conflict: {max_clock_skew: 60s, change_log: {table: app.change_log}}
tables: {rules: [{match: "app.timed*", time_column: at}]}
`

// changeLog are the statements that make the log as `replicator init --change-log` prints it.
var changeLog = server.ChangeLogTable(change.TableName{Database: "app", Table: "change_log"})

// The log as an application may have had it for long: numbered by each server alone.
const ownLog = "CREATE TABLE app.change_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id INT, `table` VARCHAR(64), record_id INT, " +
	"comment VARCHAR(200), timestamp TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB"

// transaction commits statements together, as an application does that must expect contention with the links.
func (s *site) transaction(tb testing.TB, statements ...string) {
	tb.Helper()
	err := s.together(statements...)
	for contention(err) {
		err = s.together(statements...)
	}
	if err != nil {
		tb.Fatalf("on %s: %v", s.name, err)
	}
}

func (s *site) together(statements ...string) error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	for _, q := range statements {
		if _, err := tx.Exec(q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return tx.Commit()
}

// logAt is a row of the change_log with a time, in seconds since 1970.
func logAt(at time.Time) string {
	return fmt.Sprintf("INSERT INTO app.change_log (user_id, `table`, record_id, comment, timestamp) VALUES (1, 't', 1, 'x', FROM_UNIXTIME(%f))",
		float64(at.UnixMicro())/1e6)
}

func (s *site) holds(query, want string) error {
	var got string
	if err := s.db.QueryRow(query).Scan(&got); err != nil {
		return fmt.Errorf("on %s: %s: %w", s.name, query, err)
	}
	if got != want {
		return fmt.Errorf("%s answers %s to %s, want %s", s.name, got, query, want)
	}
	return nil
}

// all waits until a query gives one answer on every server.
func (c *cluster) all(query, want string) {
	c.tb.Helper()
	await(c.tb, 30*time.Second, func() error {
		for _, s := range c.sites {
			if err := s.holds(query, want); err != nil {
				return err
			}
		}
		return nil
	})
}

// The later of two concurrent changes is the one that the application says is later: by its change_log, or by a column.
func TestApplicationSaysWhichChangeIsLater(t *testing.T) {
	t.Parallel()
	for _, flavors := range [][]sandbox.Flavor{
		{sandbox.MySQL97, sandbox.MariaDB118, sandbox.MySQL97},
		{sandbox.MariaDB1011, sandbox.MySQL97, sandbox.MariaDB118},
	} {
		t.Run(fmt.Sprint(flavors), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavors...)
			c.extra = logSettings
			c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(20))",
				"CREATE TABLE app.timed (id INT PRIMARY KEY, v VARCHAR(20), at TIMESTAMP(6) NULL)")
			c.everywhere(changeLog...)
			c.start()
			c.awaitLinks(30 * time.Second)
			east, west := c.sites[0], c.sites[1]
			east.transaction(t, "INSERT INTO app.t VALUES (1,'first'),(2,'first')", "INSERT INTO app.timed VALUES (1,'first',NULL)")
			c.awaitEqual(20*time.Second, "app.t", "app.timed")
			if err := east.proxy.Cut(); err != nil {
				t.Fatal(err)
			}

			now := time.Now()
			after := func(d time.Duration) time.Time { return now.Add(d) }
			// Without anything said, the later commit wins.
			east.exec(t, "UPDATE app.t SET v='east' WHERE id=1")
			committed := time.Now().Unix() // in the second of the commit, or behind it
			await(t, 5*time.Second, func() error { return west.holds(fmt.Sprintf("SELECT NOW() > FROM_UNIXTIME(%d)", committed), "1") })
			west.exec(t, "UPDATE app.t SET v='west' WHERE id=1")
			// By the log, the one that was committed first.
			east.transaction(t, "UPDATE app.t SET v='east' WHERE id=2", logAt(after(40*time.Second)))
			west.transaction(t, "UPDATE app.t SET v='west' WHERE id=2", logAt(after(30*time.Second)))
			// By the column, too. (East's clock is at 40 s from the log, west's at 30: without the column east would win.)
			timed := func(who string, at time.Time) string {
				return fmt.Sprintf("UPDATE app.timed SET v='%s', at=FROM_UNIXTIME(%f) WHERE id=1", who, float64(at.UnixMicro())/1e6)
			}
			west.exec(t, timed("west", after(55*time.Second)))
			east.exec(t, timed("east", after(50*time.Second)))

			if err := east.proxy.Heal(); err != nil {
				t.Fatal(err)
			}
			c.all("SELECT v FROM app.t WHERE id=1", "west")
			c.all("SELECT v FROM app.t WHERE id=2", "east")
			c.all("SELECT v FROM app.timed WHERE id=1", "west")
			c.awaitEqual(20*time.Second, "app.t", "app.timed", "app.change_log")
		})
	}
}

// hard-cases.md 16: an application that writes 2099 does not poison the mesh.
func TestTimeFarInTheFuture(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011)
	c.extra = logSettings
	c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(20))",
		"CREATE TABLE app.timed (id INT PRIMARY KEY, v VARCHAR(20), at DATETIME(6))")
	c.everywhere(changeLog...)
	c.start()
	c.awaitLinks(30 * time.Second)
	for i, s := range c.sites {
		s.transaction(t, fmt.Sprintf("INSERT INTO app.timed VALUES (%d,'%s','2099-12-31 23:59:59')", i, s.name))
		s.transaction(t, fmt.Sprintf("INSERT INTO app.t VALUES (%d,'%s')", i, s.name), logAt(time.Date(2037, 1, 1, 0, 0, 0, 0, time.UTC)))
	}
	c.all("SELECT COUNT(*) FROM app.t", "3")
	c.all("SELECT COUNT(*) FROM app.timed", "3")
	// What is changed on top of it stands, by whomever and whatever time it says.
	west, north := c.sites[1], c.sites[2]
	west.exec(t, "UPDATE app.timed SET v='on top', at='2020-01-01' WHERE id=0")
	north.exec(t, "UPDATE app.t SET v='on top' WHERE id=0")
	c.all("SELECT v FROM app.timed WHERE id=0", "on top")
	c.all("SELECT v FROM app.t WHERE id=0", "on top")
	c.awaitLinks(10 * time.Second)
	latest := time.Now().Add(65 * time.Second)
	for _, s := range c.sites {
		for _, at := range s.clocks(t) {
			if at.Wall().After(latest) {
				t.Errorf("%s knows of the time %s", s.name, at)
			}
		}
	}
}

// clocks are the times in the markers of a server.
func (s *site) clocks(tb testing.TB) (times []change.Time) {
	tb.Helper()
	rows, err := s.db.Query("SELECT clock FROM replicator.marker")
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var raw []byte
		if err := rows.Scan(&raw); err != nil {
			tb.Fatal(err)
		}
		clock, err := change.DecodeClock(raw)
		if err != nil {
			tb.Fatal(err)
		}
		times = append(times, clock.Time)
	}
	if rows.Err() != nil || len(times) == 0 {
		tb.Fatalf("%s has %d markers: %v", s.name, len(times), rows.Err())
	}
	return times
}

// Rows of the change_log of all sites are everywhere, each once, although every site numbers its own; also those of
// transactions whose other rows lost a conflict, and when the program is killed meanwhile.
func TestChangeLogOfAllSites(t *testing.T) {
	t.Parallel()
	const each = 40
	for _, m := range []struct {
		name    string
		flavors []sandbox.Flavor
		log     []string
	}{
		{"a key with the site, mysql", []sandbox.Flavor{sandbox.MySQL97, sandbox.MySQL97, sandbox.MariaDB118}, changeLog},
		{"a key with the site, mariadb", []sandbox.Flavor{sandbox.MariaDB1011, sandbox.MariaDB1011, sandbox.MariaDB118}, changeLog},
		{"numbers alone, mysql", []sandbox.Flavor{sandbox.MySQL97, sandbox.MySQL97, sandbox.MariaDB118}, []string{ownLog}},
		{"numbers alone, mariadb", []sandbox.Flavor{sandbox.MariaDB1011, sandbox.MariaDB1011, sandbox.MariaDB118}, []string{ownLog}},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, m.flavors...)
			c.extra = logSettings
			c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(20))")
			c.everywhere(m.log...)
			c.start()
			c.awaitLinks(30 * time.Second)
			c.sites[0].exec(t, "INSERT INTO app.t VALUES (1,'first')")
			c.all("SELECT COUNT(*) FROM app.t", "1")
			var writers sync.WaitGroup
			for _, s := range c.sites {
				writers.Go(func() {
					for i := range each {
						s.transaction(t, fmt.Sprintf("UPDATE app.t SET v='%s %d' WHERE id=1", s.name, i),
							fmt.Sprintf("INSERT INTO app.change_log (user_id, `table`, record_id, comment) VALUES (7, 't', 1, '%s %d')", s.name, i))
					}
				})
			}
			await(t, 20*time.Second, func() error {
				var n int
				if err := c.sites[1].db.QueryRow("SELECT COUNT(*) FROM app.change_log").Scan(&n); err != nil || n > each/2 {
					return err
				}
				return fmt.Errorf("%d rows yet", n)
			})
			c.kill()
			c.start()
			writers.Wait()
			c.all("SELECT CONCAT(COUNT(*), ' ', COUNT(DISTINCT comment)) FROM app.change_log", fmt.Sprintf("%d %[1]d", each*len(c.sites)))
			c.awaitEqual(20*time.Second, "app.t")
			if len(m.log) > 1 {
				c.awaitEqual(20*time.Second, "app.change_log")
				c.all("SELECT COUNT(DISTINCT site) FROM app.change_log", fmt.Sprint(len(c.sites)))
			}

			// Each site trims a log that it numbers by itself; one whose rows are the same everywhere is trimmed everywhere.
			c.sites[0].exec(t, "UPDATE app.change_log SET comment=CONCAT('> ', comment)")
			c.sites[0].exec(t, "DELETE FROM app.change_log WHERE comment LIKE '> west%'")
			c.sites[0].exec(t, "INSERT INTO app.t VALUES (2,'behind')")
			c.all("SELECT COUNT(*) FROM app.t", "2")
			left, changed := each*len(c.sites), 0
			if len(m.log) > 1 {
				left, changed = left-each, left-each
			}
			for _, s := range c.sites[1:] {
				if err := s.holds("SELECT CONCAT(COUNT(*), ' ', COALESCE(SUM(comment LIKE '> %'), 0)) FROM app.change_log", fmt.Sprint(left, " ", changed)); err != nil {
					t.Error(err)
				}
			}
			c.awaitLinks(10 * time.Second)
		})
	}
}

// A server's clocks depend on where the time is taken from, so a process that takes it from elsewhere is refused.
func TestOtherTimesAreRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MariaDB1011, sandbox.MariaDB1011)
	c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(20))")
	c.everywhere(changeLog...)
	c.start()
	c.awaitLinks(30 * time.Second)
	c.stop()
	c.extra = logSettings
	c.start()
	await(t, 20*time.Second, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		for _, l := range s.Links {
			if l.Error == nil || !strings.Contains(l.Error.Message, "the mesh was started with max_clock_skew=10s") {
				return fmt.Errorf("link %s-%s is %s: %+v", l.From, l.To, l.State, l.Error)
			}
		}
		return nil
	})
	if out, err := c.try("check"); err == nil || !strings.Contains(out, "the configuration says max_clock_skew=1m0s change_log=") {
		t.Errorf("check says %v:\n%s", err, out)
	}
}
