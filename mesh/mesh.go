// Package mesh runs the links of a mesh: it finds out who the servers are, owns the targets of this process, and starts
// again what fails, so that only what depends on a failed server waits for it.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"replicator/applier"
	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/fault"
	"replicator/notify"
)

// Mesh is one process's part in a mesh. New makes it, Run runs it once.
type Mesh struct {
	config  *config.Config
	log     *zap.Logger
	owner   checkpoint.Owner
	host    string
	members []*member
	links   []*link
	desk    *notify.Desk // nil: nobody is told of conflicts
	// joined is closed and replaced whenever a server's identity becomes known: what owners know as stable depends on
	// who takes part.
	mu     sync.Mutex
	joined chan struct{}
	anew   context.CancelCauseFunc // ends Run; set by it

	conflicts atomic.Pointer[ConflictStatus] // as counted last
	verified  atomic.Pointer[verifications]  // as read last
}

// link is one direction, as long as the process lives. Its runs are applier.Links.
type link struct {
	from, to *member
	trouble  *trouble
	stats    applier.Stats
	routes   applier.Routes
	rate     rate

	mu        sync.Mutex
	stoppedAt change.GTID // a DDL
	pass      change.GTID // the DDL that a person has seen to
	fenced    bool
	run       *applier.Link    // that works now
	late      checkpoint.Owner // whose commit arrived late once
}

// New prepares a mesh; it connects to nothing yet. An error means that the configuration cannot be used.
func New(c *config.Config, log *zap.Logger) (*Mesh, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	m := &Mesh{config: c, log: log, owner: checkpoint.NewOwner(), host: host, joined: make(chan struct{})}
	for _, s := range c.Servers {
		one, err := newMember(m, s)
		if err != nil {
			return nil, err
		}
		m.members = append(m.members, one)
	}
	for _, l := range c.Links {
		m.links = append(m.links, &link{from: m.member(l.From), to: m.member(l.To), trouble: newTrouble()})
	}
	if m.desk, err = m.newDesk(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Mesh) member(name string) *member {
	for _, x := range m.members {
		if x.config.Name == name {
			return x
		}
	}
	return nil
}

// nameOf returns the name of the server with an identity, "" while it is not known.
func (m *Mesh) nameOf(id change.ServerID) string {
	for _, x := range m.members {
		if p := x.profile(); p != nil && p.identity.ID == id {
			return x.config.Name
		}
	}
	return ""
}

// ErrReborn says that a server has become another one, by a clone: a new Mesh is to take this one's place.
var ErrReborn = errors.New("a server was cloned")

// Run works until the context ends, then stops cleanly. What a server or a link fails at is shown in Status and tried
// again; it ends nothing else. Only ErrReborn ends it before.
func (m *Mesh) Run(ctx context.Context) error {
	ctx, m.anew = context.WithCancelCause(ctx)
	defer m.anew(nil)
	m.log.Info("mesh starts", zap.String("mesh", m.config.Mesh), zap.Int("servers", len(m.members)), zap.Int("links", len(m.links)))
	var wg sync.WaitGroup
	wg.Go(func() { m.sampleRates(ctx) })
	wg.Go(func() { m.desk.Run(ctx) })
	wg.Go(func() { m.countConflicts(ctx) })
	wg.Go(func() { m.watchVerified(ctx) })
	for _, x := range m.members {
		wg.Go(func() { m.runMember(ctx, x) })
	}
	wg.Wait()
	for _, x := range m.members {
		if err := x.server.Close(); err != nil {
			m.log.Debug("closing a pool", zap.Error(err))
		}
	}
	m.log.Info("mesh stopped")
	if errors.Is(context.Cause(ctx), ErrReborn) {
		return ErrReborn
	}
	return nil
}

// sayAgain is after how long a fault that stays is logged again.
const sayAgain = time.Minute

// runMember reaches a server, and then works for it: as the owner of its changes, or as the reader of its binlog.
func (m *Mesh) runMember(ctx context.Context, x *member) {
	var said string
	var saidAt time.Time
	report := func(f *fault.Error, pause time.Duration) {
		if text := f.Text(); text != said || time.Since(saidAt) > sayAgain {
			said, saidAt = text, time.Now()
			logFault(x.log, "server cannot take part", f, pause)
		}
		m.holdLinks(x)
		x.server.Renew()
	}
	supervise(ctx, x.trouble, report, func(ctx context.Context) error {
		if err := x.reach(ctx); err != nil {
			return err
		}
		x.trouble.clear(Running)
		m.announce()
		m.wakeLinks(x)
		return m.serve(ctx, x)
	})
}

// serve runs what this process does for one server until something fails.
func (m *Mesh) serve(ctx context.Context, x *member) error {
	if !x.config.Own {
		return m.readOnly(ctx, x)
	}
	for {
		if err := m.own(ctx, x); err != nil {
			return err
		}
		// The owner ended because another server became known: begin again with it.
	}
}

// into lists the links that lead to a server.
func (m *Mesh) into(x *member) []*link {
	var in []*link
	for _, l := range m.links {
		if l.to == x {
			in = append(in, l)
		}
	}
	return in
}

// holdLinks shows a server's fault on all of its links.
func (m *Mesh) holdLinks(x *member) {
	for _, l := range m.links {
		if l.to == x {
			l.hold(x)
		}
	}
}

// hold shows on a link what keeps one of its servers. The server is tried, not the link.
func (l *link) hold(x *member) {
	f, _, _ := x.trouble.get()
	if f == nil {
		return
	}
	_ = l.trouble.show(&fault.Error{Class: fault.Class(f.Class), Message: f.Message, Remedy: f.Remedy})
}

// wakeLinks has links that wait for a server tried at once: it answers again.
func (m *Mesh) wakeLinks(x *member) {
	for _, l := range m.links {
		if _, state, _ := l.trouble.get(); state == Retrying && (l.from == x || l.to == x) {
			l.trouble.again()
		}
	}
}

// announce wakes everybody who waits for a server to become known.
func (m *Mesh) announce() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.joined)
	m.joined = make(chan struct{})
}

func (m *Mesh) news() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined
}

// Resume has a stopped link tried at once; a DDL statement at which it stopped counts as seen to.
func (m *Mesh) Resume(from, to string) error {
	for _, l := range m.links {
		if l.from.config.Name == from && l.to.config.Name == to {
			l.mu.Lock()
			l.pass, l.fenced = l.stoppedAt, false
			l.mu.Unlock()
			l.trouble.again()
			l.from.trouble.again()
			l.to.trouble.again()
			return nil
		}
	}
	return fault.New(fault.Configuration, "see `replicator status` for the links there are", "there is no link from %q to %q", from, to)
}

// meetingPatience bounds what a server that joins asks the others.
const meetingPatience = 5 * time.Second

// greatestTime asks all other servers for the greatest time they know.
func (m *Mesh) greatestTime(ctx context.Context, newborn *member) (change.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, meetingPatience)
	defer cancel()
	var greatest change.Time
	for _, x := range m.members {
		if x == newborn {
			continue
		}
		t, err := knownTime(ctx, x.server.DB())
		if err != nil {
			m.log.Warn("a server joins while another cannot be asked for its time",
				zap.String("server", newborn.config.Name), zap.String("unreachable", x.config.Name), zap.Error(err))
			continue
		}
		greatest = max(greatest, t)
	}
	return greatest, nil
}

func logFault(log *zap.Logger, what string, f *fault.Error, pause time.Duration) {
	fields := []zap.Field{
		zap.String("class", string(f.Class)), zap.String("error", f.Text()), zap.String("remedy", f.Remedy),
		zap.Duration("again_in", pause.Round(time.Millisecond)),
	}
	if f.Class.Transient() {
		log.Warn(what, fields...)
		return
	}
	log.Error(what, fields...)
}

func (l *link) String() string { return fmt.Sprintf("%s-%s", l.from.config.Name, l.to.config.Name) }
