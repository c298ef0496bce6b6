package integration

import (
	"strings"
	"testing"
	"time"

	"replicator/mesh"
	"replicator/sandbox"
)

// A link whose source is cut off says so at once, and runs again soon after the source is back; the link the other way
// too.
func TestCutLinkIsShownAndHeals(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB1011} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavor, flavor, flavor)
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			cut := time.Now()
			if err := c.sites[2].proxy.Cut(); err != nil {
				t.Fatal(err)
			}
			c.sites[0].exec(t, "INSERT INTO app.t VALUES (1, 'during the cut')")
			c.sites[2].exec(t, "INSERT INTO app.t VALUES (2, 'behind the cut')")
			out := c.awaitLink(10*time.Second, "north", "east", mesh.Retrying)
			in := c.awaitLink(10*time.Second, "east", "north", mesh.Retrying)
			for _, l := range []mesh.LinkStatus{out, in} {
				if l.LagSeconds != nil || l.Error == nil || l.Error.Class != "network" {
					t.Errorf("link %s-%s: lag %v, error %+v; want unknown and network", l.From, l.To, l.LagSeconds, l.Error)
				}
			}
			if text, err := c.try("status", "--healthy"); err == nil {
				t.Errorf("status calls a mesh healthy that is cut:\n%s", text)
			}
			if err := c.sites[1].has("app.t", 1); err != nil {
				await(t, 5*time.Second, func() error { return c.sites[1].has("app.t", 1) }) // the others go on
			}
			if err := c.sites[2].proxy.Heal(); err != nil {
				t.Fatal(err)
			}
			// The reader tries less and less often, a second or three apart in the end.
			tries, most := strings.Count(c.log.String(), "binlog cannot be read"), 12+int(time.Since(cut).Seconds())
			if tries == 0 || tries > most {
				t.Errorf("the reader tried %d times during the cut, want at most %d", tries, most)
			}
			began := time.Now()
			c.awaitLinks(20 * time.Second)
			c.awaitEqual(20*time.Second, "app.t")
			t.Logf("healed after %s", time.Since(began).Round(time.Millisecond))
			if text := c.command("status"); !strings.Contains(text, "running") {
				t.Errorf("status prints\n%s", text)
			}
		})
	}
}

// A half-open connection, which answers nothing and is not reset, is noticed.
func TestSilentServerIsNoticed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB1011)
	c.everywhere("CREATE DATABASE app", plainTable)
	c.start()
	c.awaitLinks(30 * time.Second)
	if err := c.sites[1].proxy.BlackHole(); err != nil {
		t.Fatal(err)
	}
	c.sites[0].exec(t, "INSERT INTO app.t VALUES (1, 'into the hole')")
	c.awaitLink(40*time.Second, "east", "west", mesh.Retrying)
	c.awaitLink(40*time.Second, "west", "east", mesh.Retrying)
	if err := c.sites[1].proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	c.awaitLinks(40 * time.Second)
	c.awaitEqual(30*time.Second, "app.t")
}
