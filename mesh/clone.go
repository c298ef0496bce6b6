package mesh

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/clone"
	"replicator/config"
	"replicator/fault"
	"replicator/server"
)

// CloneOptions say what is to be cloned, and how.
type CloneOptions struct {
	From, To string
	Replace  bool     // rows that the target has may be replaced
	Force    bool     // also where changes of the target have not reached every other server: they are lost there
	Logged   bool     // the copy goes through the target's binlog, for its replicas
	With     []string // what else: views, routines, triggers, events
	Workers  int
	// Account logs in to both servers for the copy; nil: those of the configuration.
	Account  *config.Account
	Progress func(clone.Progress)
	Say      func(string) // what is done next, or waited for
	Log      *zap.Logger
}

const (
	clonePatience = 60 * time.Second // for changes that are on their way between other servers
	clonePoll     = 500 * time.Millisecond
	lockPatience  = 10 * time.Second // for transactions of applications
	// ownersPatience is for owners that could not begin before the target was out of their way.
	ownersPatience = 2 * personEvery
)

// cloning is a clone under way.
//
// The rows of the target become those that the source has at one moment. What others still send, and what is not stable yet,
// is the same for both then: the target's links begin where the source's stood, and its change index with what the source's
// had. Both are written as markers of the target's own, behind the copy and before its identity, with which it is born anew:
// its old one stood for other rows.
type cloning struct {
	CloneOptions
	config         *config.Config
	witnesses      []*witness
	source, target *witness
	donor, copy    *server.Server             // with the account for the copy
	members        map[string]change.ServerID // those that take part, as it begins
	others         []checkpoint.Identity      // of them, with links to the source, without the target
	state          checkpoint.Clone
	resumed        bool
}

// Clone makes the replicated tables of a server equal to another's, and has it join the mesh from there. One that was ended
// goes on when it is run again: what has been copied and has not changed since is not copied twice.
func Clone(ctx context.Context, c *config.Config, o CloneOptions) (clone.Report, error) {
	witnesses, err := newWitnesses(ctx, c)
	if err != nil {
		return clone.Report{}, err
	}
	defer closeAll(witnesses)
	x := &cloning{CloneOptions: o, config: c, witnesses: witnesses}
	if err := x.open(); err != nil {
		return clone.Report{}, err
	}
	defer x.close()
	lock, err := x.lock(ctx)
	if err != nil {
		return clone.Report{}, err
	}
	defer func() { _ = lock.Close() }() // the lock ends with the session
	report, err := x.run(ctx)
	return report, withGrants(err)
}

// withGrants gives a missing privilege the remedy that fits: the accounts that init makes may not do what a copy needs.
func withGrants(err error) error {
	f, ok := fault.As(err)
	if !ok || f.Class != fault.Privilege || !strings.Contains(f.Remedy, "init --grants") {
		return err
	}
	return fault.Wrap(err, fault.Privilege, "grant it, or clone as an account that has it: --user; docs/operations.md, Cloning a server, lists the privileges", "clone")
}

// open finds the servers, and connects as the account for the copy.
func (x *cloning) open() error {
	var names []string
	x.members = map[string]change.ServerID{}
	for _, w := range x.witnesses {
		names = append(names, w.status.Name)
		if w.identity != nil {
			x.members[w.status.Name] = w.identity.ID
		}
		if f := w.status.Error; f != nil {
			return &fault.Error{Class: fault.Class(f.Class), Message: w.status.Name + ": " + f.Message, Remedy: f.Remedy}
		}
		switch w.status.Name {
		case x.From:
			x.source = w
		case x.To:
			x.target = w
		}
	}
	for name, w := range map[string]*witness{x.From: x.source, x.To: x.target} {
		if w == nil {
			return fault.New(fault.Configuration, fmt.Sprintf("name one of %v", names), "there is no server %q", name)
		}
	}
	if x.source.identity == nil {
		return fault.New(fault.Precondition, "clone from a server that takes part in the mesh", "%s has no identity: it takes no part in the mesh", x.From)
	}
	var err error
	if x.donor, err = x.login(x.From); err != nil {
		return err
	}
	x.copy, err = x.login(x.To)
	return err
}

func (x *cloning) login(name string) (*server.Server, error) {
	account := *x.config.Server(name)
	if x.Account != nil {
		account.Account = *x.Account
	}
	return server.Open(&account, server.Options{Connections: 2*x.Workers + 4, Logger: x.Log})
}

func (x *cloning) close() {
	for _, s := range []*server.Server{x.donor, x.copy} {
		if s != nil {
			_ = s.Close() // what matters was committed
		}
	}
}

// lock keeps a second clone of the same server away.
func (x *cloning) lock(ctx context.Context) (*sql.Conn, error) {
	conn, err := x.target.server.DB().Conn(ctx)
	if err != nil {
		return nil, server.Fault(err, "connect to "+x.To)
	}
	var got sql.NullInt64
	if err = conn.QueryRowContext(ctx, "SELECT GET_LOCK('replicator.clone', 0)").Scan(&got); err == nil && got.Int64 != 1 {
		err = fault.New(fault.Busy, "wait until it has ended", "another process clones %s", x.To)
	}
	if err != nil {
		_ = conn.Close() // what is wrong has been said
		return nil, server.Fault(err, "begin to clone "+x.To)
	}
	return conn, nil
}

func (x *cloning) run(ctx context.Context) (clone.Report, error) {
	var none clone.Report
	if err := x.agrees(); err != nil {
		return none, err
	}
	x.Say("looking at " + x.To)
	if err := x.loadState(ctx); err != nil {
		return none, err
	}
	tables, err := server.Tables(ctx, x.donor.DB(), x.config.Tables.Matches)
	if err != nil {
		return none, server.Fault(err, "read the tables of "+x.From)
	}
	if len(tables) == 0 {
		return none, fault.New(fault.Configuration, "see tables.include and tables.exclude, and what the account may see", "%s has no replicated table", x.From)
	}
	o := &clone.Options{
		Source: x.side(x.source, x.donor), Target: x.side(x.target, x.copy), Tables: tables, Replace: x.Replace || x.resumed, With: x.With,
		Unlogged: !x.Logged, Progress: x.Progress,
	}
	if err := x.announced(ctx, 0); err != nil {
		return none, err
	}
	if err := x.unread(ctx); err != nil {
		return none, err
	}
	if err := clone.Check(ctx, o); err != nil {
		return none, err
	}
	if err := x.begin(ctx); err != nil {
		return none, err
	}
	if err := x.announced(ctx, ownersPatience); err != nil {
		return none, err
	}
	if x.Logged {
		o.Begin = x.tag()
	}
	start, err := x.settled(ctx)
	if err != nil {
		return none, err
	}
	x.Say("taking a snapshot of " + x.From)
	snap, err := clone.Freeze(ctx, o.Source, x.Workers)
	if err != nil {
		return none, err
	}
	defer snap.Close()
	applied, err := checkpoint.NewestMarkers(ctx, snap.Session(), x.others)
	if err != nil {
		return none, server.Fault(err, "read the markers of "+x.From)
	}
	past, err := x.past(ctx, start, snap.Position)
	if err != nil {
		return none, err
	}
	report, err := clone.Copy(ctx, snap, o)
	if err != nil {
		return report, err
	}
	snap.Close()
	x.Say("joining the mesh")
	return report, x.join(ctx, past, snap.Position, applied)
}

func (x *cloning) side(w *witness, s *server.Server) clone.Side {
	return clone.Side{Name: w.status.Name, DB: s.DB(), Flavor: w.info.Flavor, Dialect: server.NewDialect(w.info)}
}

// loadState finds out whether a clone was ended before, and prepares the replicator schema.
func (x *cloning) loadState(ctx context.Context) error {
	conn, err := x.target.server.DB().Conn(ctx)
	if err != nil {
		return server.Fault(err, "connect to "+x.To)
	}
	defer func() { _ = conn.Close() }() // nothing is open
	if err := checkpoint.Migrate(ctx, conn); err != nil {
		return server.Fault(err, "prepare the replicator schema of "+x.To)
	}
	state, found, err := checkpoint.LoadClone(ctx, conn, x.target.info.Flavor)
	if err != nil {
		return server.Fault(err, "look for a clone that was ended on "+x.To)
	}
	if x.resumed = found && state.Ended.IsZero(); x.resumed {
		x.state = state
		x.Say("going on with the clone that began at " + state.Begun.Format(time.DateTime) + " UTC")
	}
	return nil
}

// unread refuses a copy that does not go through the binlog where others read it.
func (x *cloning) unread(ctx context.Context) error {
	if x.Logged {
		return nil
	}
	var users []string
	rows, err := x.copy.DB().QueryContext(ctx, "SELECT USER FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'")
	if err != nil {
		return server.Fault(err, "look for replicas of "+x.To)
	}
	defer rows.Close()
	for rows.Next() {
		var user string
		if err := rows.Scan(&user); err != nil {
			return server.Fault(err, "look for replicas of "+x.To)
		}
		if user != x.config.Server(x.To).Reader.User {
			users = append(users, user)
		}
	}
	if err := rows.Err(); err != nil {
		return server.Fault(err, "look for replicas of "+x.To)
	}
	if len(users) > 0 {
		return fault.New(fault.Precondition, "add --binlog: the copy goes through the binlog then, and is slower; or end them",
			"%s has replicas of its own (accounts %v), which would not get the copy", x.To, users)
	}
	return nil
}

// begin takes the target out of the mesh, once everybody has what it has. Applications cannot write to it meanwhile: what they
// commit before it is out would be on its way, and reach some servers and not others.
func (x *cloning) begin(ctx context.Context) error {
	db, dialect := x.target.server.DB(), server.NewDialect(x.target.info)
	if x.resumed {
		now, err := dialect.Position(ctx, db)
		if err != nil {
			return err
		}
		return x.goOn(ctx, now)
	}
	what := "begin to clone " + x.To
	if x.target.identity != nil {
		unlock, err := x.lockTables(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	now, err := dialect.Position(ctx, db)
	if err == nil && x.target.identity != nil {
		err = x.delivered(ctx, now)
	}
	if err != nil {
		return err
	}
	x.state = checkpoint.Clone{Source: x.source.identity.ID, Position: now}
	if err := inTransaction(ctx, db, func(tx *sql.Tx) error { return checkpoint.BeginClone(ctx, tx, &x.state) }); err != nil {
		return server.Fault(err, what)
	}
	return nil
}

// lockTables keeps everybody from writing to the target's tables.
func (x *cloning) lockTables(ctx context.Context) (unlock func(), err error) {
	tables, err := server.Tables(ctx, x.copy.DB(), x.config.Tables.Matches)
	if err != nil {
		return nil, server.Fault(err, "read the tables of "+x.To)
	}
	conn, err := x.copy.DB().Conn(ctx)
	if err != nil {
		return nil, server.Fault(err, "connect to "+x.To)
	}
	unlock = func() {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // the locks end with the session
		_ = conn.Close()                                           // it is given up in any case
	}
	if len(tables) == 0 {
		return unlock, nil
	}
	var names []string
	for _, t := range tables {
		names = append(names, server.Quote(t.Name.Database)+"."+server.Quote(t.Name.Table)+" READ")
	}
	_, err = conn.ExecContext(ctx, fmt.Sprintf("SET SESSION lock_wait_timeout = %d", int(lockPatience.Seconds())))
	if err == nil {
		_, err = conn.ExecContext(ctx, "LOCK TABLES "+strings.Join(names, ", "))
	}
	if err != nil {
		unlock()
		return nil, fmt.Errorf("applications must not write to it: %w", server.Fault(err, "lock the tables of "+x.To))
	}
	return unlock, nil
}

// goOn takes up a clone that was ended. With Replace, what applications have written since it began is replaced.
func (x *cloning) goOn(ctx context.Context, now change.GTIDSet) error {
	if x.Replace {
		x.state.Position = now
	}
	x.state.Source = x.source.identity.ID
	_, err := x.target.server.DB().ExecContext(ctx, "UPDATE replicator.clone SET source = ?, position = ? WHERE singleton = 1",
		x.state.Source[:], x.state.Position.String())
	if err != nil {
		return server.Fault(err, "go on with the clone of "+x.To)
	}
	return x.untouched(ctx, now)
}

// delivered waits until every other server has the changes that were made on the target.
func (x *cloning) delivered(ctx context.Context, now change.GTIDSet) error {
	for _, l := range x.config.Links {
		if l.From != x.To {
			continue
		}
		w := x.witness(l.To)
		if w.identity == nil {
			continue
		}
		for until := time.Now().Add(clonePatience); ; {
			from := x.target.identity.Position
			state, found, err := checkpoint.Latest(ctx, w.server.DB(), x.target.info.Flavor, x.target.identity.ID)
			if err != nil {
				return server.Fault(err, "read the markers of "+l.To)
			}
			if found {
				from = state.Position
			}
			written, err := x.written(ctx, from, now)
			if f, ok := fault.As(err); ok && f.Class == fault.Purged {
				err = fault.Wrap(err, fault.Precondition, "add --force: those are gone then, but where they were applied already",
					"the binlog of %s does not reach back to what %s has of it: nobody can tell which of its changes are missing there", x.To, l.To)
			}
			if err == nil && written.count > 0 {
				err = fault.New(fault.Precondition,
					"let them be applied (see `replicator status`), and run it again; or add --force: they are gone then, but where they were applied already",
					"%s has %d transactions that %s does not have, the first is %s", x.To, written.count, l.To, written.first)
			}
			if err == nil {
				break
			}
			if x.Force {
				x.Say(err.Error())
				break
			}
			if written.count == 0 || time.Now().After(until) {
				return err
			}
			x.Say("waiting for changes of " + x.To + " to reach " + l.To)
			if err := wait(ctx, clonePoll); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *cloning) witness(name string) *witness {
	return x.witnesses[slices.IndexFunc(x.witnesses, func(w *witness) bool { return w.status.Name == name })]
}

// untouched makes sure that no application has written to the target since the clone began.
func (x *cloning) untouched(ctx context.Context, now change.GTIDSet) error {
	written, err := x.written(ctx, x.state.Position, now)
	if err != nil {
		return err
	}
	if written.count > 0 {
		return fault.New(fault.Precondition, "keep them away from "+x.To+", and run it again with --replace: what they wrote is gone then",
			"applications have written to %s since the clone began: %d transactions, the first is %s", x.To, written.count, written.first)
	}
	return nil
}

// tag marks the transactions of the copy as such, for those who read the target's binlog as that of the server it was.
func (x *cloning) tag() func(context.Context, checkpoint.Querier) error {
	var seq atomic.Uint64
	seq.Store(uint64(time.Now().UnixNano())) // another run's are smaller
	return func(ctx context.Context, q checkpoint.Querier) error {
		return checkpoint.Plant(ctx, q, x.state.Source, seq.Add(1), x.source.identity.Position, change.Clock{}, nil)
	}
}

// join writes where the target's links and its index begin, and then its identity.
func (x *cloning) join(ctx context.Context, past *past, position change.GTIDSet, applied map[change.ServerID]checkpoint.State) error {
	what := "have " + x.To + " join the mesh"
	db := x.target.server.DB()
	if err := inTransaction(ctx, db, func(tx *sql.Tx) error { return checkpoint.ForgetAgain(ctx, tx) }); err != nil {
		return server.Fault(err, what)
	}
	birth, err := server.NewDialect(x.target.info).Position(ctx, db)
	if err != nil {
		return err
	}
	if err := x.untouched(ctx, birth); err != nil {
		return err
	}
	if err := x.unchanged(ctx); err != nil {
		return err
	}
	var newest change.Time
	for _, w := range x.witnesses {
		t, err := knownTime(ctx, w.server.DB())
		if err != nil {
			return server.Fault(err, "ask "+w.status.Name+" for its time")
		}
		newest = max(newest, t)
	}
	manifest, err := past.manifest()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	err = inTransaction(ctx, db, func(tx *sql.Tx) error {
		return checkpoint.Plant(ctx, tx, x.state.Source, x.state.Seq, position, past.clock, manifest)
	})
	for id, state := range applied {
		if err == nil {
			err = checkpoint.Plant(ctx, db, id, x.state.Seq, state.Position, state.Clock, nil)
		}
	}
	if err == nil {
		err = inTransaction(ctx, db, func(tx *sql.Tx) error {
			return checkpoint.EndClone(ctx, tx, checkpoint.Identity{
				ID: change.NewServerID(), Mesh: x.config.Mesh, Position: birth, Clock: newest, Settings: x.config.FoldSettings(), ServerUUID: x.target.info.UUID,
			})
		})
	}
	if err != nil {
		return server.Fault(err, what)
	}
	return nil
}

func inTransaction(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}
