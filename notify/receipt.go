package notify

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// receipts note on every server that holds a message's head that it has arrived. All that takes time is done before the
// message leaves: when its acceptance is known, each server needs to get one packet only. Those that have left take effect
// whatever becomes of this process, and one server that has heard of the message is enough to keep it from being sent again.
type receipts struct {
	desk    *Desk
	message *message
	ready   []*receipt
}

// receipt is the statement for one server. It belongs to a connection of its own, so that nothing has to be waited for.
type receipt struct {
	peer      *peer
	conn      *sql.Conn
	statement *sql.Stmt
	noted     bool // or another process did
}

// prepare readies the receipts, and proves just before a message leaves that this process may still send it. Without an
// error, finish must be called.
func (d *Desk) prepare(ctx context.Context, m *message) (*receipts, error) {
	rs := &receipts{desk: d, message: m}
	for _, h := range m.holds {
		r, err := within(ctx, func(ctx context.Context) (*receipt, error) { return newReceipt(ctx, h.peer, m) })
		if err != nil {
			rs.finish()
			d.fell(ctx, h.peer, err)
			return nil, err
		}
		rs.ready = append(rs.ready, r)
	}
	for _, r := range rs.ready {
		if err := d.renewOn(ctx, r.conn, m); err != nil {
			rs.finish()
			if !errors.Is(err, errTaken) {
				d.fell(ctx, r.peer, err)
			}
			return nil, err
		}
	}
	return rs, nil
}

func newReceipt(ctx context.Context, p *peer, m *message) (*receipt, error) {
	conn, err := p.DB.Conn(ctx)
	if err != nil {
		return nil, err
	}
	statement, err := conn.PrepareContext(ctx, m.receiptQuery())
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &receipt{peer: p, conn: conn, statement: statement}, nil
}

// note tells all servers at once that the message has arrived. One that could not be told is told by record.
func (rs *receipts) note(ctx context.Context) {
	var wg sync.WaitGroup
	args := rs.message.receiptArgs()
	errs := make([]error, len(rs.ready))
	for i, r := range rs.ready {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, statementTimeout)
			defer cancel()
			errs[i] = found(r.statement.ExecContext(ctx, args...))
		})
	}
	wg.Wait()
	for i, r := range rs.ready {
		r.noted = rs.desk.noted(ctx, r.peer, rs.message, errs[i])
	}
}

// finish gives the connections back. Nobody may use the message's holds meanwhile: those that were noted are removed.
func (rs *receipts) finish() {
	for _, r := range rs.ready {
		_, _ = r.statement.Close(), r.conn.Close() // what is broken the pool throws away
		if r.noted {
			rs.message.holds = slices.DeleteFunc(rs.message.holds, func(h hold) bool { return h.peer == r.peer })
		}
	}
}

// receiptQuery notes the whole of a message in one statement: its head, and its conflicts. It goes by their names, not by
// who holds them now: that the message has arrived is true also when another process has taken it over meanwhile, and keeps
// that one from sending it. What a name stands for does not change once it has been sent.
func (m *message) receiptQuery() string {
	return "UPDATE replicator.notice SET sent_at = UTC_TIMESTAMP(6), message = ? WHERE party = ? AND sent_at IS NULL AND message IN (" +
		marks(len(m.names)) + ")"
}

func (m *message) receiptArgs() []any {
	name := m.id
	if m.refusal != "" {
		name = clip("refused: "+m.refusal, 250)
	}
	args := []any{name, []byte(m.party.key)}
	for _, n := range m.names {
		args = append(args, n)
	}
	return args
}

// noted looks at the outcome of a receipt; false: it has to be tried again.
func (d *Desk) noted(ctx context.Context, p *peer, m *message, err error) bool {
	if errors.Is(err, errTaken) {
		d.log.Warn("a notice took longer than its lease: another process may have sent it too",
			zap.String("server", p.Name), zap.String("message", m.id))
		return true
	}
	if err != nil {
		d.fell(ctx, p, err)
	}
	return err == nil
}

// record notes that a message has arrived, or that it never will, where that has not been done yet. It returns false while
// some server could not be told; it may be called again.
func (d *Desk) record(ctx context.Context, m *message) bool {
	m.holds = slices.DeleteFunc(m.holds, func(h hold) bool {
		if !h.peer.up(time.Now()) {
			return false
		}
		ctx, cancel := context.WithTimeout(ctx, statementTimeout)
		defer cancel()
		return d.noted(ctx, h.peer, m, found(h.peer.DB.ExecContext(ctx, m.receiptQuery(), m.receiptArgs()...)))
	})
	return len(m.holds) == 0
}
