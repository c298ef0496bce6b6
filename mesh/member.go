package mesh

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"replicator/canal"
	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/conflict"
	"replicator/fault"
	"replicator/server"
)

// member is one server of the mesh as this process knows it.
type member struct {
	mesh    *Mesh
	config  *config.Server
	server  *server.Server
	log     *zap.Logger
	trouble *trouble

	mu       sync.Mutex
	known    *profile
	hub      *canal.Hub
	index    *conflict.State // while this process owns the server
	skew     *float64
	answered *bool
	ready    chan struct{} // closed when known is set
	cloning  atomic.Bool   // somebody copies another server's rows to it: it takes part when that has ended

	warnings []string // that reach has logged

	// wanted takes the position at which a link wants to read a server that has no owner in this process.
	wanted chan canal.Start
}

// profile is what stays the same about a server while the process runs.
type profile struct {
	info     server.Info
	dialect  server.Dialect
	identity checkpoint.Identity
	login    server.Reader // how to reach the binlog, TLS included
}

// pooled is how many connections to a server everything but the links may use at once.
const pooled = 16

func newMember(m *Mesh, c *config.Server) (*member, error) {
	log := m.log.Named("server").With(zap.String("server", c.Name))
	// Each link to the server keeps a connection for each of its workers.
	sessions := (len(m.config.Servers) - 1) * m.config.Apply.Workers
	s, err := server.Open(c, server.Options{Logger: log, Connections: pooled + sessions})
	if err != nil {
		return nil, err
	}
	return &member{mesh: m, config: c, server: s, log: log, trouble: newTrouble(), ready: make(chan struct{}), wanted: make(chan canal.Start, 1)}, nil
}

// profile returns what is known of the server, nil before it was reached the first time.
func (m *member) profile() *profile {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known
}

// reach connects to the server, looks whether it is fit to take part, and finds out who it is. Afterwards profile is set.
func (m *member) reach(ctx context.Context) error {
	subject := server.Examine(ctx, m.server, m.mesh.config)
	refused, _ := fault.As(server.Err(subject.Findings))
	m.setAnswered(subject.Dialect != nil || refused != nil && refused.Class == fault.Login)
	m.setSkew(subject)
	m.warn(subject.Findings)
	if err := server.Err(subject.Findings); err != nil {
		return err
	}
	info := subject.Info
	identity, err := m.identify(ctx, info)
	if err != nil {
		return err
	}
	login, err := m.server.Reader(ctx)
	if err != nil {
		return err
	}
	m.learn(&profile{info: info, dialect: server.NewDialect(info), identity: identity, login: login})
	return nil
}

// warn logs what was not logged before.
func (m *member) warn(findings []server.Finding) {
	var warnings []string
	for _, f := range findings {
		if f.State != server.Warn {
			continue
		}
		text := f.Name + ": " + f.Message
		if warnings = append(warnings, text); !slices.Contains(m.warnings, text) {
			m.log.Warn(text, zap.String("remedy", f.Remedy))
		}
	}
	m.warnings = warnings
}

func (m *member) setAnswered(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answered = &yes
}

func (m *member) setSkew(s *server.Subject) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Dialect == nil || s.Clock.RoundTrip == 0 {
		return
	}
	seconds := s.Clock.Ahead.Seconds()
	m.skew = &seconds
}

func (m *member) learn(p *profile) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.log.Info("server is known", zap.Stringer("identity", p.identity.ID), zap.Stringer("version", p.info),
			zap.String("compression", string(m.server.Compression())))
		close(m.ready)
	}
	m.known = p
	m.cloning.Store(false)
}

// identify reads the server's identity, and gives birth to a server that has none.
func (m *member) identify(ctx context.Context, info server.Info) (checkpoint.Identity, error) {
	conn, err := m.server.DB().Conn(ctx)
	if err != nil {
		return checkpoint.Identity{}, server.Fault(err, "connect to "+m.config.Name)
	}
	defer conn.Close()
	if err := checkpoint.Migrate(ctx, conn); err != nil {
		return checkpoint.Identity{}, m.fault(err, "prepare the replicator schema of "+m.config.Name)
	}
	identity, found, err := checkpoint.LoadIdentity(ctx, conn, info.Flavor)
	if err == nil && !found {
		identity, err = m.beBorn(ctx, conn, info)
	}
	if errors.Is(err, checkpoint.ErrReborn) {
		if m.profile() == nil {
			m.cloning.Store(true)
		} else { // nobody is to count with what it had
			m.log.Info("server is being cloned: the mesh begins anew without it")
			m.mesh.anew(ErrReborn)
		}
		return identity, fault.New(fault.Unavailable, "wait until replicator clone has ended; if it was interrupted, run it again",
			"%s is being cloned: it takes no part yet", m.config.Name)
	}
	if err == nil {
		err = m.checkReborn(ctx, conn, identity, info)
	}
	if err != nil {
		return checkpoint.Identity{}, m.fault(err, "identify "+m.config.Name)
	}
	return identity, m.checkIdentity(identity, info)
}

// checkReborn begins the mesh anew when a server that is known was cloned meanwhile: what the process knows of it, and of what
// others have of it, is of another server.
func (m *member) checkReborn(ctx context.Context, q checkpoint.Querier, identity checkpoint.Identity, info server.Info) error {
	known := m.profile()
	if known == nil || known.identity.ID == identity.ID {
		return nil
	}
	c, found, err := checkpoint.LoadClone(ctx, q, info.Flavor)
	if err != nil || !found || c.Ended.IsZero() || c.ID != identity.ID || c.Was != known.identity.ID {
		return err
	}
	m.log.Info("server was cloned: the mesh begins anew", zap.Stringer("was", c.Was), zap.Stringer("identity", c.ID))
	m.mesh.anew(ErrReborn)
	return fault.New(fault.Unavailable, "wait", "%s was cloned: the mesh begins anew", m.config.Name)
}

func (m *member) checkIdentity(identity checkpoint.Identity, info server.Info) error {
	name := m.config.Name
	if known := m.profile(); known != nil && known.identity.ID != identity.ID {
		return fault.New(fault.Identity, "if this is intended, restart the replicator; else correct the endpoints of "+name,
			"%s had the identity %s and now has %s", name, known.identity.ID, identity.ID)
	}
	if identity.Mesh != m.mesh.config.Mesh {
		return fault.New(fault.Identity, "correct `mesh` in the configuration, or the endpoints of "+name,
			"%s belongs to the mesh %q, this process serves %q", name, identity.Mesh, m.mesh.config.Mesh)
	}
	if want := m.mesh.config.FoldSettings(); identity.Settings != want {
		return fault.New(fault.Configuration, "configure what the mesh was started with",
			"the mesh was started with %s, the configuration says %s", identity.Settings, want)
	}
	for _, other := range m.mesh.members {
		p := other.profile()
		if other == m || p == nil {
			continue
		}
		if p.identity.ID == identity.ID {
			return fault.New(fault.Identity,
				fmt.Sprintf("one is a copy of the other: run `replicator init --new-identity %s`", name),
				"%s and %s have the same identity %s", name, other.config.Name, identity.ID)
		}
		if p.info.UUID == info.UUID && info.UUID != "" {
			return fault.New(fault.Identity, "give one of them its own: stop it, remove auto.cnf (MariaDB: server_uid) from its data directory and start it; or correct the endpoints",
				"%s and %s are the same server or copies: both have the UUID %s", name, other.config.Name, info.UUID)
		}
		if p.info.ServerID == info.ServerID {
			return fault.New(fault.Precondition, "give every server a server_id of its own",
				"%s and %s both have server_id %d", name, other.config.Name, info.ServerID)
		}
	}
	return nil
}

// beBorn records where every reader of this server begins, and from which time its clock counts: at least the greatest
// time known in the mesh, so that its first changes are not older than what others have forgotten.
func (m *member) beBorn(ctx context.Context, q checkpoint.Querier, info server.Info) (checkpoint.Identity, error) {
	if c, found, err := checkpoint.LoadClone(ctx, q, info.Flavor); err != nil || found && c.Ended.IsZero() {
		return checkpoint.Identity{}, cmp.Or(err, checkpoint.ErrReborn)
	}
	if err := m.hasTables(ctx); err != nil {
		return checkpoint.Identity{}, err
	}
	start, err := m.mesh.greatestTime(ctx, m)
	if err != nil {
		return checkpoint.Identity{}, err
	}
	now, err := checkpoint.Now(ctx, q)
	if err != nil {
		return checkpoint.Identity{}, err
	}
	position, err := server.NewDialect(info).Position(ctx, q)
	if err != nil {
		return checkpoint.Identity{}, err
	}
	newborn := checkpoint.Identity{
		ID: change.NewServerID(), Mesh: m.mesh.config.Mesh, Position: position, Clock: max(start, change.TimeOf(now)),
		Settings: m.mesh.config.FoldSettings(), ServerUUID: info.UUID,
	}
	born, err := checkpoint.GiveBirth(ctx, q, info.Flavor, newborn)
	if err == nil && born.ID == newborn.ID {
		m.log.Info("server joins the mesh: what it holds of the replicated tables is taken as equal to what the others hold",
			zap.Stringer("identity", born.ID), zap.Stringer("position", born.Position))
	}
	return born, err
}

// hasTables keeps a server out of the mesh that has none of the replicated tables while another has some: it cannot be taken
// as equal to that one.
func (m *member) hasTables(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, meetingPatience)
	defer cancel()
	matches := m.mesh.config.Tables.Matches
	tables, err := server.Tables(ctx, m.server.DB(), matches)
	if err != nil || len(tables) > 0 {
		return err
	}
	for _, x := range m.mesh.members {
		if x == m {
			continue
		}
		// One that cannot be asked is not known to be different.
		if theirs, err := server.Tables(ctx, x.server.DB(), matches); err == nil && len(theirs) > 0 {
			return fault.New(fault.Unavailable, server.NoTablesRemedy(x.config.Name, m.config.Name), "%s",
				server.NoTables(m.config.Name, x.config.Name, len(theirs)))
		}
	}
	return nil
}

// knownTime is the greatest time of the mesh that a server knows of, 0 when it has no part in it yet.
func knownTime(ctx context.Context, db *sql.DB) (change.Time, error) {
	info, err := server.Probe(ctx, db)
	if err != nil {
		return 0, err
	}
	identity, found, err := checkpoint.LoadIdentity(ctx, db, info.Flavor)
	if err != nil || !found {
		return 0, err
	}
	newest, err := checkpoint.NewestTime(ctx, db)
	if err != nil {
		return 0, err
	}
	now, err := checkpoint.Now(ctx, db)
	if newest = max(newest, identity.Clock); newest > change.TimeOf(now) {
		// The clocks of the mesh run ahead of this server's: markers are up to a progress interval behind them.
		newest += change.Time(time.Minute / time.Microsecond)
	}
	return max(newest, change.TimeOf(now)), err
}

func (m *member) fault(err error, doing string) error {
	if _, ok := fault.As(err); ok || err == nil {
		return err
	}
	return server.Fault(err, doing)
}

// reader returns the hub that reads this server's binlog, made when it is first asked for. profile must be known.
func (m *member) reader() *canal.Hub {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hub == nil {
		m.hub = canal.NewHub(m.hubOptions(m.known))
	}
	return m.hub
}

// indexed notes the server's change index, nil when there is none any more.
func (m *member) indexed(state *conflict.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index = state
}
