package mesh

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"replicator/checkpoint"
	"replicator/config"
	"replicator/journal"
	"replicator/server"
)

// StatusFromTables describes the mesh from what the servers' own tables say, for when no process answers. What only a
// process knows is null.
func StatusFromTables(ctx context.Context, c *config.Config) (Status, error) {
	s := Status{
		Mesh: c.Mesh, Time: Timestamp(time.Now()), Source: "tables",
		Processes: []ProcessStatus{}, Servers: []ServerStatus{}, Links: []LinkStatus{}, Tables: []TableStatus{},
	}
	witnesses, err := newWitnesses(ctx, c)
	if err != nil {
		return Status{}, err
	}
	defer closeAll(witnesses)
	seen := map[string]*witness{}
	for i, x := range c.Servers {
		seen[x.Name] = witnesses[i]
	}
	for _, l := range c.Links {
		s.Links = append(s.Links, linkFromTables(ctx, l, seen[l.From], seen[l.To]))
	}
	var journals []journal.Server
	var databases []*sql.DB
	for _, x := range c.Servers {
		s.Servers = append(s.Servers, seen[x.Name].status)
		journals = append(journals, seen[x.Name].journal())
		if seen[x.Name].identity != nil {
			databases = append(databases, seen[x.Name].server.DB())
		}
	}
	s.Tables = loadVerified(ctx, databases).on(s.Tables, c)
	s.Conflicts = conflictStatus(ctx, journals)
	return s, nil
}

// witness is one server asked once.
type witness struct {
	server   *server.Server
	info     server.Info
	identity *checkpoint.Identity
	status   ServerStatus
	beat     checkpoint.Heartbeat
	owned    bool // an owner wrote its heartbeat just now
}

const (
	witnessTimeout = 3 * time.Second
	witnessBeats   = 4 // heartbeats that may be missing while an owner still counts as living
)

func newWitness(ctx context.Context, c *config.Server) (*witness, error) {
	s, err := server.Open(c, server.Options{Connections: 2, Timeout: witnessTimeout})
	if err != nil {
		return nil, err
	}
	w := &witness{server: s, status: ServerStatus{Name: c.Name, Endpoint: s.Endpoint()}}
	ctx, cancel := context.WithTimeout(ctx, 2*witnessTimeout)
	defer cancel()
	if err := w.ask(ctx); err != nil {
		f := asFault(err)
		w.status.Error = &Fault{Class: string(f.Class), Message: f.Text(), Remedy: f.Remedy, Since: Timestamp(time.Now())}
	}
	return w, nil
}

// newWitnesses asks every server of a configuration, all at once. An error means that the configuration cannot be used.
func newWitnesses(ctx context.Context, c *config.Config) ([]*witness, error) {
	witnesses, errs := make([]*witness, len(c.Servers)), make([]error, len(c.Servers))
	var wg sync.WaitGroup
	for i, s := range c.Servers {
		wg.Go(func() { witnesses[i], errs[i] = newWitness(ctx, s) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		closeAll(witnesses)
		return nil, err
	}
	return witnesses, nil
}

func closeAll(witnesses []*witness) {
	for _, w := range witnesses {
		if w != nil {
			w.close()
		}
	}
}

func (w *witness) close() { _ = w.server.Close() } // nothing was written

func (w *witness) ask(ctx context.Context) error {
	reachable := false
	w.status.Reachable = &reachable
	info, err := server.Probe(ctx, w.server.DB())
	if err != nil {
		return server.Fault(err, "ask "+w.status.Name)
	}
	reachable, w.info = true, info
	flavor := info.Flavor.String()
	w.status.Flavor, w.status.Version = &flavor, &info.Version
	clock, err := server.ReadClock(ctx, w.server.DB())
	if err != nil {
		return err
	}
	skew := clock.Ahead.Seconds()
	w.status.ClockSkewSeconds = &skew
	identity, found, err := checkpoint.LoadIdentity(ctx, w.server.DB(), info.Flavor)
	if err != nil || !found {
		return err
	}
	id := identity.ID.String()
	w.identity, w.status.ID = &identity, &id
	w.beat, found, err = checkpoint.LastBeat(ctx, w.server.DB())
	w.owned = found && w.beat.Age < witnessBeats*upkeepEvery
	return err
}

// linkFromTables reads the newest marker: how far the target has the source, and who wrote that. Whether an owner lives
// shows in its heartbeat. That comes whatever the links do: a link runs only where the target's heartbeat says that it has
// the source up to the source's own last heartbeats. What else a link does, and why, no table tells.
func linkFromTables(ctx context.Context, l config.Link, from, to *witness) LinkStatus {
	s := LinkStatus{From: l.From, To: l.To}
	if to.status.Error != nil {
		return s
	}
	if !to.owned {
		s.State, s.Error = Stopped, &Fault{
			Class: "no_process", Message: "no process applies " + l.From + " to " + l.To,
			Remedy: "start `replicator run` with this configuration", Since: Timestamp(time.Now()),
		}
	}
	if from.identity == nil || to.identity == nil {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	state, found, err := checkpoint.Latest(ctx, to.server.DB(), from.identity.Position.Flavor(), from.identity.ID)
	if err != nil || !found {
		return s
	}
	position := state.Position.String()
	s.Position, s.Seq = &position, &state.Seq
	if s.Error != nil {
		s.Error.Since = Timestamp(state.Applied)
		return s
	}
	owner := hex.EncodeToString(state.Owner[:4])
	to.status.Owner = &owner
	applied := to.beat.Applied.At(from.identity.ID).Wall()
	if from.owned && from.beat.At.Sub(applied) < witnessBeats*upkeepEvery {
		s.State = Running
	}
	return s
}
