package applier

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/checkpoint"
)

// scheduler carries groups out on several sessions at once. They commit in the order of the source: a group has all its
// locks and has passed its barrier when it waits for the one before. What is not ordinary is done while nothing else is
// under way, by Link.applyGroup.
//
// A later group may hold a lock that an earlier one needs, where claims did not tell, or by way of an application's
// transaction. The server cannot see that as a deadlock, because the later one waits here. So the later ones give way when
// the first takes long, and whenever one fails; they are carried out again behind it.
type scheduler struct {
	link    *Link
	claims  *claims
	free    []*session
	reports chan report
	tasks   []*task  // under way, in the order of the source
	queue   []*group // that have been read and have not begun, in the order of the source
	number  uint64   // of the newest task
	failing bool     // nothing begins until all tasks have ended
	width   width
	pace    time.Duration // what a row takes, about
}

// task is a group under way.
type task struct {
	*group
	number  uint64
	session *session
	begun   time.Time
	phase   phase
	since   time.Time // in this phase
	turn    chan bool // says whether to commit
	yields  bool      // it will be told not to
	result  result
	err     error
	passed  *group // what was read behind the group and has no rows; nil: nothing
}

type phase uint8

const (
	writing phase = iota
	written       // all its locks are held
	waiting       // the barrier is passed
	committing
	ended
)

// report says that a task has come to another phase.
type report struct {
	task   *task
	phase  phase
	result result
	err    error
}

// errYield rolls a group back that is in the way of another one, or behind one that failed.
var errYield = errors.New("the group gives way to one before it")

const (
	// patienceLeast and patienceMost bound how long the first task may write while others wait for it.
	patienceLeast = 100 * time.Millisecond
	patienceMost  = 3 * time.Second
	// patienceFactor is how much longer than usual that is.
	patienceFactor = 4
)

func newScheduler(l *Link) *scheduler {
	n := max(1, l.opt.Workers)
	return &scheduler{
		link: l, claims: newClaims(newShapes(l.opt.Definitions, l.opt.Server.DB())), free: []*session{l.session}, width: newWidth(n),
		reports: make(chan report, n*int(ended)), // all that tasks can have to say
	}
}

// close ends the tasks, whose context must have ended, and all sessions but the link's own.
func (s *scheduler) close() {
	under := func(t *task) bool { return t.phase != ended }
	for slices.ContainsFunc(s.tasks, under) {
		if r := <-s.reports; r.phase == ended {
			r.task.phase = ended
			s.free = append(s.free, r.task.session)
		}
	}
	for _, x := range s.free {
		if x != s.link.session {
			x.close()
		}
	}
	s.free = nil
}

// idle reports whether nothing is under way and nothing waits.
func (s *scheduler) idle() bool { return len(s.tasks)+len(s.queue) == 0 }

// wants reports whether another group could begin.
func (s *scheduler) wants() bool {
	return !s.failing && len(s.queue) == 0 && len(s.tasks) < s.width.now
}

// add takes a group that was read. It begins in its turn.
func (s *scheduler) add(g *group) {
	if len(g.txs) == 0 && g.definition == nil && g.copies == nil && len(s.queue) == 0 && len(s.tasks) > 0 {
		if g.moved {
			s.tasks[len(s.tasks)-1].passed = g
		}
		return
	}
	s.queue = append(s.queue, g)
}

// advance begins what can begin.
func (s *scheduler) advance(ctx context.Context) error {
	if s.failing {
		if len(s.tasks) > 0 {
			return nil
		}
		s.failing = false
		if len(s.queue) > 0 { // whatever it was that failed, it has the target to itself now
			if err := s.alone(ctx); err != nil {
				return err
			}
		}
	}
	for len(s.queue) > 0 && len(s.tasks) < s.width.now {
		g := s.queue[0]
		ordinary, err := s.ordinary(ctx, g)
		if err != nil {
			return s.link.rowFault(g, err)
		}
		if !ordinary {
			if len(s.tasks) > 0 {
				return nil
			}
			if err := s.alone(ctx); err != nil {
				return err
			}
			continue
		}
		begun, err := s.begin(ctx, g)
		if err != nil {
			return s.link.rowFault(g, err)
		}
		if !begun {
			return nil
		}
		s.queue = s.queue[1:]
	}
	return nil
}

// alone carries the next group out by itself.
func (s *scheduler) alone(ctx context.Context) error {
	g := s.queue[0]
	s.queue = s.queue[1:]
	err := s.link.advance(ctx, g)
	if err == nil && len(g.txs) > 0 {
		s.width.committed()
	}
	return err
}

// ordinary reports whether a group can be carried out beside others.
func (s *scheduler) ordinary(ctx context.Context, g *group) (bool, error) {
	if s.width.now == 1 || len(g.txs) == 0 {
		return false, nil
	}
	if g.special == unknown {
		g.special = no
		special, err := s.special(ctx, g)
		if err != nil {
			return false, err
		}
		if special {
			g.special = yes
		}
	}
	return g.special == no, nil
}

// special reports whether a group needs the way of Link.applyGroup in any case, or a way of its own.
func (s *scheduler) special(ctx context.Context, g *group) (special bool, err error) {
	const perTransaction, perKey = 200, 16 // bytes of a manifest, which must fit into one marker
	if g.txs[0].Spooled || 2*perKey*g.rows+int64(len(g.txs))*perTransaction > checkpoint.PieceBytes {
		return true, nil
	}
	for _, tx := range g.txs {
		if tx.Settles != "" || len(tx.Originals) > 0 {
			return true, nil
		}
		err := tx.Body.Each(func(ev *change.RowsEvent) error {
			if special || ev.Table.Settles != "" || s.link.opt.Registers.of(ev.Table) != nil {
				special = true
				return nil
			}
			if ev.Kind == change.Delete {
				special, err = s.link.session.isParent(ctx, ev.Table.Name)
			}
			return err
		})
		if special || err != nil {
			return special, err
		}
	}
	return false, nil
}

// begin starts a task for a group, unless the group must wait for one that is under way.
func (s *scheduler) begin(ctx context.Context, g *group) (bool, error) {
	if g.claims == nil {
		var err error
		if g.claims, err = s.claims.of(ctx, g); err != nil {
			return false, err
		}
	}
	if len(s.tasks) == 0 {
		s.claims.release()
	} else {
		oldest := s.tasks[0].number
		if g.behind < oldest {
			g.behind = s.claims.behind(g.claims, oldest)
		}
		if g.behind >= oldest {
			return false, nil
		}
	}
	x, err := s.session(ctx)
	if x == nil {
		return false, err
	}
	if len(s.tasks) == 0 {
		s.link.opt.Stats.Behind.Store(g.txs[0].Committed.UnixMicro())
	}
	s.number++
	oldest := s.number
	if len(s.tasks) > 0 {
		oldest = s.tasks[0].number
	}
	s.claims.hold(g.claims, s.number, oldest)
	t := &task{group: g, number: s.number, session: x, begun: time.Now(), turn: make(chan bool, 1)}
	t.since = t.begun
	last := s.link.seq + uint64(len(s.tasks))
	hold := s.link.seq
	s.tasks = append(s.tasks, t)
	g.claims = nil
	go func() {
		r, err := s.carry(ctx, t, last, hold)
		s.reports <- report{task: t, phase: ended, result: r, err: err}
	}()
	return true, nil
}

// session returns a session that no task uses; nil when there is none: the target gives no more.
func (s *scheduler) session(ctx context.Context) (*session, error) {
	for len(s.free) > 0 {
		x := s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		err := x.keepAlive(ctx)
		if err == nil {
			return x, nil
		}
		if x == s.link.session {
			s.free = append(s.free, x)
			return nil, err
		}
		x.broken = true
		x.close()
	}
	x, err := openSession(ctx, s.link.opt)
	switch {
	case err == nil:
		return x, nil
	case len(s.tasks) == 0:
		return nil, err
	}
	s.link.log.Warn("the target gives no further session: fewer groups are applied at once", zap.Int("sessions", len(s.tasks)), zap.Error(err))
	s.width.limit(len(s.tasks))
	return nil, nil
}

// carry is a task's own goroutine.
func (s *scheduler) carry(ctx context.Context, t *task, last, hold uint64) (result, error) {
	say := func(at phase) { s.reports <- report{task: t, phase: at} }
	r, err := s.link.attempt(ctx, t.group, course{
		session: t.session, last: last, hold: hold,
		written: func() { say(written) },
		turn: func() error {
			say(waiting)
			select {
			case commit := <-t.turn:
				if !commit {
					return errYield
				}
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	})
	if err == nil && r.seq != last+1 {
		err = errors.New("bug: a group that is carried out beside others took several markers")
	}
	if err != nil {
		if rollback := t.session.rollback(ctx); rollback != nil {
			err = errors.Join(err, rollback)
		}
	}
	return r, err
}

// note takes a report. Errors of tasks are not errors of the link yet: the group is carried out by itself first.
func (s *scheduler) note(r report) {
	t := r.task
	if t.phase == writing && r.phase != ended {
		s.measure(t)
	}
	t.phase, t.since = r.phase, time.Now()
	if t.phase == ended {
		t.result, t.err = r.result, r.err
		if t.session.broken && t.session != s.link.session {
			t.session.close()
		} else {
			s.free = append(s.free, t.session)
		}
		if t.err != nil {
			s.failed(t)
		}
	}
	s.order()
}

// measure learns how long groups take.
func (s *scheduler) measure(t *task) {
	const weight = 8
	s.pace += (time.Since(t.begun)/time.Duration(max(1, t.rows)) - s.pace) / weight
}

// failed makes everything behind a task that failed give way.
func (s *scheduler) failed(t *task) {
	s.link.opt.Stats.Redone.Add(1)
	if !t.yields {
		s.link.log.Debug("a group failed beside others: it is carried out by itself", zap.Error(t.err))
		s.width.failed()
	}
	s.yield(slices.Index(s.tasks, t) + 1)
}

// yield makes the tasks from number first in the order on give way.
func (s *scheduler) yield(first int) {
	s.failing = true
	for _, t := range s.tasks[first:] {
		t.yields = true
	}
}

// order gives tasks their turn, and takes those off that have ended, in the order of the source.
func (s *scheduler) order() {
	for len(s.tasks) > 0 && s.tasks[0].phase == ended && s.tasks[0].err == nil {
		t := s.tasks[0]
		s.tasks = s.tasks[1:]
		s.link.committed(t.group, t.result)
		s.link.covered(t.group)
		if t.passed != nil {
			s.link.covered(t.passed)
		}
		s.width.committed()
		if len(s.tasks) > 0 {
			s.link.opt.Stats.Behind.Store(s.tasks[0].txs[0].Committed.UnixMicro())
		}
	}
	for i, t := range s.tasks {
		if t.phase == waiting && (i == 0 || t.yields) {
			t.phase = committing
			t.turn <- !t.yields
		}
	}
	if s.failing && !slices.ContainsFunc(s.tasks, func(t *task) bool { return t.phase != ended }) {
		var again []*group
		for _, t := range s.tasks {
			again = append(again, t.group)
			if t.passed != nil {
				again = append(again, t.passed)
			}
		}
		s.tasks, s.queue = nil, append(again, s.queue...)
	}
}

// stalled is when the tasks behind the first are to give way to it, zero while nothing points to that.
func (s *scheduler) stalled() time.Time {
	if s.failing || len(s.tasks) < 2 || s.tasks[0].phase != writing {
		return time.Time{}
	}
	first := s.tasks[0]
	for _, t := range s.tasks[1:] {
		if t.phase == waiting {
			patience := patienceLeast + patienceFactor*s.pace*time.Duration(first.rows)
			return later(first.begun, t.since).Add(min(patience, patienceMost))
		}
	}
	return time.Time{}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// clear makes everything behind the first task give way to it.
func (s *scheduler) clear() {
	s.link.log.Debug("groups give way to the one before them, which takes long", zap.Int("groups", len(s.tasks)-1))
	s.width.failed()
	s.yield(1)
	s.order()
}

// keepAlive keeps the server from ending sessions that nobody uses.
func (s *scheduler) keepAlive(ctx context.Context) error {
	for i := 0; i < len(s.free); i++ {
		x := s.free[i]
		err := x.keepAlive(ctx)
		switch {
		case err == nil:
			continue
		case x == s.link.session:
			return err
		}
		x.broken = true
		x.close()
		s.free = slices.Delete(s.free, i, i+1)
		i--
	}
	return nil
}

// width is how many groups are carried out at once. It shrinks when one fails for another's sake, and grows again.
type width struct {
	now, most int
	calm      int // commits since it changed
	raise     int // after so many it grows
}

const (
	raiseFirst = 64
	raiseMost  = 4096
)

func newWidth(most int) width { return width{now: most, most: most, raise: raiseFirst} }

func (w *width) limit(most int) { w.most, w.now = most, min(w.now, most) }

func (w *width) failed() {
	w.now, w.calm, w.raise = max(1, w.now/2), 0, min(2*w.raise, raiseMost)
}

func (w *width) committed() {
	if w.calm++; w.calm < w.raise || w.now >= w.most {
		return
	}
	w.now, w.calm, w.raise = w.now+1, 0, max(raiseFirst, w.raise/2)
}
