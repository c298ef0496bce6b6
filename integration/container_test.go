package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"replicator/mesh"
	"replicator/sandbox"
)

// A mesh of containers, one of each flavor of which loses its network while it goes on writing: the program's packets to
// them vanish, as between sites whose line is down.
func TestContainersLoseTheirNetwork(t *testing.T) {
	t.Parallel()
	if err := sandbox.HasDocker(t.Context()); err != nil {
		t.Skip(err)
	}
	c := newContainers(t, sandbox.MySQL97, sandbox.MariaDB118, sandbox.MySQL97, sandbox.MariaDB118)
	east, west, lost := c.sites[0], c.sites[1], c.sites[2:]
	c.everywhere("CREATE DATABASE app", plainTable)
	c.start()
	c.awaitLinks(60 * time.Second)
	east.exec(t, "INSERT INTO app.t VALUES (1, 'of all')")
	for i, s := range lost {
		await(t, 20*time.Second, func() error { return s.has("app.t", 1) })
		s.beginToWriteAlone(t, 1000*(i+1))
	}
	for _, s := range lost {
		if err := s.server.Disconnect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		east.exec(t, "INSERT INTO app.t VALUES (?, 'of east')", 10+i)
	}
	east.exec(t, "UPDATE app.t SET v = 'of east' WHERE id = 1")
	await(t, 20*time.Second, func() error { return west.has("app.t", 59) }) // these two go on
	for _, s := range lost {
		c.awaitLink(60*time.Second, s.name, east.name, mesh.Retrying)
		c.awaitLink(60*time.Second, east.name, s.name, mesh.Retrying)
	}
	c.awaitLink(10*time.Second, east.name, west.name, mesh.Running)
	for i, s := range lost {
		s.comeBack(t)
		s.endToWriteAlone(t, 1000*(i+1))
	}
	c.awaitLinks(60 * time.Second)
	c.awaitEqual(30*time.Second, "app.t")
	if took := c.stop(); took > 10*time.Second {
		t.Errorf("a clean stop took %s", took)
	}
}

// newContainers starts servers as containers, which the program reaches at their own addresses.
func newContainers(t *testing.T, flavors ...sandbox.Flavor) *cluster {
	t.Helper()
	options := make([]sandbox.Options, len(flavors))
	for i, f := range flavors {
		options[i] = sandbox.Options{Flavor: f, Container: true, Args: []string{"--event-scheduler=ON"}}
	}
	c := newClusterOf(t, options...)
	for _, s := range c.sites {
		address, err := s.server.ContainerAddr(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.direct = address
	}
	// Addresses are given out from the lowest on: in this order, containers that come back get theirs again.
	slices.SortFunc(c.sites[2:], func(a, b *site) int {
		return netip.MustParseAddrPort(a.direct).Compare(netip.MustParseAddrPort(b.direct))
	})
	return c
}

// beginToWriteAlone has the server itself write every second, into a thousand ids of its own and into a row of all:
// nobody can reach it while it is off its network.
func (s *site) beginToWriteAlone(t *testing.T, from int) {
	t.Helper()
	s.exec(t, "INSERT INTO app.t VALUES (?, 'alone')", from)
	s.exec(t, fmt.Sprintf("CREATE EVENT app.adds ON SCHEDULE EVERY 1 SECOND DO "+
		"INSERT INTO app.t SELECT MAX(id) + 1, SYSDATE() FROM app.t WHERE id BETWEEN %d AND %d", from, from+999))
	s.exec(t, "CREATE EVENT app.meets ON SCHEDULE EVERY 1 SECOND DO UPDATE app.t SET v = SYSDATE(6) WHERE id = 1")
}

// comeBack connects the server to its network again, and waits until it can be reached.
func (s *site) comeBack(t *testing.T) {
	t.Helper()
	if err := s.server.Reconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := s.server.ContainerAddr(t.Context()); err != nil || now != s.direct {
		t.Fatalf("%s was at %s and came back at %s (%v): its address was given away", s.name, s.direct, now, err)
	}
	await(t, 20*time.Second, func() error { return s.db.PingContext(t.Context()) })
}

// endToWriteAlone also checks that the server went on writing: it was away for many more seconds than it asks for.
func (s *site) endToWriteAlone(t *testing.T, from int) {
	t.Helper()
	const atLeast = 5
	s.exec(t, "DROP EVENT app.adds")
	s.exec(t, "DROP EVENT app.meets")
	var n int
	err := s.db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM app.t WHERE id BETWEEN ? AND ? + 999", from, from).Scan(&n)
	if err != nil || n < atLeast {
		t.Errorf("%s wrote %d rows alone (%v), want at least %d", s.name, n, err, atLeast)
	}
}
