package mesh

import (
	"context"
	"time"

	"replicator/config"
	"replicator/fault"
	"replicator/journal"
)

// Journals are the journals of a mesh's servers, asked without a process.
type Journals struct {
	servers   []journal.Server
	witnesses []*witness
}

// OpenJournals connects to every server of a configuration. Those that cannot be asked are among Servers, with the reason;
// an error means that the configuration cannot be used. Close ends the connections.
func OpenJournals(ctx context.Context, c *config.Config) (*Journals, error) {
	witnesses, err := newWitnesses(ctx, c)
	if err != nil {
		return nil, err
	}
	j := &Journals{witnesses: witnesses}
	for _, w := range witnesses {
		j.servers = append(j.servers, w.journal())
	}
	return j, nil
}

// journal is the server as package journal asks it.
func (w *witness) journal() journal.Server {
	s := journal.Server{Name: w.status.Name, DB: w.server.DB()}
	if w.identity != nil {
		s.ID = w.identity.ID
	}
	if f := w.status.Error; f != nil {
		s.Err = &fault.Error{Class: fault.Class(f.Class), Message: f.Message, Remedy: f.Remedy}
	}
	return s
}

// Servers are the mesh's, in the order of the configuration.
func (j *Journals) Servers() []journal.Server { return j.servers }

// Close ends the connections.
func (j *Journals) Close() { closeAll(j.witnesses) }

// Journals are the journals of all servers, as this process reaches them.
func (m *Mesh) Journals() []journal.Server {
	servers := make([]journal.Server, len(m.members))
	for i, x := range m.members {
		servers[i] = x.journal()
	}
	return servers
}

func (m *member) journal() journal.Server {
	s := journal.Server{Name: m.config.Name, DB: m.server.DB()}
	p := m.profile()
	if p != nil {
		s.ID = p.identity.ID
	}
	f, _, _ := m.trouble.get()
	switch {
	case f != nil && (p == nil || fault.Class(f.Class) == fault.Network || fault.Class(f.Class) == fault.Login):
		s.Err = &fault.Error{Class: fault.Class(f.Class), Message: f.Message, Remedy: f.Remedy}
	case p == nil:
		s.Err = fault.New(fault.Network, "wait: it is tried again", "%s has not been reached yet", m.config.Name)
	}
	return s
}

const (
	countEvery  = 2 * time.Second
	countEffort = 50 // times as long as counting took is the pause after it, at the least
)

// countConflicts keeps the number of conflicts for Status.
func (m *Mesh) countConflicts(ctx context.Context) {
	pause := countEvery / 4 // the first time
	for {
		if wait(ctx, pause) != nil {
			return
		}
		began := time.Now()
		counts := conflictStatus(ctx, m.Journals())
		if ctx.Err() != nil {
			return
		}
		m.conflicts.Store(&counts)
		pause = max(countEvery, countEffort*time.Since(began))
	}
}

// conflictStatus counts the conflicts of the servers that can be asked. They are unknown when none can.
func conflictStatus(ctx context.Context, servers []journal.Server) ConflictStatus {
	counts, failed := journal.Count(ctx, servers)
	if len(failed) == len(servers) {
		return ConflictStatus{}
	}
	return ConflictStatus{Open: &counts.Open, Total: &counts.Total}
}
