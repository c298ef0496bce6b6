package mesh

import (
	"context"
	"encoding/hex"
	"time"

	"replicator/change"
)

// catchUpAfter is how far behind a link may be and still count as running.
const catchUpAfter = 2 * time.Second

// Status describes the mesh as this process sees it. It asks no server.
func (m *Mesh) Status(context.Context) Status {
	id := hex.EncodeToString(m.owner[:4])
	s := Status{
		Mesh: m.config.Mesh, Time: Timestamp(time.Now()), Source: "process",
		Processes: []ProcessStatus{{ID: id, Host: m.host, Site: m.config.Site, State: "running"}},
		Servers:   []ServerStatus{}, Links: []LinkStatus{}, Tables: []TableStatus{}, Notices: m.notices(),
	}
	if counts := m.conflicts.Load(); counts != nil {
		s.Conflicts = *counts
	}
	for _, x := range m.members {
		s.Servers = append(s.Servers, x.status(id))
	}
	for _, l := range m.links {
		if !l.to.config.Own {
			continue
		}
		s.Links = append(s.Links, l.status())
		for _, r := range l.routes.List() {
			s.Tables = append(s.Tables, TableStatus{
				Table: r.Table.String(), From: l.from.config.Name, To: l.to.config.Name, Path: r.Path, Reason: r.Reason,
			})
		}
	}
	if v := m.verified.Load(); v != nil {
		s.Tables = v.on(s.Tables, m.config)
	}
	return s
}

func (m *member) status(process string) ServerStatus {
	f, _, _ := m.trouble.get()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := ServerStatus{
		Name: m.config.Name, Endpoint: m.server.Endpoint(), Reachable: m.answered, ClockSkewSeconds: m.skew, Error: f,
	}
	if f != nil && f.Class == "network" {
		s.Reachable = new(bool)
	}
	if p := m.known; p != nil {
		id, flavor := p.identity.ID.String(), p.info.Flavor.String()
		s.ID, s.Flavor, s.Version = &id, &flavor, &p.info.Version
		if m.config.Own {
			s.Owner = &process
		}
	}
	s.Compression = m.compression()
	if m.index != nil {
		size := m.index.Stats()
		s.Index = &IndexStatus{Entries: int64(size.Entries), Bytes: int64(size.Bytes), Spilled: int64(size.Spilled)}
	}
	return s
}

// compression needs the lock.
func (m *member) compression() (s CompressionStatus) {
	if m.known == nil {
		return s
	}
	s.Apply = new(string(m.server.Compression()))
	if m.hub == nil {
		return s
	}
	if reader := m.hub.Stats().Compression; reader != "" {
		s.Reader = new(string(reader))
	}
	return s
}

func (l *link) status() LinkStatus {
	f, state, retries := l.trouble.get()
	st := &l.stats
	s := LinkStatus{From: l.from.config.Name, To: l.to.config.Name, State: state, Error: f, Retries: &retries}
	if position := st.Position(); position != "" {
		seq := st.Seq.Load()
		s.Position, s.Seq = &position, &seq
	}
	transactions, rows, lost := st.Transactions.Load(), st.Rows.Load(), st.Lost.Load()
	superseded, overwritten, speed := st.Superseded.Load(), st.Overwritten.Load(), l.rate.perSecond()
	s.Transactions, s.Rows, s.LostRows = &transactions, &rows, &lost
	s.SupersededRows, s.OverwrittenRows, s.RowsPerSecond = &superseded, &overwritten, &speed
	if !st.Running() {
		return s
	}
	if cut := l.from.cutOff(); cut != nil {
		s.State, s.Error = Retrying, cut
		return s
	}
	lag := 0.0
	if behind := st.Behind.Load(); behind != 0 {
		lag = max(0, time.Since(change.Time(behind).Wall()).Seconds())
	}
	s.LagSeconds = &lag
	if state == Running && lag > catchUpAfter.Seconds() {
		s.State = CatchingUp
	}
	return s
}

// cutOff is why nothing comes from a server at present, nil when its binlog is being read. Links wait a moment before they
// give up by themselves; nobody should take them for running meanwhile.
func (m *member) cutOff() *Fault {
	m.mu.Lock()
	hub := m.hub
	m.mu.Unlock()
	if hub == nil {
		return nil
	}
	stats := hub.Stats()
	if stats.Connected || stats.Private > 0 {
		return nil
	}
	f, _, _ := m.trouble.get()
	return f
}
