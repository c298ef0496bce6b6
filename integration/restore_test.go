package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"replicator/journal"
	"replicator/sandbox"
)

// row is what a server has of a row of app.t.
func (s *site) row(id int) (string, error) {
	var text string
	err := s.db.QueryRow("SELECT COALESCE(MAX(v), 'no row') FROM app.t WHERE id = ?", id).Scan(&text)
	return text, err
}

// awaitRow waits until all servers have a row alike.
func (c *cluster) awaitRow(id int, want string) {
	c.tb.Helper()
	await(c.tb, 20*time.Second, func() error {
		for _, s := range c.sites {
			got, err := s.row(id)
			if err != nil {
				return err
			}
			if got != want {
				return fmt.Errorf("%s has %q for row %d, want %q", s.name, got, id, want)
			}
		}
		return nil
	})
}

// conflicts asks the program for the journal.
func (c *cluster) conflicts(query string) (list []journal.Document, err error) {
	response, err := http.Get("http://" + c.listen + "/api/v1/conflicts" + query)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", body, err)
	}
	return list, nil
}

// awaitCounts waits until status counts so many conflicts.
func (c *cluster) awaitCounts(open, total int64) {
	c.tb.Helper()
	await(c.tb, 20*time.Second, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		if o, n := s.Conflicts.Open, s.Conflicts.Total; o == nil || n == nil || *o != open || *n != total {
			text, _ := json.Marshal(s.Conflicts)
			return fmt.Errorf("status counts %s, want %d open of %d", text, open, total)
		}
		return nil
	})
}

// TestRestoreReachesEveryServer makes a server that was cut off lose an update, a delete, and a row that was deleted
// meanwhile, and brings all of them back.
func TestRestoreReachesEveryServer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MySQL97, sandbox.MariaDB118)
	c.everywhere("CREATE DATABASE app", plainTable)
	c.start()
	c.awaitLinks(30 * time.Second)
	east, west := c.sites[0], c.sites[1]
	for id := range 4 {
		west.exec(t, "INSERT INTO app.t VALUES (?, 'first')", id)
	}
	c.awaitRow(3, "first")
	c.awaitCounts(0, 0)

	if err := east.proxy.Cut(); err != nil {
		t.Fatal(err)
	}
	c.awaitLink(10*time.Second, "west", "east", "retrying")
	east.exec(t, "UPDATE app.t SET v = 'lost update' WHERE id = 0")
	east.exec(t, "DELETE FROM app.t WHERE id = 1")
	east.exec(t, "UPDATE app.t SET v = 'lost to a delete' WHERE id = 2")
	east.exec(t, "UPDATE app.t SET v = 'no conflict' WHERE id = 3")
	west.exec(t, "UPDATE app.t SET v = 'won' WHERE id IN (0, 1)")
	west.exec(t, "DELETE FROM app.t WHERE id = 2")
	if err := east.proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	c.awaitLinks(30 * time.Second)
	for id, want := range []string{"won", "won", "no row", "no conflict"} {
		c.awaitRow(id, want)
	}
	c.awaitCounts(3, 3)

	list, err := c.conflicts("?state=open&table=app.t&server=west")
	if err != nil || len(list) != 3 {
		t.Fatalf("conflicts %+v %v", list, err)
	}
	want := map[string]string{`{"id":0}`: "lost update", `{"id":1}`: "no row", `{"id":2}`: "lost to a delete"}
	for _, d := range list {
		key := strings.Join(strings.Fields(string(d.Key)), "")
		if d.Loser.Origin == nil || *d.Loser.Origin != "east" || *d.Winner.Origin != "west" || !d.Restorable || d.Loser.GTID == nil {
			t.Errorf("conflict %+v", d)
		}
		if text := c.command("conflicts", "show", d.ID); !strings.Contains(text, "restore what was lost: replicator conflicts restore "+d.ID) {
			t.Errorf("show prints\n%s", text)
		}
		if text := c.command("conflicts", "restore", d.ID); !strings.Contains(text, "is restored") {
			t.Errorf("restore prints\n%s", text)
		}
		id := int(key[len(key)-2] - '0')
		c.awaitRow(id, want[key])
	}
	c.awaitCounts(0, 3) // a restore is no conflict
	c.awaitEqual(10*time.Second, "app.t")

	c.stop()
	c.extra = "journal: {max_rows: 1}\n"
	c.start()
	await(t, 40*time.Second, func() error {
		for _, s := range c.sites {
			var n int
			if err := s.db.QueryRow("SELECT COUNT(*) FROM replicator.conflict").Scan(&n); err != nil {
				return err
			}
			if n > 1 {
				return fmt.Errorf("%s has %d conflicts in its journal", s.name, n)
			}
		}
		return nil
	})
}

// TestHaltKeepsEither: links that stopped at a conflict go on with the row that a person chose, on all servers.
func TestHaltKeepsEither(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MySQL97)
	c.extra = "conflict: {policy: halt}\n"
	c.everywhere("CREATE DATABASE app", plainTable)
	c.start()
	c.awaitLinks(30 * time.Second)
	east, west := c.sites[0], c.sites[1]
	for id, keep := range []string{"loser", "winner"} {
		west.exec(t, "INSERT INTO app.t VALUES (?, 'first')", id)
		c.awaitRow(id, "first")
		if err := east.proxy.Cut(); err != nil {
			t.Fatal(err)
		}
		c.awaitLink(10*time.Second, "west", "east", "retrying")
		east.exec(t, "UPDATE app.t SET v = 'loser' WHERE id = ?", id)
		west.exec(t, "UPDATE app.t SET v = 'winner' WHERE id = ?", id)
		if err := east.proxy.Heal(); err != nil {
			t.Fatal(err)
		}
		var list []journal.Document
		await(t, 30*time.Second, func() (err error) {
			if list, err = c.conflicts("?state=open"); err == nil && (len(list) != 1 || len(list[0].Servers) != 2) {
				err = fmt.Errorf("open conflicts: %+v", list)
			}
			return err
		})
		for _, s := range c.sites {
			if got, err := s.row(id); err != nil || got != map[*site]string{east: "loser", west: "winner"}[s] {
				t.Errorf("%s went on: %q %v", s.name, got, err)
			}
		}
		c.command("conflicts", "ack", list[0].ID, "--keep", keep)
		c.awaitRow(id, keep)
		c.awaitLinks(20 * time.Second)
	}
}
