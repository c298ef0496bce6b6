// Package applier is the way of a source's transactions into a target: grouping, decision, the target transaction with its
// marker, and the barrier before its commit.
package applier

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/conflict"
	"replicator/fault"
	"replicator/image"
	"replicator/journal"
	"replicator/server"
)

// Options are what a link needs to know and to reach.
type Options struct {
	Source, Target string              // the names that people gave the servers
	Identity       checkpoint.Identity // of the source
	Self           change.ServerID     // the target
	SourceFlavor   change.Flavor
	Owner          checkpoint.Owner
	Server         *server.Server // the target
	Dialect        server.Dialect // its
	Flavor         change.Flavor  // its
	MaxPacket      int            // its max_allowed_packet
	Match          func(change.TableName) bool
	Index          *conflict.State
	Watermark      *Watermark
	Definitions    *Definitions // of the target
	Recent         *Recent      // of the target
	Keyer          *image.Keyer // with the target's weights
	Policy         func(change.TableName) string
	Registers      *Registers
	// Prefers reports whether by the table's policy the first of two concurrent changes is to stand against the second,
	// though that is newer: its origin states it again.
	Prefers func(table change.TableName, one, other change.Version) bool
	// Journal writes entries in the open transaction of q.
	Journal func(ctx context.Context, q checkpoint.Querier, entries []*journal.Entry) error
	// Decided returns the state that another server's journal gives a conflict, "" while it is open there or not known.
	Decided        func(ctx context.Context, id journal.ID) string
	Working        func(source change.ServerID) bool // whether the link from there to the target brings changes now
	Name           func(change.ServerID) string      // what people call a server of the mesh
	Subscribe      func(position change.GTIDSet, clock change.Clock) Stream
	Limits         Limits
	Workers        int           // how many groups are carried out at once, at most; 0 is 1
	Halt           bool          // stop at any DDL on a replicated table, not only at what would diverge
	Pass           change.GTID   // a DDL that a person has seen to: it is passed over once
	MaxClockSkew   time.Duration // how far a source's commit times may run ahead of this process's clock
	SessionWait    time.Duration // after which the target frees the locks of a silent session
	BarrierTimeout time.Duration
	ProgressEvery  time.Duration // longest time between markers while the source's position moves
	Fenced         bool          // the last run was stopped by another process's commit
	// Tolerated is the process whose late commit an earlier run has met already: another one means that it works.
	Tolerated      checkpoint.Owner
	Started        func()             // called once the link runs; may be nil
	Held           func(*fault.Error) // called when the link waits for a person or another link; it goes on by itself, and calls Started
	LogsCascades   bool               // the source's binlog has the rows that foreign keys change
	CascadesLogged bool               // the binlogs of all servers have them
	Stats          *Stats
	Routes         *Routes
	Log            *zap.Logger
}

// Stats are a link's figures, counted by its runs and read by others at any time.
type Stats struct {
	Transactions atomic.Int64
	Rows         atomic.Int64
	Lost         atomic.Int64
	Superseded   atomic.Int64
	Overwritten  atomic.Int64
	Seq          atomic.Uint64
	Groups       atomic.Int64
	Redone       atomic.Int64 // attempts that were rolled back
	// Behind is the commit time (µs since 1970) of the newest transaction that was reached while more are waiting; 0: the
	// target has all that the source has given.
	Behind   atomic.Int64
	position atomic.Pointer[string]
	running  atomic.Bool
}

// Position is the covered position of the source, "" before the first is known.
func (s *Stats) Position() string {
	if p := s.position.Load(); p != nil {
		return *p
	}
	return ""
}

// Running reports whether the link has reached its target and source and applies.
func (s *Stats) Running() bool { return s.running.Load() }

// Link applies one source to one target. A Link is run once; the supervisor makes another for the next attempt, which
// begins where the newest marker says.
type Link struct {
	opt       Options
	log       *zap.Logger
	session   *session
	collector *collector
	seq       uint64           // of the newest marker
	before    checkpoint.Owner // who committed the newest marker when this run began
	marked    time.Time        // of the last marker
	markedAt  change.Time      // the source's clock at the last marker
	stopped   change.GTID
	late      checkpoint.Owner
	bo        *backoff.ExponentialBackOff
	patience  patience
	unchecked bool // the group at hand may hold rows whose parents have not arrived yet
	copying   copying
}

// NewLink makes a link; Run starts it.
func NewLink(opt Options) *Link {
	bo := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(2*time.Millisecond), backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(0))
	return &Link{opt: opt, log: opt.Log, bo: bo, copying: newCopying()}
}

// Late is the process whose commit arrived after this run had begun and made Run return, zero when there was none.
func (l *Link) Late() checkpoint.Owner { return l.late }

// StoppedAt is the DDL transaction at which Run stopped, zero when it stopped for another reason.
func (l *Link) StoppedAt() change.GTID { return l.stopped }

const idleTick = time.Second

// Run applies until the context ends or something fails; it never returns nil. What was not committed is done again by
// the next run.
func (l *Link) Run(ctx context.Context) error {
	defer l.opt.Stats.running.Store(false)
	defer l.copying.end()
	stream, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer l.session.close()
	defer stream.Close()
	l.opt.Stats.running.Store(true)
	if l.opt.Started != nil {
		l.opt.Started()
	}
	ctx, cancel := context.WithCancel(ctx)
	intake := l.collector.start(ctx)
	s := newScheduler(l)
	err = l.run(ctx, intake, s)
	cancel()
	intake.wait()
	s.close()
	return err
}

// run lets groups in while there is room for them.
func (l *Link) run(ctx context.Context, intake *intake, s *scheduler) error {
	tick := time.NewTicker(idleTick)
	defer tick.Stop()
	var broken error // the source gives no more
	for {
		if err := s.advance(ctx); err != nil {
			return err
		}
		if s.idle() {
			if broken != nil {
				return broken
			}
			if !l.collector.busy.Load() {
				l.opt.Stats.Behind.Store(0)
			}
		}
		if broken == nil && s.wants() {
			intake.ask()
		}
		if g := l.copying.ready(l.opt); g != nil {
			s.add(g)
			continue
		}
		var stalled <-chan time.Time
		if at := s.stalled(); !at.IsZero() {
			stalled = time.After(time.Until(at))
		}
		select {
		case r := <-s.reports:
			s.note(r)
		case got := <-intake.groups:
			intake.asked = false
			if got.err != nil {
				broken = fmt.Errorf("read %s: %w", l.opt.Source, got.err)
				continue
			}
			s.add(got.group)
			l.copying.read = got.group
		case r := <-l.copying.accept():
			l.copying.request = r
		case <-l.copying.poll():
		case <-l.collector.quiet:
		case <-stalled:
			s.clear()
		case <-tick.C:
			if err := s.keepAlive(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// open takes the target over: the newest marker is where this run begins.
func (l *Link) open(ctx context.Context) (Stream, error) {
	s, err := openSession(ctx, l.opt)
	if err != nil {
		return nil, err
	}
	l.session = s
	state, err := l.begin(ctx)
	if err == nil {
		err = l.mayTakeOver(ctx, state)
	}
	if err != nil {
		s.close()
		return nil, l.targetFault(err, "read the checkpoint")
	}
	l.seq, l.before = state.Seq, state.Owner
	l.marked, l.markedAt = time.Now(), state.Clock.Time
	l.copying.read = &group{end: state.Position, clock: state.Clock}
	l.covered(l.copying.read)
	l.opt.Stats.Behind.Store(0)
	l.patience = newPatience(l.opt)
	stream := l.opt.Subscribe(state.Position.Clone(), state.Clock)
	l.collector = &collector{
		opt: l.opt, stream: stream, position: state.Position.Clone(), clock: state.Clock, patience: newPatience(l.opt),
		quiet: make(chan struct{}, 1),
	}
	return stream, nil
}

// begin reads the newest marker, or plants the first one: on the target that this process knows, and on no other.
func (l *Link) begin(ctx context.Context) (checkpoint.State, error) {
	tx, err := l.session.conn.BeginTx(ctx, nil)
	if err != nil {
		return checkpoint.State{}, err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	if err := checkpoint.HoldIdentity(ctx, tx, l.opt.Self); err != nil {
		return checkpoint.State{}, reborn(l.opt.Target, err)
	}
	state, err := checkpoint.Begin(ctx, tx, l.opt.Owner, l.opt.Identity)
	if err != nil {
		return checkpoint.State{}, err
	}
	return state, tx.Commit()
}

// reborn gives ErrReborn its class and remedy.
func reborn(target string, err error) error {
	if !errors.Is(err, checkpoint.ErrReborn) {
		return err
	}
	return fault.Wrap(err, fault.Unavailable, "wait: it is looked at again", "apply to %s", target)
}

// mayTakeOver keeps a process that has been fenced off from taking the target back while the other one works.
func (l *Link) mayTakeOver(ctx context.Context, state checkpoint.State) error {
	if !l.opt.Fenced || state.Owner == l.opt.Owner {
		return nil
	}
	now, err := checkpoint.Now(ctx, l.session.conn)
	if err != nil {
		return err
	}
	if now.Sub(state.Applied) < 3*l.opt.ProgressEvery {
		return checkpoint.Fence(l.opt.Target)
	}
	return nil
}

// covered tells the index and the figures that the target now has the source up to the end of a group.
func (l *Link) covered(g *group) {
	position := g.end.String()
	l.opt.Stats.position.Store(&position) // first: it covers whatever the index says
	l.opt.Index.Applied(l.opt.Identity.ID, g.clock)
	l.opt.Stats.Seq.Store(l.seq)
}

// advance brings the target up to the end of a group: by its rows, or by a marker of its own when one is due. Nothing else
// is under way.
func (l *Link) advance(ctx context.Context, g *group) error {
	if g.copies != nil {
		return l.copy(ctx, g)
	}
	if g.definition != nil {
		if err := l.definition(ctx, g.definition); err != nil {
			return err
		}
	}
	if len(g.txs) > 0 {
		l.opt.Stats.Behind.Store(g.txs[0].Committed.UnixMicro())
		if err := l.applyGroup(ctx, g); err != nil {
			return err
		}
		l.covered(g)
		return nil
	}
	if g.moved {
		l.covered(g)
	}
	// A source that is only kept up, or that only receives, causes no marker by itself: its position is saved now and then.
	due := time.Since(l.marked) >= l.opt.ProgressEvery && g.clock.Time > l.markedAt
	passed := g.definition != nil && g.definition.GTID == l.opt.Pass // nobody is to be asked about it again
	if !due && !passed {
		return nil
	}
	return l.applyGroup(ctx, g)
}

// fenced finds out who has committed the number that this link was about to take.
func (l *Link) fenced(ctx context.Context) error {
	state, _, err := checkpoint.Latest(ctx, l.session.conn, l.opt.Identity.Position.Flavor(), l.opt.Identity.ID)
	if err != nil {
		return l.targetFault(err, "read the newest marker")
	}
	if state.Owner == l.opt.Owner || state.Owner == l.before && state.Owner != l.opt.Tolerated {
		// One's own commit whose answer was lost, or the last one of the process before, which has at most one under way:
		// begin again behind it.
		if state.Owner != l.opt.Owner {
			l.late = state.Owner
		}
		return fault.New(fault.Unavailable, "wait: it is tried again", "a commit on %s arrived late", l.opt.Target)
	}
	return checkpoint.Fence(l.opt.Target)
}

// targetFault gives an error of the target's session its class and remedy.
func (l *Link) targetFault(err error, doing string) error {
	if _, ok := fault.As(err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	return server.Fault(err, fmt.Sprintf("%s on %s", doing, l.opt.Target))
}

func (l *Link) rowFault(g *group, err error) error {
	doing := "save the progress of " + l.opt.Source
	if n := len(g.txs); n > 0 {
		doing = fmt.Sprintf("apply %s of %s", g.txs[0].GTID, l.opt.Source)
		if n > 1 {
			doing = fmt.Sprintf("apply %s to %s of %s", g.txs[0].GTID, g.txs[n-1].GTID, l.opt.Source)
		}
	}
	if errors.Is(err, errBarrier) || errors.Is(err, errLockFirst) || errors.Is(err, errNothingToSettle) {
		return fault.Wrap(err, fault.Busy, "wait: it is tried again; if it stays, look at the load of the server", "%s to %s", doing, l.opt.Target)
	}
	return l.targetFault(err, doing)
}
