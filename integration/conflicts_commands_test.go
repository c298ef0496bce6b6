package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"replicator/journal"
	"replicator/sandbox"
)

// TestConflictsOfServerAway: what a server lost is listed under its name while it cannot be asked, and who could not be
// asked is said.
func TestConflictsOfServerAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MySQL97)
	c.everywhere("CREATE DATABASE app", plainTable)
	c.start()
	c.awaitLinks(30 * time.Second)
	east, west := c.sites[0], c.sites[1]
	west.exec(t, "INSERT INTO app.t VALUES (1, 'first')")
	c.awaitRow(1, "first")
	if err := east.proxy.Cut(); err != nil {
		t.Fatal(err)
	}
	c.awaitLink(10*time.Second, "west", "east", "retrying")
	east.exec(t, "UPDATE app.t SET v = 'lost' WHERE id = 1")
	west.exec(t, "UPDATE app.t SET v = 'won' WHERE id = 1")
	if err := east.proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	c.awaitLinks(30 * time.Second)
	c.awaitRow(1, "won")
	c.awaitCounts(1, 1)
	c.awaitOneConflict()

	if err := east.proxy.Cut(); err != nil {
		t.Fatal(err)
	}
	c.awaitLink(10*time.Second, "west", "east", "retrying")
	for _, query := range []string{"", "?server=east"} {
		list, err := c.conflicts(query)
		c.awayShows(list, err)
	}
	for _, arguments := range [][]string{{"--table", "*.t"}, {"--server", "east"}} {
		out, err := c.output(append([]string{"conflicts", "list", "--json"}, arguments...)...)
		if err == nil || !strings.Contains(err.Error(), "east could not be asked") {
			t.Errorf("who could not be asked is not said: %v", err)
		}
		var list []journal.Document
		err = json.Unmarshal([]byte(out), &list)
		c.awayShows(list, err)
	}
}

// TestRestoreColumnByColumn: what was lost comes back in two steps, on all servers, and in between everybody knows what is
// missing.
func TestRestoreColumnByColumn(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB118)
	c.everywhere("CREATE DATABASE app", "CREATE TABLE app.pay (id INT PRIMARY KEY, a INT, b INT, total INT AS (a + b) STORED)")
	c.start()
	c.awaitLinks(30 * time.Second)
	east, west := c.sites[0], c.sites[1]
	holds := func(want string) {
		t.Helper()
		await(t, 20*time.Second, func() error {
			for _, s := range c.sites {
				if err := s.holds("SELECT CONCAT(a, ' ', b, ' ', total) FROM app.pay WHERE id = 1", want); err != nil {
					return err
				}
			}
			return nil
		})
	}
	west.exec(t, "INSERT INTO app.pay (id, a, b) VALUES (1, 1, 1)")
	holds("1 1 2")
	if err := east.proxy.Cut(); err != nil {
		t.Fatal(err)
	}
	c.awaitLink(10*time.Second, "west", "east", "retrying")
	east.exec(t, "UPDATE app.pay SET a = 5, b = 6 WHERE id = 1")
	west.exec(t, "UPDATE app.pay SET a = 7, b = 8 WHERE id = 1")
	if err := east.proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	c.awaitLinks(30 * time.Second)
	c.awaitCounts(1, 1)
	d := c.awaitOneConflict()
	if d.Restored != nil {
		t.Fatalf("conflict %+v", d)
	}
	lost := []int{5, 6}
	won := []int{7, 8}
	if *d.Winner.Origin == "east" { // MariaDB's time has whole seconds
		lost, won = won, lost
	}
	says := func(want string, args ...string) {
		t.Helper()
		if text := c.command(append([]string{"conflicts"}, args...)...); !strings.Contains(text, want) {
			t.Errorf("conflicts %s prints no %q:\n%s", strings.Join(args, " "), want, text)
		}
	}
	says("these columns are restored: a; these are not: b, total", "restore", d.ID, "--columns", " a")
	holds(fmt.Sprint(lost[0], " ", won[1], " ", lost[0]+won[1]))
	says("restored: a  ", "list")
	says("replicator conflicts restore "+d.ID+" --columns b,total", "show", d.ID)
	says("was restored: a, and stays so in the journals of: "+strings.Join(d.Servers, ", "), "ack", d.ID)
	says("is restored; it says so", "restore", d.ID, "--columns", "b")
	holds(fmt.Sprint(lost[0], " ", lost[1], " ", lost[0]+lost[1]))
	says("What was lost has been restored.", "show", d.ID)
	c.awaitCounts(0, 1)
	c.awaitEqual(10*time.Second, "app.pay")
}

// awaitOneConflict waits until all servers have one conflict in their journals, and returns it.
func (c *cluster) awaitOneConflict() (d journal.Document) {
	c.tb.Helper()
	await(c.tb, 20*time.Second, func() error {
		list, err := c.conflicts("?table=app.*")
		if err != nil {
			return err
		}
		if len(list) != 1 || len(list[0].Servers) != len(c.sites) || len(list[0].Unreachable) != 0 {
			return fmt.Errorf("conflicts: %+v", list)
		}
		d = list[0]
		return nil
	})
	return d
}

// awayShows demands the conflict that east lost, while east is away.
func (c *cluster) awayShows(list []journal.Document, err error) {
	c.tb.Helper()
	if err != nil || len(list) != 1 {
		c.tb.Errorf("conflicts: %+v %v", list, err)
		return
	}
	d := list[0]
	if d.Loser.Origin == nil || *d.Loser.Origin != "east" || !slices.Equal(d.Servers, []string{"west"}) || !slices.Equal(d.Unreachable, []string{"east"}) {
		c.tb.Errorf("conflict %+v", d)
	}
}
