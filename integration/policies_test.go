package integration

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"replicator/mesh"
	"replicator/sandbox"
)

const (
	stockTable = "CREATE TABLE app.stock (id INT PRIMARY KEY, n BIGINT NOT NULL, v VARCHAR(20))"
	addingUp   = "tables: {rules: [{match: app.stock, conflict: {add: [n]}}]}\n"
	halting    = "tables: {rules: [{match: app.stock, conflict: {policy: halt}}]}\n"
)

// awaitDisagreement waits until a link is stopped because its source's owner decides otherwise, and for the words of it.
func (c *cluster) awaitDisagreement(from, to, theirs, mine string) {
	c.tb.Helper()
	want := fmt.Sprintf("conflict policies differ: tables app.stock: the owner of %s says %q, this configuration %q", from, theirs, mine)
	await(c.tb, 20*time.Second, func() error {
		l := c.awaitLink(20*time.Second, from, to, mesh.Stopped)
		if l.Error.Message != want || l.Error.Class != "configuration" || !strings.Contains(l.Error.Remedy, "same policies") {
			return fmt.Errorf("link %s-%s: %+v, want %s", from, to, l.Error, want)
		}
		return nil
	})
}

func (c *cluster) awaitLog(text string) {
	c.tb.Helper()
	await(c.tb, 20*time.Second, func() error {
		if !strings.Contains(c.log.String(), text) {
			return fmt.Errorf("the log does not say %q", text)
		}
		return nil
	})
}

// Two processes decide by different policies: no link runs between their servers, and they say why. When the policies are
// the same again the links go on by themselves, and what was written meanwhile converges.
func TestDifferingPoliciesHoldTheLinks(t *testing.T) {
	t.Parallel()
	for _, flavors := range [][]sandbox.Flavor{
		{sandbox.MySQL97, sandbox.MySQL97}, {sandbox.MariaDB118, sandbox.MariaDB118}, {sandbox.MariaDB1011, sandbox.MySQL97},
	} {
		t.Run(fmt.Sprint(flavors), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavors...)
			c.everywhere("CREATE DATABASE app", stockTable, "INSERT INTO app.stock VALUES (1, 10, 'both')")
			other := c.apart("west")
			east, west := c.sites[0], c.sites[1]
			c.extra = addingUp
			c.start()
			c.awaitLinks(30 * time.Second) // the other one has recorded nothing
			other.start()
			const adds, none = "last-writer-wins with add [n]", "no policy of their own"
			other.awaitDisagreement("east", "west", adds, none)
			c.awaitDisagreement("west", "east", none, adds) // it ran before

			out, err := c.try("check")
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(out, "conflict policies differ: tables app.stock") {
				t.Errorf("check: %v\n%s", err, out)
			}

			for i, s := range []*site{east, west} {
				s.exec(t, "UPDATE app.stock SET n = n - 3 WHERE id = 1")
				s.exec(t, "INSERT INTO app.stock VALUES (?, 0, ?)", i+2, s.name)
			}
			other.stop()
			// Nobody owns west now: what its rows were decided by counts.
			c.awaitDisagreement("west", "east", none, adds)
			if err := errors.Join(east.hasNot("app.stock", 3), west.hasNot("app.stock", 2)); err != nil {
				t.Error(err)
			}

			other.extra = addingUp
			other.start()
			other.awaitLinks(30 * time.Second)
			c.awaitLinks(30 * time.Second)
			c.all("SELECT n FROM app.stock WHERE id = 1", "4")
			c.all("SELECT COUNT(*) FROM app.stock", "3")
			c.awaitEqual(20*time.Second, "app.stock")
		})
	}
}

// A change of policy goes through the mesh process by process. Links between those that have it and those that do not have
// it yet wait, the others run; what was on its way meanwhile is told.
func TestPoliciesChangeProcessByProcess(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB118, sandbox.MySQL97)
	c.everywhere("CREATE DATABASE app", stockTable)
	north := c.apart("north")
	c.start()
	north.start()
	c.awaitLinks(30 * time.Second)
	north.awaitLinks(30 * time.Second)
	if err := north.sites[0].proxy.Cut(); err != nil { // north no longer hears of east
		t.Fatal(err)
	}
	c.sites[0].exec(t, "INSERT INTO app.stock VALUES (1, 1, 'on its way')")
	await(t, 20*time.Second, func() error { return c.sites[1].has("app.stock", 1) })

	c.stop()
	c.extra = halting
	c.start()
	c.awaitLog("conflict policies of the server change")
	c.awaitLog("conflict policies changed while changes were on their way")
	c.awaitLink(30*time.Second, "east", "west", mesh.Running)
	c.awaitLink(30*time.Second, "west", "east", mesh.Running)
	for _, to := range []string{"east", "west"} {
		c.awaitDisagreement("north", to, "no policy of their own", "halt")
	}
	if err := north.sites[0].proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"east", "west"} {
		north.awaitDisagreement(from, "north", "halt", "no policy of their own")
	}

	north.stop()
	north.extra = halting
	north.start()
	north.awaitLinks(60 * time.Second)
	c.awaitLinks(30 * time.Second)
	for i, s := range c.sites {
		s.exec(t, "INSERT INTO app.stock VALUES (?, 1, 'afterwards')", i+2)
	}
	c.all("SELECT COUNT(*) FROM app.stock", "4")
}

// Two processes that apply to the same servers by mistake, with different policies: the second one does nothing until the
// first one ends. It takes over servers whose owner was of a version that recorded no policies, too.
func TestOneOwnerDecides(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB1011)
	c.everywhere("CREATE DATABASE app", stockTable)
	second := c.apart()
	for _, s := range second.sites {
		s.own = ""
	}
	second.extra = halting
	c.start()
	c.awaitLinks(30 * time.Second)
	c.all("SELECT COUNT(*) FROM replicator.heartbeat", "1")
	second.start()
	for _, l := range [][2]string{{"east", "west"}, {"west", "east"}} {
		stopped := second.awaitLink(30*time.Second, l[0], l[1], mesh.Stopped)
		if stopped.Error.Class != "fenced" || !strings.Contains(stopped.Error.Message, "another process applies to "+l[1]+" and decides otherwise") {
			t.Errorf("link %s-%s: %+v", l[0], l[1], stopped.Error)
		}
	}
	c.sites[0].exec(t, "INSERT INTO app.stock VALUES (1, 1, 'by the first')")
	c.all("SELECT COUNT(*) FROM app.stock", "1")
	c.awaitLinks(30 * time.Second)
	c.stop()
	second.awaitLinks(90 * time.Second)
	c.sites[1].exec(t, "INSERT INTO app.stock VALUES (2, 1, 'by the second')")
	c.all("SELECT COUNT(*) FROM app.stock", "2")

	second.stop()
	c.everywhere("DROP TABLE replicator.policies", "DELETE FROM replicator.schema_version WHERE version >= 3")
	c.start()
	c.awaitLinks(30 * time.Second)
	for _, s := range c.sites {
		if err := s.holds("SELECT policies FROM replicator.policies", `{"default":"last-writer-wins"}`); err != nil {
			t.Error(err)
		}
	}
}
