package canal

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/wire"
)

// Subscription is one link's view of a server's binlog: every transaction behind its start, once, in order, from the
// hub's ring or through a connection of its own. It keeps its own position, whatever the shared reader does. Next,
// Waiting and Close are called by one goroutine.
type Subscription struct {
	hub       *Hub
	replicaID uint32
	position  Start // behind the transaction that Next returned last
	wake      chan struct{}
	// absent is since when the shared reader is missed. It outlasts a call of Next: callers with little time each would
	// otherwise wait for ever.
	absent time.Time

	// Guarded by hub.mu.
	sleeping   bool
	attached   bool
	generation uint64
	next       uint64 // number in the ring
	private    *privateReader

	readers sync.WaitGroup // private readers, those that are ending included
}

// Subscribe starts behind start, which the caller keeps. The hub need not run.
func (h *Hub) Subscribe(start Start) *Subscription {
	s := &Subscription{hub: h, replicaID: randomReplicaID(), position: start.clone(), wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[s] = struct{}{}
	return s
}

// Next waits for the next transaction. After an error, which is a *fault.Error or ctx's, it can be called again: it goes
// on behind the last transaction it returned. How long to wait before is the caller's choice.
func (s *Subscription) Next(ctx context.Context) (*change.Transaction, error) {
	for {
		tx, err := s.step(ctx)
		if err != nil {
			return nil, err
		}
		if tx != nil {
			s.position.Position.Add(tx.GTID)
			s.position.Clock = tx.Clock
			return tx, nil
		}
	}
}

// step returns a transaction, or nil when the state has changed and is to be looked at again.
func (s *Subscription) step(ctx context.Context) (*change.Transaction, error) {
	tx, state := s.fromRing()
	if state != ringAbsent {
		s.absent = time.Time{}
	}
	switch state {
	case ringGave:
		return tx, nil
	case ringEmpty:
		return nil, s.sleep(ctx)
	case ringAbsent:
		return nil, s.await(ctx)
	case ringBehind:
	}
	return s.fromPrivate(ctx)
}

// ringState says what the ring can do for a subscription.
type ringState uint8

const (
	ringGave   ringState = iota // it gave a transaction
	ringEmpty                   // the subscription has read all of it
	ringAbsent                  // the shared reader is not connected
	ringBehind                  // a private reader is needed, or there is one
)

// fromRing takes the next transaction from the ring, and attaches to it when that is possible.
func (s *Subscription) fromRing() (*change.Transaction, ringState) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &h.ring
	if s.attached && (s.generation != r.generation || s.next < r.first) {
		s.attached = false
	}
	if !s.attached && h.live {
		if next, ok := r.find(s.position.Position); ok {
			s.attached, s.next, s.generation = true, next, r.generation
			s.dropPrivate()
		}
	}
	if s.attached {
		for s.next < r.end() {
			tx := r.at(s.next)
			s.next++
			// After a restart from an earlier start the shared reader yields again what this subscription has had.
			if !s.position.Position.Contains(tx.GTID) {
				return tx, ringGave
			}
		}
		if h.live {
			s.sleeping = true
			return nil, ringEmpty
		}
		s.attached = false
	}
	if s.private == nil && !h.live {
		s.sleeping = true
		return nil, ringAbsent
	}
	return nil, ringBehind
}

// sleep waits until the hub has news.
func (s *Subscription) sleep(ctx context.Context) error {
	select {
	case <-s.wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await gives the shared reader some time to come back, and then opens a private reader. The time counts over several
// calls of Next, whose contexts may end sooner.
func (s *Subscription) await(ctx context.Context) error {
	if s.absent.IsZero() {
		s.absent = time.Now()
	}
	s.hub.miss(s.position.clone()) // again after every attempt that failed
	timer := time.NewTimer(s.hub.opts.Grace - time.Since(s.absent))
	defer timer.Stop()
	select {
	case <-s.wake:
		return nil
	case <-timer.C:
		s.openPrivate(ctx)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Subscription) fromPrivate(ctx context.Context) (*change.Transaction, error) {
	if s.private == nil {
		s.openPrivate(ctx)
	}
	tx, err := s.private.next(ctx, s.wake)
	if err != nil && ctx.Err() == nil {
		s.hub.mu.Lock()
		defer s.hub.mu.Unlock()
		s.dropPrivate()
	}
	return tx, err
}

func (s *Subscription) openPrivate(ctx context.Context) {
	s.hub.opts.Logger.Info("a link reads through a connection of its own", zap.Stringer("position", s.position.Position))
	p := s.newPrivateReader(ctx)
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.private = p
}

func (s *Subscription) dropPrivate() {
	if s.private != nil {
		s.private.cancel()
		s.private = nil
	}
}

// Waiting reports whether Next would return a transaction without waiting for the source.
func (s *Subscription) Waiting() bool {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.private != nil {
		return s.private.waiting()
	}
	r := &h.ring
	if !s.attached || s.generation != r.generation || s.next < r.first {
		return false
	}
	for n := s.next; n < r.end(); n++ {
		if !s.position.Position.Contains(r.at(n).GTID) {
			return true
		}
	}
	return false
}

// Close ends the subscription and waits for its private readers to end.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	delete(s.hub.subs, s)
	s.dropPrivate()
	s.hub.mu.Unlock()
	s.readers.Wait()
}

// privateReader reads the binlog for one subscription.
type privateReader struct {
	txs    *queue[*change.Transaction]
	cancel context.CancelFunc
	batch  []*change.Transaction // taken, not given yet
	spare  []*change.Transaction
}

// privateShare is how much memory the transactions of a private reader take, of a ring's.
const privateShare = 4

func (s *Subscription) newPrivateReader(ctx context.Context) *privateReader {
	h, start := s.hub, s.position.clone()
	// It lives until the subscription drops it, not as long as the call of Next that needed it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &privateReader{txs: newQueue[*change.Transaction](h.opts.RingBytes / privateShare), cancel: cancel}
	stop := context.AfterFunc(ctx, p.txs.close)
	s.readers.Go(func() {
		defer stop()
		t := newTailer(&h.opts, h.tables, start.Clock, p)
		defer t.close()
		p.txs.fail(follow(ctx, &h.opts, s.replicaID, start.Position, t, func(int, int) {}, func(wire.Algorithm) {}))
	})
	return p
}

func (p *privateReader) transaction(tx *change.Transaction, memory int64) error {
	return p.txs.put(withoutManifest(tx), memory)
}

func (p *privateReader) reached(change.FilePosition) {}

// next returns a transaction, or nil after a token in wake.
func (p *privateReader) next(ctx context.Context, wake <-chan struct{}) (*change.Transaction, error) {
	if len(p.batch) == 0 {
		batch, err := p.txs.take(ctx, p.spare, wake)
		if len(batch) == 0 {
			return nil, err
		}
		p.spare, p.batch = batch, batch
	}
	tx := p.batch[0]
	p.batch[0] = nil
	p.batch = p.batch[1:]
	return tx, nil
}

func (p *privateReader) waiting() bool { return len(p.batch) > 0 || p.txs.waiting() }
