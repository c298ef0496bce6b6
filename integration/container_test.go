package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"replicator/mesh"
	"replicator/sandbox"
)

// A mesh of containers, one of which loses its network while it goes on writing: the program's packets to it vanish, as
// between sites whose line is down.
func TestContainerLosesItsNetwork(t *testing.T) {
	if err := sandbox.HasDocker(t.Context()); err != nil {
		t.Skip(err)
	}
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			o := sandbox.Options{Flavor: flavor, Container: true, Args: []string{"--event-scheduler=ON"}}
			c := newClusterOf(t, o, o, o)
			for _, s := range c.sites {
				address, err := s.server.ContainerAddr(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				s.direct = address
			}
			c.loseNetwork()
		})
	}
}

func (c *cluster) loseNetwork() {
	t := c.tb
	ctx := t.Context()
	east, lost := c.sites[0], c.sites[2]
	c.everywhere("CREATE DATABASE app", plainTable)
	c.start()
	c.awaitLinks(60 * time.Second)
	east.exec(t, "INSERT INTO app.t VALUES (1, 'of both')")
	await(t, 20*time.Second, func() error { return lost.has("app.t", 1) })
	// Nobody can reach the server while it is off its network: it writes by itself.
	lost.exec(t, "CREATE EVENT app.writes ON SCHEDULE EVERY 1 SECOND DO INSERT INTO app.t SELECT MAX(id) + 1, 'of north' FROM app.t WHERE id BETWEEN 1000 AND 1999")
	lost.exec(t, "CREATE EVENT app.meets ON SCHEDULE EVERY 1 SECOND DO UPDATE app.t SET v = CONCAT('of north at ', SYSDATE(6)) WHERE id = 1")
	lost.exec(t, "INSERT INTO app.t VALUES (1000, 'of north')")
	before := lost.count(t, "id >= 1000")

	if err := lost.server.Disconnect(ctx); err != nil {
		t.Fatal(err)
	}
	for _, s := range c.sites[:2] {
		c.awaitLink(60*time.Second, s.name, lost.name, mesh.Retrying)
		c.awaitLink(60*time.Second, lost.name, s.name, mesh.Retrying)
	}
	for i := range 50 {
		east.exec(t, "INSERT INTO app.t VALUES (?, 'of east')", 10+i)
	}
	east.exec(t, "UPDATE app.t SET v = 'of east' WHERE id = 1")
	await(t, 20*time.Second, func() error { return c.sites[1].has("app.t", 59) }) // the others go on
	c.awaitLink(10*time.Second, east.name, c.sites[1].name, mesh.Running)

	if err := lost.server.Reconnect(ctx); err != nil {
		t.Fatal(err)
	}
	if now, err := lost.server.ContainerAddr(ctx); err != nil || now != lost.direct {
		t.Fatalf("the container was at %s and came back at %s (%v): the engine gave its address to another", lost.direct, now, err)
	}
	await(t, 20*time.Second, func() error { return lost.db.PingContext(ctx) })
	for _, event := range []string{"app.writes", "app.meets"} {
		lost.exec(t, "DROP EVENT "+event)
	}
	if err := lost.wroteAlone(before); err != nil {
		t.Error(err)
	}
	c.awaitLinks(60 * time.Second)
	c.awaitEqual(30*time.Second, "app.t")
	if took := c.stop(); took > 10*time.Second {
		t.Errorf("a clean stop took %s", took)
	}
}

// wroteAlone tells whether the events wrote while nobody could reach the server: the links took seconds to notice.
func (s *site) wroteAlone(before int) error {
	const atLeast = 3
	var after int
	err := s.db.QueryRowContext(context.Background(), "SELECT COUNT(*) FROM app.t WHERE id >= 1000").Scan(&after)
	if err == nil && after < before+atLeast {
		err = fmt.Errorf("%s wrote %d rows while it was off its network, want at least %d", s.name, after-before, atLeast)
	}
	return err
}

func (s *site) count(t testing.TB, condition string) int {
	t.Helper()
	var n int
	if err := s.db.QueryRow("SELECT COUNT(*) FROM app.t WHERE " + condition).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
