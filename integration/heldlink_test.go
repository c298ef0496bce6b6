package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"replicator/mesh"
	"replicator/sandbox"
)

// A link whose next change waits for what it was made on top of, over another link that is cut, is behind and says so.
func TestHeldLinkShowsItsLag(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			options := sandbox.Options{Flavor: flavor}
			g := newStage(t, "tables: {rules: [{match: \"app.*\", conflict: {add: [n]}}]}\n", options, options, options)
			g.onAll(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, n INT NOT NULL)")
			g.run(t)
			east, west, north := g.site("east"), g.site("west"), g.site("north")
			east.exec(t, "INSERT INTO app.t VALUES (1, 0)")
			g.await(t)
			g.links(t, "west->north", func(p *site) error { return p.proxy.Cut() })
			west.exec(t, "UPDATE app.t SET n = n + 1 WHERE id = 1")
			await(t, 30*time.Second, func() error { return east.shows("SELECT COUNT(*) FROM app.t WHERE n = 1") })
			east.exec(t, "UPDATE app.t SET n = n + 10 WHERE id = 1")
			await(t, 30*time.Second, func() error {
				s, err := g.processes["north"].status()
				if err != nil {
					return err
				}
				for _, l := range s.Links {
					if l.From == "east" && l.To == "north" && l.LagSeconds != nil && *l.LagSeconds > 3 {
						return nil
					}
				}
				return fmt.Errorf("the link from east to north is not behind: %+v", s.Links)
			})
			if err := north.shows("SELECT COUNT(*) FROM app.t WHERE n = 0"); err != nil {
				t.Error(err)
			}
			g.heal(t, "")
			g.await(t)
			await(t, 30*time.Second, func() error { return north.shows("SELECT COUNT(*) FROM app.t WHERE n = 11") })
		})
	}
}

// A value that one server has freed and another one has used again meets the row that had it, on a server that the first
// change has not reached: nobody has disputed that row. The link waits for as long as it takes, and says for what.
func TestClashWaitsForWhatExplainsIt(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			options := sandbox.Options{Flavor: flavor}
			const ttl = 3 * time.Second // the server ends a session that is silent for so long
			g := newStage(t, fmt.Sprintf("lease: {ttl: %s}\n", ttl), options, options, options)
			g.onAll(t, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, u VARCHAR(20) UNIQUE)")
			g.run(t)
			east, west, north := g.site("east"), g.site("west"), g.site("north")
			east.exec(t, "INSERT INTO app.t VALUES (1, 'one')")
			g.await(t)
			g.links(t, "west->north", func(p *site) error { return p.proxy.Cut() })
			west.exec(t, "UPDATE app.t SET u = 'free' WHERE id = 1")
			await(t, 30*time.Second, func() error { return east.shows("SELECT COUNT(*) FROM app.t WHERE u = 'free'") })
			east.exec(t, "INSERT INTO app.t VALUES (2, 'one')")
			p := g.processes["north"]
			p.expectLinkFault("east", "north", mesh.Retrying, "unavailable", "changes of west may explain", "out of the configuration")
			tick := time.NewTicker(ttl / 10)
			defer tick.Stop()
			for range 20 { // twice as long
				<-tick.C
				if l := p.awaitLink(30*time.Second, "east", "north", mesh.Retrying); !strings.Contains(l.Error.Message, "may explain") {
					t.Fatalf("while it waits the link shows %+v", l.Error)
				}
				if err := north.shows("SELECT COUNT(*) FROM app.t WHERE id = 1 AND u = 'one'"); err != nil {
					t.Fatal(err)
				}
			}
			g.heal(t, "")
			g.await(t)
			for _, s := range g.sites {
				if err := s.shows("SELECT COUNT(*) = 2 FROM app.t WHERE (id, u) IN ((1, 'free'), (2, 'one'))"); err != nil {
					t.Error(err)
				}
				if err := s.shows("SELECT COUNT(*) = 0 FROM replicator.conflict"); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
