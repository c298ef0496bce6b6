package integration

import (
	"fmt"
	"testing"
	"time"

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
