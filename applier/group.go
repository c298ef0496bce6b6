package applier

import (
	"context"
	"errors"
	"time"

	"replicator/change"
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
	// start is the position before the group, and read[i] are the GTIDs since then or since the transaction before, up to
	// and including that of txs[i]: where the group can be divided.
	start change.GTIDSet
	read  [][]change.GTID
	since []change.GTID
}

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

// collect reads what is waiting, up to the limits, and advances the link's position over it. It returns an empty group
// when the source stays silent for idle.
func (l *Link) collect(ctx context.Context, idle time.Duration) (*group, error) {
	g := &group{start: l.position.Clone()}
	var deadline time.Time
	for {
		tx := l.held
		l.held = nil
		if tx == nil {
			if g.moved && !l.stream.Waiting() {
				return g, nil
			}
			wait, cancel := context.WithTimeout(ctx, idle)
			next, err := l.stream.Next(wait)
			expired := wait.Err() != nil && ctx.Err() == nil
			cancel()
			switch {
			case err != nil && expired && errors.Is(err, context.DeadlineExceeded):
				return g, nil
			case err != nil:
				return nil, err
			}
			tx = next
		}
		if err := l.checkTime(tx); err != nil {
			return nil, err
		}
		if tx.Kind == change.Local && l.early(tx) {
			l.held = tx
			if len(g.txs) > 0 || g.moved {
				return g, nil
			}
			l.opt.Stats.Behind.Store(tx.Committed.UnixMicro())
			return g, l.patience.wait(ctx, tx.Stamp.Context)
		}
		barrier := tx.Kind == change.Definition
		if (barrier && len(g.txs) > 0) || (tx.Kind == change.Local && !g.fits(tx)) {
			l.held = tx
			return g, nil
		}
		if barrier {
			if err := l.definition(ctx, tx); err != nil {
				return nil, err
			}
		}
		if !g.moved {
			g.moved = true
			deadline = time.Now().Add(l.opt.Limits.Time)
		}
		l.position.Add(tx.GTID)
		g.since = append(g.since, tx.GTID)
		l.clock = tx.Clock
		if tx.Kind == change.Local {
			g.add(tx)
		}
		if g.full(l.opt.Limits) || tx.Spooled || time.Now().After(deadline) {
			return g, nil
		}
	}
}
