package applier

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"strings"

	"replicator/change"
	"replicator/fault"
	"replicator/image"
	"replicator/server"
)

// rowChanges is what is to be carried out at the target for one rows event, after the decisions.
type rowChanges struct {
	Event  *change.RowsEvent
	Format *change.Format
	Ops    []image.Op // nil: the event as it is
	// ByKey says that nothing but the primary key is needed to find a row, and to log it.
	ByKey bool
}

// writer carries row changes out in the target transaction that is open. replayWriter and portableWriter are the two; a
// session that uses both flushes one before it writes to the other.
type writer interface {
	// write may keep the change back, and may return the error of an earlier one. After an error the transaction must
	// be rolled back.
	write(ctx context.Context, c rowChanges) error
	// flush returns nil when everything written has been executed.
	flush(ctx context.Context) error
	// reset forgets what was written and not yet executed: the transaction was rolled back.
	reset()
}

// execer is what a writer needs of a connection: *sql.Conn.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

const (
	// batchBytes is how much base64 the first BINLOG statement carries, unless one event alone is larger. Each one behind
	// it carries twice as much, up to mostBytes: a small group is under way early, and a large one needs few statements.
	batchBytes = 256 << 10
	mostBytes  = 1 << 20
	// statementRoom is kept free below max_allowed_packet for the statement around the data.
	statementRoom = 1 << 10
)

// replayWriter sends rows events to the target inside BINLOG statements: the target's own row applier carries them out. A
// row that is not there comes back as error 1032, a duplicate as 1062. It sends nothing but text; where the server can take
// the base64 of a large statement from a variable, that is sent as a parameter, which no lexer reads.
type replayWriter struct {
	conn    execer
	dialect server.Dialect
	limit   int // bytes of base64 in the next statement
	packet  int // the target's max_allowed_packet
	format  []byte
	batch   image.Batch
	events  []byte // of the last change, which the batch has copied
	text    []byte // base64 of the statement that is under way
	store   *sql.Stmt
	// ahead lets write go on while the target executes the last statement. Nobody else may use the connection before flush
	// or reset has returned.
	ahead bool
	sent  chan error // the answer to that statement; nil when none is under way
}

// newReplayWriter makes a writer for one connection. packet is the target's max_allowed_packet.
func newReplayWriter(conn execer, dialect server.Dialect, packet int) *replayWriter {
	return &replayWriter{conn: conn, dialect: dialect, limit: min(batchBytes, packet-statementRoom), packet: packet}
}

// close frees what the server keeps for the writer.
func (w *replayWriter) close() {
	if w.store != nil {
		_ = w.store.Close() // the connection ends anyway
	}
}

// prepare tells the target the format of the events that follow. It must be called outside a transaction, before the
// first event and whenever the format may have changed; it costs nothing when it has not.
func (w *replayWriter) prepare(ctx context.Context, f *change.Format) error {
	if bytes.Equal(w.format, f.Event) {
		return nil
	}
	if _, err := w.conn.ExecContext(ctx, literal(base64.StdEncoding.AppendEncode(nil, f.Event))); err != nil {
		return fmt.Errorf("replay the format of the source's events: %w", err)
	}
	if after := w.dialect.AfterFormat(); after != "" {
		if _, err := w.conn.ExecContext(ctx, after); err != nil {
			return fmt.Errorf("%s: %w", after, err)
		}
	}
	w.format = f.Event
	return nil
}

func (w *replayWriter) write(ctx context.Context, c rowChanges) error {
	var events []byte
	var err error
	switch {
	case c.Ops != nil:
		events, err = image.Build(c.Event, c.Format, c.Ops)
	case c.ByKey:
		events, err = image.ByKey(w.events[:0], c.Event, c.Format)
	default:
		events = image.AsIs(w.events[:0], c.Event, c.Format)
	}
	if err != nil {
		return err
	}
	w.events = events
	if len(events) == 0 {
		return nil
	}
	if need := base64.StdEncoding.EncodedLen(len(events)) + statementRoom; need > w.packet {
		return w.tooLarge(c.Event.Table.Name, need)
	}
	if base64.StdEncoding.EncodedLen(w.batch.Len()+len(events)) > w.limit {
		if err := w.dispatch(ctx); err != nil {
			return err
		}
	}
	w.batch.Add(c.Event, c.Format, events)
	return nil
}

func (w *replayWriter) tooLarge(table change.TableName, need int) error {
	const mib = 1 << 20
	return fault.New(fault.Precondition,
		fmt.Sprintf("set max_allowed_packet on the target to at least %dM", (need+mib-1)/mib),
		"a row change of table %s takes a statement of %d bytes, more than the target's max_allowed_packet of %d", table,
		need, w.packet)
}

// dispatch sends what is gathered, behind the statement before it.
func (w *replayWriter) dispatch(ctx context.Context) error {
	if err := w.answer(); err != nil || w.batch.Len() == 0 {
		return err
	}
	w.text = base64.StdEncoding.AppendEncode(w.text[:0], w.batch.Bytes())
	w.batch.Reset()
	w.limit = max(w.limit, min(2*w.limit, mostBytes, w.parameterMost()))
	sent := make(chan error, 1)
	w.sent = sent
	execute := func() { sent <- w.execute(ctx) }
	if w.ahead {
		go execute()
	} else {
		execute()
	}
	return nil
}

// parameterMost is how long a parameter may be: the driver sends one that is longer than half a packet in pieces.
func (w *replayWriter) parameterMost() int { return w.packet/2 - statementRoom }

// execute sends w.text.
func (w *replayWriter) execute(ctx context.Context) error {
	store, replay := w.dialect.ReplayStored()
	// It is one more round trip, for which a larger statement makes up.
	if store == "" || len(w.text) <= batchBytes || len(w.text) > w.parameterMost() {
		_, err := w.conn.ExecContext(ctx, literal(w.text))
		return err
	}
	if w.store == nil {
		var err error
		if w.store, err = w.conn.PrepareContext(ctx, store); err != nil {
			return err
		}
	}
	if _, err := w.store.ExecContext(ctx, w.text); err != nil {
		return err
	}
	_, err := w.conn.ExecContext(ctx, replay)
	return err
}

// answer waits for the statement that is under way.
func (w *replayWriter) answer() error {
	if w.sent == nil {
		return nil
	}
	err := <-w.sent
	w.sent = nil
	if err != nil {
		return fmt.Errorf("replay events: %w", err)
	}
	return nil
}

func (w *replayWriter) flush(ctx context.Context) error {
	if err := w.dispatch(ctx); err != nil {
		return err
	}
	defer w.shrink()
	return w.answer()
}

func (w *replayWriter) reset() {
	_ = w.answer() // the transaction is rolled back whatever it is
	w.batch.Reset()
	w.shrink()
}

// shrink gives the memory of large statements back: many sessions wait, and few transactions are large.
func (w *replayWriter) shrink() {
	w.limit = min(w.limit, batchBytes)
	if cap(w.text) > 2*batchBytes {
		w.text, w.events, w.batch = nil, nil, image.Batch{}
	}
}

// literal is the BINLOG statement with base64.
func literal(text []byte) string {
	var b strings.Builder
	b.Grow(len(text) + len("BINLOG ''"))
	b.WriteString("BINLOG '")
	b.Write(text)
	b.WriteByte('\'')
	return b.String()
}
