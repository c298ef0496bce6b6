package mesh

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/sandbox"
)

// TestLinksFromTables: a link is said to run only where the target keeps up with the source's heartbeats.
func TestLinksFromTables(t *testing.T) {
	c := &config.Config{Mesh: "m", Links: []config.Link{{From: "east", To: "west"}, {From: "west", To: "east"}, {From: "north", To: "west"}, {From: "west", To: "north"}}}
	var servers []*sandbox.Server
	var identities []checkpoint.Identity
	for i, name := range []string{"east", "west"} {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118}[i]})
		servers = append(servers, s)
		flavor := []change.Flavor{change.MySQL, change.MariaDB}[i]
		conn, err := s.DB().Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, checkpoint.Migrate(t.Context(), conn))
		identity, err := checkpoint.GiveBirth(t.Context(), conn, flavor, checkpoint.Identity{ID: change.ServerID{byte(i + 1)}, Mesh: "m", Position: change.NewGTIDSet(flavor)})
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		identities = append(identities, identity)
		c.Servers = append(c.Servers, &config.Server{
			Name: name, Endpoints: []string{s.Addr()}, Own: true, TLS: config.TLS{Mode: config.TLSDisabled},
			Account: config.Account{User: "root", Secret: config.NewSecret(s.Password())},
		})
	}
	away := *c.Servers[0]
	away.Name, away.Endpoints = "north", []string{sandbox.AddressTest(t)}
	c.Servers = append(c.Servers, &away)
	states := func() (all []LinkState) {
		status, err := StatusFromTables(context.Background(), c)
		require.NoError(t, err)
		for _, l := range status.Links {
			require.Equal(t, l.State == Stopped, l.Error != nil)
			all = append(all, l.State)
		}
		return all
	}
	beat := func(i int, behind time.Duration) {
		applied := change.Context{}.With(identities[1-i].ID, change.TimeOf(time.Now().Add(-behind)))
		require.NoError(t, checkpoint.Beat(t.Context(), servers[i].DB(), applied))
	}
	const unknown = LinkState("")
	require.Equal(t, []LinkState{Stopped, Stopped, Stopped, unknown}, states(), "no process has been there")
	for i, s := range servers {
		_, err := checkpoint.Begin(t.Context(), s.DB(), checkpoint.NewOwner(), identities[1-i])
		require.NoError(t, err)
	}
	beat(0, 0)
	beat(1, 0)
	require.Equal(t, []LinkState{Running, Running, unknown, unknown}, states())
	beat(0, 0)
	beat(1, time.Minute)
	require.Equal(t, []LinkState{unknown, Running, unknown, unknown}, states(), "east goes on, and west has nothing more of it")
	b, err := json.Marshal(LinkStatus{})
	require.NoError(t, err)
	require.Contains(t, string(b), `"state":null`)
	var l LinkStatus
	require.NoError(t, json.Unmarshal(b, &l))
	require.Equal(t, unknown, l.State)
}
