package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"replicator/mesh"
	"replicator/sandbox"
)

// expectFault checks that all links of north are in a state, each with one error of a class whose text and remedy hold
// the given words, that the link between the other two works, and that no secret is shown.
func (c *cluster) expectFault(state mesh.LinkState, class, message, remedy string) {
	c.tb.Helper()
	for _, l := range [][2]string{{"north", "east"}, {"east", "north"}, {"north", "west"}, {"west", "north"}} {
		c.expectLinkFault(l[0], l[1], state, class, message, remedy)
	}
	c.expectOthersGoOn()
}

func (c *cluster) expectLinkFault(from, to string, state mesh.LinkState, class, message, remedy string) {
	c.tb.Helper()
	link := c.awaitLink(60*time.Second, from, to, state)
	e := link.Error
	if e == nil || e.Class != class || !strings.Contains(e.Message, message) || !strings.Contains(e.Remedy, remedy) {
		c.tb.Errorf("link %s-%s shows %+v, want class %s, a message with %q, a remedy with %q", from, to, e, class, message, remedy)
	}
	if strings.Contains(c.log.String(), password) {
		c.tb.Error("the password is in the log")
	}
}

func (c *cluster) expectOthersGoOn() {
	c.tb.Helper()
	c.awaitLink(60*time.Second, "east", "west", mesh.Running)
	c.awaitLink(60*time.Second, "west", "east", mesh.Running)
	c.marks++
	mark := 1_000_000 + c.marks
	east, west := c.sites[0], c.sites[1]
	east.exec(c.tb, "INSERT INTO app.t VALUES (?, 'mark')", mark)
	await(c.tb, 30*time.Second, func() error { return west.has("app.t", mark) })
}

func (s *site) has(table string, id int) error {
	var n int
	return s.db.QueryRow("SELECT id FROM "+table+" WHERE id = ?", id).Scan(&n)
}

const plainTable = "CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(50)) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci"

func TestUnusableServersHoldTheirOwnLinksOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MySQL97, sandbox.MariaDB118)
	c.everywhere("CREATE DATABASE app", plainTable)
	north := c.sites[2]

	north.password = "wrong"
	c.start()
	c.expectFault(mesh.Retrying, "login", "Access denied", "password")
	await(t, 10*time.Second, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		if r := s.Servers[2].Reachable; r == nil || !*r {
			return errors.New("a server that refuses the login does not count as reachable")
		}
		return nil
	})
	c.stop()
	north.password = password

	if err := north.proxy.Cut(); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.expectFault(mesh.Retrying, "network", "north", "")
	if err := north.proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	c.awaitLinks(60 * time.Second) // heals by itself
	c.awaitEqual(30*time.Second, "app.t")

	north.exec(t, "ALTER TABLE app.t ADD COLUMN extra INT NOT NULL")
	c.sites[0].exec(t, "INSERT INTO app.t VALUES (1, 'no longer fits')")
	c.expectLinkFault("east", "north", mesh.Stopped, "table_definition", "extra", "definition")
	c.expectOthersGoOn()
	north.exec(t, "ALTER TABLE app.t DROP COLUMN extra")
	c.resume("east", "north")
	c.resume("west", "north")
	c.awaitLinks(60 * time.Second)
	c.awaitEqual(30*time.Second, "app.t")
}

// resume runs the command that remedies name.
func (c *cluster) resume(from, to string) {
	c.tb.Helper()
	c.command("link", "resume", from, to)
}

// command runs the program for a moment and returns its output.
func (c *cluster) command(args ...string) string {
	c.tb.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.tb.Fatalf("replicator %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestServersThatCannotReplicateAreRefused(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		options sandbox.Options
		message string
	}{
		{"mysql without binlog", sandbox.Options{Flavor: sandbox.MySQL97, Args: []string{"--skip-log-bin"}}, "log_bin"},
		{"mysql without GTIDs", sandbox.Options{Flavor: sandbox.MySQL97, Args: []string{"--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"}}, "gtid_mode"},
		{"mariadb without binlog", sandbox.Options{Flavor: sandbox.MariaDB118, Args: []string{"--skip-log-bin"}}, "log_bin"},
		{"mariadb with mixed format", sandbox.Options{Flavor: sandbox.MariaDB1011, Args: []string{"--binlog-format=MIXED"}}, "binlog_format"},
	}
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			c := newClusterOf(t, sandbox.Options{Flavor: sandbox.MariaDB118}, sandbox.Options{Flavor: sandbox.MariaDB118}, k.options)
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.expectFault(mesh.Stopped, "precondition", k.message, "")
		})
	}
}

// An event that cannot be replicated stops the links from its server and from no other.
func TestUnknownEventStopsItsSource(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavor, flavor, flavor)
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			conn, err := c.sites[2].db.Conn(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, q := range []string{"XA START 'x'", "INSERT INTO app.t VALUES (5, 'xa')", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"} {
				if _, err := conn.ExecContext(context.Background(), q); err != nil {
					t.Fatalf("%s: %v", q, err)
				}
			}
			c.expectLinkFault("north", "east", mesh.Stopped, "unknown_event", "XA", "")
			c.expectLinkFault("north", "west", mesh.Stopped, "unknown_event", "XA", "")
			c.expectOthersGoOn()
		})
	}
}

// A source whose binlog was purged past the checkpoint stops, with the command that repairs it.
func TestPurgedBinlogStopsItsSource(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			options := sandbox.Options{Flavor: flavor}
			if flavor.MariaDB() {
				options.Args = []string{"--slave-connections-needed-for-purge=0"} // or PURGE keeps what no replica has read
			}
			c := newClusterOf(t, options, options, options)
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			c.stop()
			north := c.sites[2]
			north.exec(t, "INSERT INTO app.t VALUES (7, 'purged')")
			north.exec(t, "FLUSH BINARY LOGS")
			north.exec(t, "INSERT INTO app.t VALUES (8, 'kept')")
			north.purge(t)
			c.start()
			c.expectLinkFault("north", "east", mesh.Stopped, "binlog_purged", "north", "replicator")
			c.expectLinkFault("north", "west", mesh.Stopped, "binlog_purged", "north", "replicator")
			c.expectOthersGoOn()
			if out, err := c.try("check"); err == nil || !strings.Contains(out, "history") {
				t.Errorf("check passes a purged binlog (%v):\n%s", err, out)
			}

			// What docs/operations.md says under "Starting over".
			c.stop()
			c.everywhere("DELETE FROM app.t", "DROP DATABASE replicator")
			c.start()
			c.awaitLinks(60 * time.Second)
			north.exec(t, "INSERT INTO app.t VALUES (9, 'anew')")
			await(t, 20*time.Second, func() error { return c.sites[0].has("app.t", 9) })
			c.awaitEqual(20*time.Second, "app.t")
		})
	}
}

// purge removes every binlog file but the last. A server may keep a file a moment longer than it is told to.
func (s *site) purge(t testing.TB) {
	t.Helper()
	last := s.binlogEnd(t).File
	await(t, 20*time.Second, func() error {
		s.exec(t, "PURGE BINARY LOGS TO '"+last+"'")
		rows, err := s.db.Query("SHOW BINARY LOGS")
		if err != nil {
			return err
		}
		defer rows.Close()
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		var file string
		into := []any{&file}
		for range columns[1:] {
			into = append(into, new(any))
		}
		if !rows.Next() {
			return rows.Err()
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if file != last {
			return fmt.Errorf("%s still has %s, the last is %s", s.name, file, last)
		}
		return nil
	})
}
