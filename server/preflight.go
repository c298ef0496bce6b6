package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/fault"
)

// Subject is one server as the checks found it.
type Subject struct {
	Name     string
	Server   *Server
	Config   *config.Server
	Info     Info
	Dialect  Dialect
	Clock    Clock
	Replay   bool                 // the account may run BINLOG statements
	Identity *checkpoint.Identity // nil before the server's birth
	// Tables are the replicated ones, ordered by name; nil until ReadTables.
	Tables []*Table
	// Findings are those about this server alone.
	Findings []Finding

	logged func(database string) bool // whether the binlog takes the database's rows
	grants grantSet                   // of the applier's account
}

// Preflight makes every check: of each server, between the servers, and of each table on each link. It writes nothing.
func Preflight(ctx context.Context, servers []*Server, c *config.Config) []Finding {
	subjects := make([]*Subject, len(servers))
	var group sync.WaitGroup
	for i, s := range servers {
		group.Go(func() {
			subjects[i] = Examine(ctx, s, c)
			subjects[i].ReadTables(ctx, c)
		})
	}
	group.Wait()
	var findings []Finding
	for _, s := range subjects {
		findings = append(findings, s.Findings...)
	}
	findings = append(findings, Together(subjects, c)...)
	findings = append(findings, checkAutoIncrement(subjects, c)...)
	findings = append(findings, agreePolicies(ctx, subjects, c)...)
	findings = append(findings, checkRules(subjects, c)...)
	aside, why := withoutTables(subjects)
	findings = append(findings, why...)
	for _, l := range c.Links {
		from, to := find(subjects, l.From), find(subjects, l.To)
		if from == nil || to == nil || from.Tables == nil || to.Tables == nil || aside[from] || aside[to] {
			continue // why is among the findings
		}
		findings = append(findings, CheckLink(ctx, from, to)...)
	}
	return findings
}

// withoutTables finds the servers that were never in the mesh and have none of the tables, while another one has some.
func withoutTables(subjects []*Subject) (aside map[*Subject]bool, findings []Finding) {
	aside = map[*Subject]bool{}
	full := slices.IndexFunc(subjects, func(s *Subject) bool { return len(s.Tables) > 0 })
	for _, s := range subjects {
		if full < 0 || s.Identity != nil || s.Tables == nil || len(s.Tables) > 0 {
			continue
		}
		aside[s] = true
		r := &report{server: s.Name, info: s.Info}
		from := subjects[full]
		r.add(Warn, fault.Precondition, "tables", NoTablesRemedy(from.Name, s.Name), "%s", NoTables(s.Name, from.Name, len(from.Tables)))
		findings = append(findings, r.findings...)
	}
	return aside, findings
}

// NoTables says why a server takes no part in a mesh.
func NoTables(name, other string, tables int) string {
	return fmt.Sprintf("%s has none of the replicated tables, and %s has %d: it takes no part yet", name, other, tables)
}

// NoTablesRemedy says what to do about that.
func NoTablesRemedy(name, other string) string {
	return fmt.Sprintf("copy them, while `replicator run` runs: replicator clone --from %s --to %s; or create them, or let the account see them", name, other)
}

func find(subjects []*Subject, name string) *Subject {
	i := slices.IndexFunc(subjects, func(s *Subject) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return subjects[i]
}

// Examine makes the checks of one server alone: what it is, its settings, the accounts' privileges, its identity. What
// could not be asked is among the findings, and left zero in the subject.
func Examine(ctx context.Context, s *Server, c *config.Config) *Subject {
	subject := &Subject{
		Name: s.Name, Server: s, Config: s.config, logged: func(string) bool { return true },
	}
	r := &report{server: s.Name}
	defer func() { subject.Findings = append(subject.Findings, r.findings...) }()
	var err error
	if subject.Info, err = Probe(ctx, s.DB()); err != nil {
		r.failed("connect", err)
		return subject
	}
	r.info = subject.Info
	r.add(Pass, "", "connect", "", "%s at %s", subject.Info, s.Endpoint())
	subject.Dialect = NewDialect(subject.Info)
	serverSettings(r, subject.Dialect)
	if subject.Clock, err = ReadClock(ctx, s.DB()); err != nil {
		r.failed("clock", err)
	}
	subject.checkPrivileges(ctx, r)
	subject.logged = checkFilter(ctx, r, s.DB(), subject.Dialect)
	checkSession(ctx, r, s.DB())
	subject.checkReplica(ctx, r)
	subject.checkIdentity(ctx, r, c)
	if subject.Config.Own {
		subject.checkReadOnly(r)
	}
	return subject
}

// checkPrivileges looks at the grants of both accounts.
func (s *Subject) checkPrivileges(ctx context.Context, r *report) {
	var err error
	if s.grants, err = readGrants(ctx, s.Server.DB(), s.Info); err != nil {
		r.failed("privileges", err)
		return
	}
	reader := s.grants
	if s.Config.Reader.User != s.Config.User {
		if reader, err = s.readerGrants(ctx); err != nil {
			r.failed("reader login", err)
			return
		}
	}
	s.checkRole(r, ReaderRole, reader)
	if !s.Config.Own {
		return
	}
	s.checkRole(r, ApplierRole, s.grants)
	if s.Replay, err = s.Dialect.CanReplay(ctx, s.Server.DB()); err != nil {
		r.failed("replay", err)
	}
}

func (s *Subject) readerGrants(ctx context.Context) (grantSet, error) {
	pool, err := s.Server.OpenReader(Options{})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return readGrants(ctx, pool, s.Info)
}

// checkRole checks what a role needs on the whole server and on the replicator's schema; those on tables are checked
// when the tables are known.
func (s *Subject) checkRole(r *report, role Role, g grantSet) {
	complete := true
	for _, p := range s.Dialect.needed(role) {
		object := change.TableName{}
		switch p.scope {
		case everywhere:
		case ownSchema:
			object.Database = checkpoint.Schema
		case replicatedDB:
			continue
		}
		if p.in(g, object) {
			continue
		}
		complete = false
		s.missing(r, role, p, object)
	}
	if complete {
		r.check(true, Pass, role.String()+" privileges", "", "complete")
	}
}

func (s *Subject) missing(r *report, role Role, p privilege, object change.TableName) {
	account := s.Config.User
	if role == ReaderRole {
		account = s.Config.Reader.User
	}
	on := "*.*"
	if object.Database != "" {
		on = Quote(object.Database) + ".*"
	}
	state, effect := Fail, "it "+p.why
	if p.optional != "" {
		state, effect = Warn, p.optional
	}
	r.add(state, fault.Privilege, role.String()+" privileges",
		fmt.Sprintf("GRANT %s ON %s TO the account %s", p.name, on, account),
		"%s has no %s on %s: %s", account, p.name, on, effect)
}

func (s *Subject) checkReplica(ctx context.Context, r *report) {
	const name = "native replica"
	replica, err := s.Dialect.replicates(ctx, s.Server.DB())
	switch {
	case err != nil:
		r.failed(name, err)
	case !replica:
		r.check(true, Pass, name, "", "no")
	case s.Info.On("log_slave_updates") || s.Info.On("log_replica_updates"):
		r.check(false, Warn, name, "make sure that no server of this mesh is above it: changes would arrive twice",
			"the server is also a replica of another one")
	default:
		r.check(false, Fail, name, "start the server with log_slave_updates",
			"the server is a replica of another one and does not log what it receives: its peers would never see it")
	}
}

func (s *Subject) checkIdentity(ctx context.Context, r *report, c *config.Config) {
	const name, remedy = "identity", "give it an identity of its own: replicator init --new-identity"
	identity, born, err := checkpoint.LoadIdentity(ctx, s.Server.DB(), s.Info.Flavor)
	switch {
	case isNumber(err, 1142, 1044):
		// Said already among the privileges.
	case err != nil:
		r.failed(name, err)
	case !born:
		r.check(true, Pass, name, "", "none yet: run gives it one")
	case identity.Mesh != c.Mesh:
		r.add(Fail, fault.Identity, name, "correct mesh in the configuration, or: replicator init --new-identity",
			"the server belongs to the mesh %q, not to %q", identity.Mesh, c.Mesh)
	case identity.Settings != c.FoldSettings():
		r.add(Fail, fault.Configuration, name, "configure what the mesh was started with",
			"the mesh was started with %s, the configuration says %s", identity.Settings, c.FoldSettings())
	case identity.ServerUUID != s.Info.UUID && len(s.Config.Endpoints) == 1:
		s.Identity = &identity
		r.add(Warn, fault.Identity, name, "if the data was copied from another server of the mesh: "+
			"replicator init --new-identity", "%s was given to the server with UUID %s; this one has %s", identity.ID,
			identity.ServerUUID, s.Info.UUID)
	default:
		s.Identity = &identity
		r.check(true, Pass, name, remedy, "%s", identity.ID)
	}
}

func (s *Subject) checkReadOnly(r *report) {
	immune := s.Dialect.ignoresReadOnly().in(s.grants, change.TableName{})
	value := strings.ToUpper(s.Info.Variables["read_only"])
	strict := s.Info.On("super_read_only") || strings.HasPrefix(value, "NO_LOCK")
	writable := !strict && (value == "OFF" || value == "0" || immune)
	if writable {
		r.check(true, Pass, "read_only", "", "the account may write")
		return
	}
	r.add(Fail, fault.ReadOnly, "read_only", "switch read_only off, or set own: false for this server",
		"the server is read-only")
}

// Together makes the checks between servers: what must differ and what must be equal.
func Together(subjects []*Subject, c *config.Config) []Finding {
	var known []*Subject
	for _, s := range subjects {
		if s.Dialect != nil {
			known = append(known, s)
		}
	}
	var findings []Finding
	for i, a := range known {
		for _, b := range known[i+1:] {
			findings = append(findings, pair(a, b, c)...)
		}
		findings = append(findings, ownClock(a, c))
	}
	return findings
}

func pair(a, b *Subject, c *config.Config) []Finding {
	r := &report{server: b.Name, info: b.Info}
	if a.Info.ServerID == b.Info.ServerID {
		r.add(Fail, fault.Identity, "server_id", "give each server a server_id of its own",
			"%d is also that of %s", b.Info.ServerID, a.Name)
	}
	if a.Info.UUID != "" && a.Info.UUID == b.Info.UUID {
		r.add(Fail, fault.Identity, "server UUID",
			"if they are one server, name it once; if the data was copied, remove auto.cnf (MariaDB: server_uid) on one and restart",
			"%s is also that of %s", b.Info.UUID, a.Name)
	}
	if a.Identity != nil && b.Identity != nil && a.Identity.ID == b.Identity.ID {
		r.add(Fail, fault.Identity, "identity", "on the copy of the two: replicator init --new-identity",
			"%s is also that of %s", b.Identity.ID, a.Name)
	}
	if x, y := a.Info.Variables["lower_case_table_names"], b.Info.Variables["lower_case_table_names"]; x != y {
		r.check(false, Fail, "lower_case_table_names", "make it the same on all servers: it is chosen when a server is set up",
			"is %s, on %s it is %s", y, a.Name, x)
	}
	if x, y := a.Info.Variables["max_allowed_packet"], b.Info.Variables["max_allowed_packet"]; x != y {
		r.check(false, Warn, "max_allowed_packet", "make it the same on all servers: a large row of one could not reach the other",
			"is %s, on %s it is %s", y, a.Name, x)
	}
	if a.Clock.RoundTrip > 0 && b.Clock.RoundTrip > 0 {
		r.clocks(b.Clock.Ahead-a.Clock.Ahead, (a.Clock.RoundTrip+b.Clock.RoundTrip)/2, a.Name, c.Conflict.MaxClockSkew)
	}
	return r.findings
}

// ownClock compares a server with this machine, whose clock bounds what it believes.
func ownClock(s *Subject, c *config.Config) Finding {
	r := &report{server: s.Name, info: s.Info}
	if s.Clock.RoundTrip > 0 {
		r.clocks(s.Clock.Ahead, s.Clock.RoundTrip/2, "this machine", c.Conflict.MaxClockSkew)
		return r.findings[0]
	}
	r.check(false, Fail, "clock", "see the other findings", "could not be read")
	r.findings[0].Incomplete = true
	return r.findings[0]
}

// clocks judges a difference that is known up to the given error: only what is surely too much counts.
func (r *report) clocks(ahead, inexact time.Duration, than string, most time.Duration) {
	const remedy = "keep the clocks of all machines together with NTP"
	apart := max(ahead.Abs()-inexact, 0)
	direction := "ahead of"
	if ahead < 0 {
		direction = "behind"
	}
	state := Pass
	switch {
	case apart > most:
		state = Fail
	case apart > time.Second:
		state = Warn
	}
	r.add(state, fault.ClockSkew, "clock", remedy, "%s %s %s, give or take %s", ahead.Abs().Round(time.Millisecond),
		direction, than, inexact.Round(time.Microsecond))
}
