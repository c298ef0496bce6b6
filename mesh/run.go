package mesh

import (
	"context"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/applier"
	"replicator/canal"
	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/conflict"
	"replicator/fault"
	"replicator/journal"
	"replicator/server"
)

const (
	barrierTimeout = 10 * time.Second
	progressEvery  = 10 * time.Second
)

// runLink keeps one link running until the context ends.
func (o *owner) runLink(ctx context.Context, l *link) {
	log := o.mesh.log.Named("link").With(zap.String("from", l.from.config.Name), zap.String("to", l.to.config.Name))
	report := func(f *fault.Error, pause time.Duration) {
		logFault(log, "link is held up", f, pause)
		if !f.Class.Transient() { // what a person has done about it may show in new sessions only
			l.from.server.Renew()
			l.to.server.Renew()
		}
	}
	supervise(ctx, l.trouble, report, func(ctx context.Context) error { return o.tryLink(ctx, l, log) })
	l.trouble.clear(Starting)
}

// tryLink runs a link until it fails.
func (o *owner) tryLink(ctx context.Context, l *link, log *zap.Logger) error {
	for {
		if err := l.waitForSource(ctx); err != nil {
			return err
		}
		if err := o.awaitAgreement(ctx, l, log); err != nil {
			return err
		}
		if err := o.checkTables(ctx, l); err != nil {
			return err
		}
		run := applier.NewLink(o.linkOptions(l, log))
		l.begun(run)
		changed, err := o.whileAgreed(ctx, l, run)
		l.ended(run, err)
		if !changed {
			return err
		}
	}
}

// waitForSource waits until the source is known, and shows meanwhile what keeps it.
func (l *link) waitForSource(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-l.from.ready:
			if f, _, _ := l.from.trouble.get(); f != nil {
				return &fault.Error{Class: fault.Class(f.Class), Message: f.Message, Remedy: f.Remedy}
			}
			return nil
		case <-tick.C:
			l.hold(l.from)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begun notes the run that works now.
func (l *link) begun(run *applier.Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.run = run
}

// ended keeps what the next run must know of the last one.
func (l *link) ended(run *applier.Link, err error) {
	f, _ := fault.As(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.run = nil
	l.stoppedAt = run.StoppedAt()
	l.fenced = f != nil && f.Class == fault.Fenced
	if late := run.Late(); late != (checkpoint.Owner{}) {
		l.late = late
	}
}

func (o *owner) linkOptions(l *link, log *zap.Logger) applier.Options {
	c := o.mesh.config
	source := l.from.profile()
	l.mu.Lock()
	pass, fenced, late := l.pass, l.fenced, l.late
	l.pass = change.GTID{}
	l.mu.Unlock()
	return applier.Options{
		Source: l.from.config.Name, Target: l.to.config.Name,
		Identity: source.identity, Self: o.profile.identity.ID, SourceFlavor: source.info.Flavor, Owner: o.mesh.owner,
		Server: l.to.server, Dialect: o.profile.dialect, Flavor: o.profile.info.Flavor,
		MaxPacket: maxPacket(o.profile.info),
		Match:     c.Tables.Matches, Index: o.state, Watermark: o.watermark, Definitions: o.definitions,
		Recent: o.recent, Keyer: o.keyer, Policy: c.Policy, Registers: o.registers, Prefers: o.prefers,
		Journal: o.journal, Decided: o.decided, Working: o.working, Name: o.mesh.nameOf,
		Subscribe: func(p change.GTIDSet, clock change.Clock) applier.Stream {
			start := canal.Start{Position: p, Clock: clock}
			select {
			case l.from.wanted <- start:
			default: // the reader runs, or has been asked
			}
			return l.from.reader().Subscribe(start)
		},
		Limits: applier.Limits{
			Transactions: c.Apply.GroupTransactions, Rows: int64(c.Apply.GroupRows), Bytes: int64(c.Apply.GroupBytes),
			Time: c.Apply.GroupTime,
		},
		Workers:      c.Apply.Workers,
		LogsCascades: source.logsCascades(), CascadesLogged: o.mesh.logsCascades(),
		Halt: c.DDL == "halt", Pass: pass, Fenced: fenced, Tolerated: late,
		MaxClockSkew: c.Conflict.MaxClockSkew, SessionWait: c.Lease.TTL,
		BarrierTimeout: barrierTimeout, ProgressEvery: progressEvery,
		Started: func() { l.trouble.clear(Running); log.Info("link runs") },
		Held: func(f *fault.Error) {
			_ = l.trouble.set(f)
			logFault(log, "link waits", f, 0)
		},
		Stats: &l.stats, Routes: &l.routes, Log: log,
	}
}

// journal writes entries in the open transaction of q.
func (o *owner) journal(ctx context.Context, q checkpoint.Querier, entries []*journal.Entry) error {
	limits := journal.Limits{MaxValue: int64(o.mesh.config.Journal.MaxValue), MaxPacket: maxPacket(o.profile.info)}
	return journal.Write(ctx, q, limits, entries)
}

// logsCascades reports whether a server's binlog has the rows that its foreign keys change: MySQL since 9.6.
func (p *profile) logsCascades() bool {
	return p.info.Flavor == change.MySQL && p.info.Release.AtLeast(9, 6, 0)
}

func (m *Mesh) logsCascades() bool {
	for _, x := range m.members {
		if p := x.profile(); p == nil || !p.logsCascades() {
			return false
		}
	}
	return true
}

// decided looks for a decision about a conflict in the journals of the other servers, as far as they answer.
func (o *owner) decided(ctx context.Context, id journal.ID) string {
	for _, x := range o.mesh.members {
		if x == o.member || x.profile() == nil {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, time.Second)
		var state string
		err := x.server.DB().QueryRowContext(ask, "SELECT state FROM replicator.conflict WHERE id = ? AND state <> ?", id[:], journal.Open).Scan(&state)
		cancel()
		if err == nil {
			return state
		}
	}
	return ""
}

// prefers reports whether by the table's policy the first of two concurrent changes is to stand, though the second is newer.
func (o *owner) prefers(table change.TableName, one, other change.Version) bool {
	m := o.mesh
	rank := func(id change.ServerID) int { return m.config.Rank(m.nameOf(id)) }
	switch m.config.Policy(table) {
	case config.ServerPriority:
		return conflict.ServerPriority.Stands(one, other, rank)
	case config.FirstWriterWins:
		return conflict.FirstWriterWins.Stands(one, other, rank)
	}
	return false
}

// working reports whether the link from a source to this target brings changes now.
func (o *owner) working(source change.ServerID) bool {
	for _, l := range o.mesh.into(o.member) {
		if p := l.from.profile(); p != nil && p.identity.ID == source {
			return l.stats.Running()
		}
	}
	return false
}

// checkTables refuses a link whose tables cannot be replicated.
func (o *owner) checkTables(ctx context.Context, l *link) error {
	c := o.mesh.config
	from, to := server.Examine(ctx, l.from.server, c), server.Examine(ctx, l.to.server, c)
	from.ReadTables(ctx, c)
	to.ReadTables(ctx, c)
	if err := server.Err(append(from.Findings, to.Findings...)); err != nil {
		return err
	}
	if err := server.Err(server.Together([]*server.Subject{from, to}, c)); err != nil {
		return err
	}
	return server.Err(server.CheckLink(ctx, from, to))
}

// Recent transactions that links share are kept in this much memory over all servers, and in no less for each.
const (
	ringBytes = 48 << 20
	leastRing = 2 << 20
)

// hubOptions say how to read a server's binlog.
func (m *member) hubOptions(p *profile) canal.Options {
	o := readerOptions(m.mesh.config, m.config, m.server, p.login, p.info, p.identity.ID)
	o.Logger = m.log.Named("canal")
	return o
}

// times says where the application gives the time of its changes.
func times(c *config.Config) canal.Times {
	t := canal.Times{Column: c.Tables.TimeColumn}
	if l := c.Conflict.ChangeLog; l != nil {
		t.Log = &canal.ChangeLog{
			Name: l.Name, Table: l.Columns.Table, Key: l.Columns.Key, User: l.Columns.User, Time: l.Columns.Time,
			Comment: l.Columns.Comment,
		}
	}
	return t
}

// rate is a link's speed over the last seconds.
type rate struct {
	mu      sync.Mutex
	samples []int64
	speed   float64
}

const rateWindow = 5 // seconds

func (r *rate) sample(rows int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, rows)
	if len(r.samples) > rateWindow+1 {
		r.samples = r.samples[1:]
	}
	if n := len(r.samples); n > 1 {
		r.speed = float64(rows-r.samples[0]) / float64(n-1)
	}
}

func (r *rate) perSecond() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.speed
}

func (m *Mesh) sampleRates(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, l := range m.links {
				l.rate.sample(l.stats.Rows.Load())
			}
		}
	}
}

// maxPacket is a server's max_allowed_packet.
func maxPacket(i server.Info) int {
	n, err := strconv.Atoi(i.Variables["max_allowed_packet"])
	if err != nil {
		return 16 << 20 // MariaDB's default
	}
	return n
}
