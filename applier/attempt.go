package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/conflict"
	"replicator/fault"
	"replicator/server"
)

// maxAttempts is how often a group is tried in one run before the fault is shown and the link starts over.
const maxAttempts = 20

// attemptsWhole is how often a group of several transactions loses its locks to others before it is divided: many rows are
// in somebody's way for long.
const attemptsWhole = 3

// maxSettlements is how many conflicts of one group are settled before it is taken for a fault; a transaction that is
// applied by itself meets one for each of its rows at most, and again where applications go on meanwhile.
const maxSettlements = 10_000

// applyGroup commits the group, in as many attempts as it takes.
func (l *Link) applyGroup(ctx context.Context, g *group) error {
	l.bo.Reset()
	defer func() { l.unchecked = false }()
	lockFirst, explained, settlements := false, false, 0
	for attempt := 1; ; attempt++ {
		r, err := l.attempt(ctx, g, course{session: l.session, last: l.seq, hold: l.seq, lockFirst: lockFirst, unchecked: l.unchecked})
		if err == nil {
			l.committed(g, r)
			return nil
		}
		if err := l.undo(ctx, err); err != nil {
			return err
		}
		if !lockFirst && !explained {
			waited, err := l.explain(ctx, g)
			if err != nil {
				return err
			}
			if explained = true; waited {
				continue
			}
		}
		if lockFirst && inTheWay(err) {
			if len(g.txs) > 1 {
				return l.divide(ctx, g)
			}
		}
		if lockFirst && (server.IsDuplicateKey(err) || server.IsForeignKey(err)) {
			if err = l.probe(ctx, g); err != nil {
				if err := l.undo(ctx, err); err != nil {
					return err
				}
			}
		}
		if c := (*clash)(nil); errors.As(err, &c) {
			if err = l.settle(ctx, c); err != nil {
				if err := l.undo(ctx, err); err != nil {
					return err
				}
			}
			if settlements++; err == nil && settlements < maxSettlements {
				attempt = 0
				continue
			}
		}
		if h := (*halted)(nil); errors.As(err, &h) {
			if err := l.halt(ctx, h); err != nil {
				return err
			}
			attempt = 0
			continue
		}
		switch {
		case errors.Is(err, checkpoint.ErrFenced):
			return l.fenced(ctx)
		case !lockFirst && (errors.Is(err, errLockFirst) || missingRow(err) || server.IsDuplicateKey(err) || server.IsForeignKey(err)):
			lockFirst = true
			continue
		case errors.Is(err, errUnchecked) && !l.unchecked:
			l.unchecked, lockFirst = true, true
			continue
		case errors.Is(err, errAwaits):
			if err := l.arrive(ctx, g.txs[0]); err != nil {
				return err
			}
			attempt-- // it is bounded by itself
			continue
		case (attempt >= attemptsWhole || g.part) && len(g.txs) > 1 && server.Classify(err) == fault.Busy:
			return l.divide(ctx, g)
		case attempt < maxAttempts && again(err):
			l.log.Debug("group is tried again", zap.Int("attempt", attempt), zap.Error(err))
		default:
			return l.rowFault(g, err)
		}
		select {
		case <-time.After(l.bo.NextBackOff()):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inTheWay reports whether other rows stand against one of a group's changes.
func inTheWay(err error) bool {
	c, h := (*clash)(nil), (*halted)(nil)
	return server.IsDuplicateKey(err) || server.IsForeignKey(err) || errors.Is(err, errUnchecked) || errors.Is(err, errAwaits) || errors.As(err, &c) || errors.As(err, &h)
}

// again reports whether a group may do better at another attempt.
func again(err error) bool {
	return errors.Is(err, errLockFirst) || errors.Is(err, errBarrier) || errors.Is(err, errNothingToSettle) ||
		server.Classify(err) == fault.Busy
}

// undo rolls back after err.
func (l *Link) undo(ctx context.Context, err error) error {
	l.opt.Stats.Redone.Add(1)
	if rollback := l.session.rollback(ctx); rollback != nil {
		return l.targetFault(errors.Join(err, rollback), "roll back")
	}
	return nil
}

// divide commits a group in two halves, and these again, until the transaction that meets a row in its way stands alone.
func (l *Link) divide(ctx context.Context, g *group) error {
	half := len(g.txs) / 2
	first := &group{start: g.start, clock: g.txs[half-1].Clock, part: true}
	second := &group{start: g.start.Clone(), end: g.end, clock: g.clock, part: true}
	for i, tx := range g.txs {
		into := second
		if i < half {
			into = first
			for _, gtid := range g.read[i] {
				second.start.Add(gtid)
			}
		}
		into.since = g.read[i]
		into.add(tx)
	}
	first.end = second.start
	if err := l.applyGroup(ctx, first); err != nil {
		return err
	}
	l.covered(first) // others may wait for it
	return l.applyGroup(ctx, second)
}

// committed takes notice of a commit.
func (l *Link) committed(g *group, r result) {
	l.seq = r.seq
	for _, tx := range g.txs {
		if len(tx.Log) > 0 || tx.Settles != "" {
			l.opt.Recent.Note(tx)
		}
	}
	l.marked, l.markedAt = time.Now(), g.clock.Time
	s := l.opt.Stats
	s.Groups.Add(1)
	s.Transactions.Add(int64(len(g.txs)))
	s.Rows.Add(r.Rows)
	s.Lost.Add(r.Lost)
	s.Superseded.Add(r.Superseded)
	s.Overwritten.Add(r.Overwritten)
	s.Seq.Store(l.seq)
}

// course says how an attempt goes.
type course struct {
	session   *session
	last      uint64 // the number before that of the group's marker
	hold      uint64 // a marker that is committed: as long as it is held, nobody else commits one but on top of it
	lockFirst bool   // every row is locked and looked at before anything is decided
	unchecked bool   // rows may stand without their parents
	// turn waits, when everything is done but the COMMIT, until the group before has been committed; written is called when
	// the group has all its locks. Both may be nil.
	turn    func() error
	written func()
}

// result is what a commit was.
type result struct {
	Outcome
	seq uint64 // of its marker
}

// attempt carries the group out in one target transaction: marker first, then the rows, then the barrier, then COMMIT.
// When the rows are locked first there is a second barrier behind them if some of them were absent.
//
// Safe under invariants 1, 2, 3, 4 and 5.
func (l *Link) attempt(ctx context.Context, g *group, c course) (result, error) {
	s := c.session
	epoch := l.opt.Definitions.Epoch()
	d, err := enlist(g.txs, l.opt.Registers)
	if err != nil {
		return result{}, err
	}
	if _, err := d.judge(l.opt.Index); err != nil {
		return result{}, err
	}
	if !c.lockFirst {
		if careful, err := l.careful(ctx, g, d); err != nil || careful {
			return result{}, errors.Join(err, errLockFirst)
		}
	}
	if len(g.txs) > 0 {
		if err := s.prepare(ctx, g.txs[0].Format); err != nil {
			return result{}, err
		}
	}
	if err := s.begin(ctx, c.lockFirst); err != nil {
		return result{}, err
	}
	x := newExecution(d, l.opt.Registers, nil, nil)
	if c.lockFirst { // it reads only: the marker is still the first thing in the binlog
		if x, err = l.examine(ctx, s, g, d, epoch); err != nil {
			return result{}, err
		}
		if err := d.leaveOut(); err != nil {
			return result{}, err
		}
	}
	seq, err := s.marker.Insert(ctx, c.hold, c.last, g.end, g.clock, d.manifest, server.IsDuplicateKey)
	if err != nil {
		return result{}, err
	}
	if err := s.write(ctx, g.txs, x, c.unchecked); err != nil {
		return result{}, err
	}
	if c.written != nil {
		c.written()
	}
	// Only now are the rows locked, those that were absent in any case: several transactions can hold the lock of one gap,
	// and who deletes a row that is not there leaves no other lock behind.
	if !c.lockFirst || x.present.appear() {
		changed, err := l.barrier(ctx, s, d, epoch)
		if err != nil {
			return result{}, err
		}
		if changed {
			return result{}, errLockFirst
		}
	}
	if c.lockFirst {
		if err := l.journal(ctx, x); err != nil {
			return result{}, err
		}
	}
	if c.turn != nil {
		if err := c.turn(); err != nil {
			return result{}, err
		}
	}
	if err := s.commit(ctx); err != nil {
		return result{}, err
	}
	return result{x.outcome, seq}, nil
}

// careful reports whether the group must be decided with its rows locked: somebody loses something, or rows may have
// children that the server would take along.
func (l *Link) careful(ctx context.Context, g *group, d *decisions) (bool, error) {
	if slices.ContainsFunc(d.verdicts, func(v conflict.Verdict) bool { return v != conflict.Apply }) {
		return true, nil
	}
	found := false
	for _, tx := range g.txs {
		err := tx.Body.Each(func(ev *change.RowsEvent) error {
			if found || ev.Kind != change.Delete {
				return nil
			}
			if found = ev.Table.Settles != ""; found {
				return nil
			}
			var err error
			found, err = l.session.isParent(ctx, ev.Table.Name)
			return err
		})
		if err != nil {
			return false, err
		}
	}
	return found, nil
}

// examine locks every row of the group, waits at the barrier and decides.
func (l *Link) examine(ctx context.Context, s *session, g *group, d *decisions, epoch uint64) (*execution, error) {
	present, err := s.lock(ctx, g.txs)
	if err != nil {
		return nil, err
	}
	if _, err := l.barrier(ctx, s, d, epoch); err != nil {
		return nil, err
	}
	x := newExecution(d, l.opt.Registers, present, newLosers(s))
	x.reach, x.await = func(ctx context.Context) error { return l.reach(ctx, s) }, l.awaitOthers
	if len(g.txs) > 0 && !g.txs[0].Spooled {
		err = x.losers.prepare(ctx, g.txs, d, present)
	}
	return x, err
}

// journal keeps what the group has taken from somebody, in the same transaction.
func (l *Link) journal(ctx context.Context, x *execution) error {
	entries := x.losers.list()
	if len(entries) == 0 {
		return nil
	}
	if err := l.session.speak(ctx, namesPortable); err != nil {
		return err
	}
	if err := l.session.release(ctx, entries); err != nil {
		return err
	}
	return l.opt.Journal(ctx, l.session.conn, entries)
}

// probe carries a group of one transaction out change by change, to find the one that another row is in the way of. It
// returns a *clash for it, and never commits.
func (l *Link) probe(ctx context.Context, g *group) error {
	s := l.session
	epoch := l.opt.Definitions.Epoch()
	d, err := enlist(g.txs, l.opt.Registers)
	if err != nil {
		return err
	}
	if err := s.begin(ctx, true); err != nil {
		return err
	}
	if err := s.marker.Hold(ctx, l.seq); err != nil {
		return err
	}
	x, err := l.examine(ctx, s, g, d, epoch)
	if err == nil {
		err = s.probe(ctx, g.txs[0], x, l.unchecked)
	}
	if err == nil {
		err = errNothingToSettle
	}
	return err
}

// errBarrier says that the target's tailer did not come by in time; the locks are freed meanwhile.
var errBarrier = errors.New("the tailer of the target is behind")

// barrier waits until the owner's tailer has read everything that could have changed the rows now locked, and decides
// again. A group without rows has nothing to wait for.
func (l *Link) barrier(ctx context.Context, s *session, d *decisions, epoch uint64) (changed bool, err error) {
	if len(d.verdicts) == 0 {
		return false, nil
	}
	if err := l.reach(ctx, s); err != nil {
		return false, err
	}
	if l.opt.Definitions.Epoch() != epoch {
		return false, fmt.Errorf("a table of %s was just changed: %w", l.opt.Target, errBarrier)
	}
	return d.judge(l.opt.Index)
}

// reach waits until the change index knows everything that is in the target's binlog now.
func (l *Link) reach(ctx context.Context, s *session) error {
	end, err := l.opt.Dialect.BinlogEnd(ctx, s.conn)
	if err != nil {
		return fmt.Errorf("read the end of the binlog: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, l.opt.BarrierTimeout)
	defer cancel()
	if err := l.opt.Watermark.Wait(wait, end); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("wait at the barrier for %s, reached %s: %w", end, l.opt.Watermark.Position(), errBarrier)
	}
	return nil
}
