// Package canal reads the binlog of one server and yields its transactions: decoded as far as the tables are replicated,
// with their versions, whole, in binlog order. A Hub reads it once for the owner's index and for all links.
package canal

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/wire"
)

// Start is where reading begins: everything in Position has been read before, and Clock is the fold there.
type Start struct {
	Position change.GTIDSet
	Clock    change.Clock
}

func (s Start) clone() Start { return Start{Position: s.Position.Clone(), Clock: s.Clock} }

// Feed is the owner's index. The shared reader calls it in binlog order, before any subscription sees the transaction. It
// never waits for subscriptions.
type Feed interface {
	// Transaction takes a transaction; its Marker has the Manifest here. An error ends the shared reader.
	Transaction(tx *change.Transaction) error
	// Reached says that everything before p has been fed.
	Reached(p change.FilePosition)
}

// Hub reads one server for everybody who needs it. Recent transactions are shared through a ring of RingBytes; a
// subscription that is slower, or starts earlier, reads through a connection of its own until it finds itself in the ring.
type Hub struct {
	opts   Options
	tables *catalog

	running atomic.Bool
	stats   counters
	missed  chan Start // see Missed

	mu      sync.Mutex
	ring    ring
	live    bool // the shared reader's connection stands
	subs    map[*Subscription]struct{}
	failure error // of the last Run

	compression wire.Algorithm // of its connection
}

// NewHub makes a hub that does not read yet.
func NewHub(o Options) *Hub {
	o = o.withDefaults()
	return &Hub{opts: o, tables: newCatalog(o.Match, o.Times), missed: make(chan Start, 1), subs: map[*Subscription]struct{}{}}
}

// Missed yields where a subscription stands that has lost the shared reader: a start for the next Run. It is for callers
// that have no start of their own.
func (h *Hub) Missed() <-chan Start { return h.missed }

// miss offers a start to whoever runs the hub; the newest replaces one that nobody took.
func (h *Hub) miss(start Start) {
	select {
	case <-h.missed:
	default:
	}
	select {
	case h.missed <- start:
	default: // another subscription was faster
	}
}

var errRunning = errors.New("bug: the hub is running already")

// Run reads the binlog from start on until ctx ends or something fails, and returns why. feed may be nil. The caller
// runs it again, with a fresh start, when the fault is transient; start may be before or behind where it stood.
func (h *Hub) Run(ctx context.Context, start Start, feed Feed) error {
	if !h.running.CompareAndSwap(false, true) {
		return errRunning
	}
	defer h.running.Store(false)
	shared := &sharedReader{hub: h, feed: feed}
	t := newTailer(&h.opts, h.tables, start.Clock, shared)
	defer t.close()
	err := follow(ctx, &h.opts, h.opts.ReplicaID, start.Position, t, h.stats.add, func(compression wire.Algorithm) {
		h.opts.Logger.Info("binlog reader connected", zap.Stringer("position", start.Position),
			zap.String("compression", string(compression)))
		h.connected(start.Position.Clone(), compression)
	})
	h.disconnected(err)
	return err
}

// connected begins a new ring. Until then subscriptions read what the last connection brought.
func (h *Hub) connected(base change.GTIDSet, compression wire.Algorithm) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring.reset(base)
	h.live, h.failure, h.compression = true, nil, compression
	select {
	case <-h.missed: // it is not missed any more
	default:
	}
	h.wakeAll()
}

func (h *Hub) disconnected(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.live, h.failure = false, err
	h.wakeAll()
}

func (h *Hub) wakeAll() {
	for s := range h.subs {
		signal(s.wake)
	}
}

// sharedReader is where the shared reader's transactions go.
type sharedReader struct {
	hub  *Hub
	feed Feed
}

func (r *sharedReader) transaction(tx *change.Transaction, memory int64) error {
	if r.feed != nil {
		if err := r.feed.Transaction(tx); err != nil {
			return err
		}
	}
	r.hub.stats.transaction(tx)
	r.hub.publish(withoutManifest(tx), memory)
	return nil
}

func (r *sharedReader) reached(p change.FilePosition) {
	r.hub.stats.reached(p)
	if r.feed != nil {
		r.feed.Reached(p)
	}
}

// withoutManifest spares subscriptions the keys of others' transactions: no link looks at them.
func withoutManifest(tx *change.Transaction) *change.Transaction {
	if tx.Marker == nil {
		return tx
	}
	slim, marker := *tx, *tx.Marker
	marker.Manifest = nil
	slim.Marker = &marker
	return &slim
}

func (h *Hub) publish(tx *change.Transaction, memory int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring.push(tx, memory, h.opts.RingBytes)
	for s := range h.subs {
		if s.sleeping {
			s.sleeping = false
			signal(s.wake)
		}
	}
}

// Stats is what a status page shows of a hub.
type Stats struct {
	Connected     bool
	Failure       error          // why the shared reader ended last, nil while it runs
	Compression   wire.Algorithm // of the shared reader's connection, or the one before; "" before the first
	Events, Bytes uint64
	Transactions  uint64
	Local         uint64              // of Transactions
	Position      change.FilePosition // how far the shared reader has read
	Committed     time.Time           // when the newest transaction that was read was committed, by its server
	Heard         time.Time           // when the server last sent anything, by this machine's clock
	Subscriptions int
	Private       int // subscriptions that read through a connection of their own
	RingBytes     int64
	Ring          int // transactions in the ring
}

// Stats returns the current figures.
func (h *Hub) Stats() Stats {
	s := h.stats.snapshot()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Connected, s.Failure, s.Compression = h.live, h.failure, h.compression
	s.Subscriptions, s.Ring, s.RingBytes = len(h.subs), h.ring.len(), h.ring.memory
	for sub := range h.subs {
		if sub.private != nil {
			s.Private++
		}
	}
	return s
}

// counters are written by the shared reader and read by anybody.
type counters struct {
	events, bytes, transactions, local atomic.Uint64

	mu        sync.Mutex
	position  change.FilePosition
	committed time.Time
	heard     time.Time
}

func (c *counters) add(events, bytes int) {
	c.events.Add(uint64(events))
	c.bytes.Add(uint64(bytes))
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = now
}

func (c *counters) transaction(tx *change.Transaction) {
	c.transactions.Add(1)
	if tx.Kind == change.Local {
		c.local.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.committed, c.position = tx.Committed, tx.End
}

func (c *counters) reached(p change.FilePosition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.position = p
}

func (c *counters) snapshot() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Events: c.events.Load(), Bytes: c.bytes.Load(), Transactions: c.transactions.Load(), Local: c.local.Load(),
		Position: c.position, Committed: c.committed, Heard: c.heard,
	}
}
