package applier

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"replicator/change"
	"replicator/fault"
)

// Stream gives a source's transactions in binlog order. canal.Subscription is one.
type Stream interface {
	// Next returns the next transaction; it waits for the source.
	Next(ctx context.Context) (*change.Transaction, error)
	// Waiting reports whether Next would return at once.
	Waiting() bool
	// Close releases the stream. Next must not be called again.
	Close()
}

// Limits bound a group.
type Limits struct {
	Transactions int
	Rows         int64
	Bytes        int64
	Time         time.Duration // since the group's first transaction was read
}

// group is consecutive source transactions that are applied and committed together.
type group struct {
	txs   []*change.Transaction // those with rows to apply, in order
	rows  int64
	bytes int64
	moved bool // something was read, be it only what needs no marker by itself
	part  bool // of a greater group that was divided
	// definition is a DDL statement, which stands alone: everything before it must have been committed.
	definition *change.Transaction
	copies     *copyRequest // rows of the source to be copied, which stand alone as well
	// end is the position behind the group, and clock the source's there.
	end   change.GTIDSet
	clock change.Clock
	// start is the position before the group, and read[i] are the GTIDs since then or since the transaction before, up to
	// and including that of txs[i]: where the group can be divided.
	start change.GTIDSet
	read  [][]change.GTID
	since []change.GTID
	// What the scheduler has found out about it.
	special tribool
	claims  []claim // before it begins
	behind  uint64  // the task that it must wait for
}

// tribool is a fact that is looked up when it is needed.
type tribool uint8

const (
	unknown tribool = iota
	no
	yes
)

func (g *group) full(l Limits) bool {
	return len(g.txs) >= l.Transactions || g.rows >= l.Rows || g.bytes >= l.Bytes
}

// fits reports whether tx may join: a spooled transaction is applied alone, and one session replays the events of one
// format at a time.
func (g *group) fits(tx *change.Transaction) bool {
	return len(g.txs) == 0 || !tx.Spooled && tx.Format == g.txs[0].Format
}

func (g *group) add(tx *change.Transaction) {
	g.txs = append(g.txs, tx)
	g.read = append(g.read, g.since)
	g.since = nil
	g.rows += tx.Rows
	g.bytes += tx.Bytes
}

// collector makes groups of what a source's stream gives. It is used by one goroutine.
type collector struct {
	opt      Options
	stream   Stream
	position change.GTIDSet // covered by what has been read
	clock    change.Clock   // of the source, at position
	held     *change.Transaction
	patience patience
	// busy says that something was read that has not been handed over, or may be waiting.
	busy atomic.Bool
	// quiet gets a value when the source has nothing more to give.
	quiet chan struct{}
}

// collect reads what is waiting, up to the limits, and advances the position over it. It returns an empty group when the
// source stays silent for idle.
func (c *collector) collect(ctx context.Context, idle time.Duration) (*group, error) {
	g := &group{start: c.position.Clone()}
	err := c.fill(ctx, g, idle)
	g.end, g.clock = c.position.Clone(), c.clock
	return g, err
}

func (c *collector) fill(ctx context.Context, g *group, idle time.Duration) error {
	var deadline time.Time
	wait, cancel := context.WithTimeout(ctx, idle) // for the first transaction: none is waited for behind it
	defer cancel()
	for {
		tx := c.held
		c.held = nil
		if tx == nil {
			if g.moved && !c.stream.Waiting() {
				return nil
			}
			if !g.moved && !c.stream.Waiting() {
				c.busy.Store(false)
				select {
				case c.quiet <- struct{}{}:
				default:
				}
			}
			next, err := c.stream.Next(wait)
			expired := wait.Err() != nil && ctx.Err() == nil
			switch {
			case err != nil && expired && errors.Is(err, context.DeadlineExceeded):
				return nil
			case err != nil:
				return err
			}
			tx = next
		}
		c.busy.Store(true)
		now := time.Now()
		if err := c.checkTime(tx, now); err != nil {
			return err
		}
		if tx.Kind == change.Local && c.early(tx) {
			c.held = tx
			if g.moved {
				return nil
			}
			c.opt.Stats.Behind.Store(tx.Committed.UnixMicro())
			return c.patience.wait(ctx, tx.Stamp.Context)
		}
		if (tx.Kind == change.Definition && g.moved) || (tx.Kind == change.Local && !g.fits(tx)) {
			c.held = tx
			return nil
		}
		if !g.moved {
			g.moved = true
			deadline = now.Add(c.opt.Limits.Time)
		}
		c.position.Add(tx.GTID)
		g.since = append(g.since, tx.GTID)
		c.clock = tx.Clock
		if tx.Kind == change.Definition {
			g.definition = tx
			return nil
		}
		if tx.Kind == change.Local {
			g.add(tx)
		}
		if g.full(c.opt.Limits) || tx.Spooled || now.After(deadline) {
			return nil
		}
	}
}

// intake runs a collector beside those who use its groups.
type intake struct {
	groups chan collected
	wanted chan struct{}
	ended  chan struct{}
	asked  bool
}

type collected struct {
	group *group
	err   error
}

// start begins to collect when it is asked to. It ends with the context, or when the stream fails.
func (c *collector) start(ctx context.Context) *intake {
	i := &intake{groups: make(chan collected, 1), wanted: make(chan struct{}, 1), ended: make(chan struct{})}
	go func() {
		defer close(i.ended)
		for {
			select {
			case <-i.wanted:
			case <-ctx.Done():
				return
			}
			g, err := c.collect(ctx, idleTick)
			i.groups <- collected{g, err}
			if err != nil {
				return
			}
		}
	}()
	return i
}

// ask wants one more group, unless one is wanted already. What waits until then becomes part of it.
func (i *intake) ask() {
	if !i.asked {
		i.asked = true
		i.wanted <- struct{}{}
	}
}

// wait returns when collecting has ended.
func (i *intake) wait() { <-i.ended }

// checkTime stops a source whose clock runs ahead: its changes would win over everything.
func (c *collector) checkTime(tx *change.Transaction, now time.Time) error {
	ahead := tx.Committed.Sub(now)
	if ahead <= c.opt.MaxClockSkew || tx.Committed.IsZero() {
		return nil
	}
	source, target := c.opt.Source, c.opt.Target
	return fault.New(fault.ClockSkew,
		fmt.Sprintf("set the clock of %s right (or that of this host), then `replicator link resume %s %s`", source, source, target),
		"%s committed %s at %s, %s ahead of this host's clock; max_clock_skew is %s",
		source, tx.GTID, tx.Committed.UTC().Format(time.RFC3339Nano), ahead.Round(time.Millisecond), c.opt.MaxClockSkew)
}

// early reports whether a transaction must wait: what it adds to columns must be added to what it was made on.
func (c *collector) early(tx *change.Transaction) bool {
	return len(c.opt.Index.Lacks(tx.Stamp.Context)) > 0 && c.opt.Registers.adds(tx)
}
