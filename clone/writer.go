package clone

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"

	"replicator/dml"
	"replicator/fault"
	"replicator/resync/chunk"
	"replicator/server"
)

const (
	// statementBytes is how long a statement of several rows gets, commitBytes how long those of a transaction are together.
	statementBytes = 512 << 10
	commitBytes    = 16 << 20
	// statementArgs bounds the values that are sent beside a statement.
	statementArgs = 1000
	// statementRoom is what a packet needs besides the statement.
	statementRoom = 1 << 10
)

// writer writes the rows of one range after the other on one session, in transactions of bounded size.
type writer struct {
	*copying
	conn *sql.Conn
	// database is the session's default: MariaDB looks there for the table of a DELETE that takes the name of an index,
	// whatever the name says.
	database string

	job     *job
	replace bool
	open    bool // a transaction
	next    dml.Statement
	rows    int // in it
	args    int // bytes of its arguments
	pending tally
	written tally // of the range, by commits
}

// tally is what was written.
type tally struct{ rows, bytes, removed int64 }

func newWriter(conn *sql.Conn, c *copying) writer { return writer{copying: c, conn: conn} }

// begin readies the writer for a range of a table.
func (w *writer) begin(j *job, replace bool) {
	w.job, w.replace, w.rows, w.args = j, replace, 0, 0
	w.pending, w.written = tally{}, tally{}
	j.copier.Begin(&w.next, replace)
}

// start begins a transaction where none is open.
func (w *writer) start(ctx context.Context) error {
	if w.open {
		return nil
	}
	if w.database != w.job.name.Database {
		if err := execAll(ctx, w.conn, "USE "+server.Quote(w.job.name.Database)); err != nil {
			return err
		}
		w.database = w.job.name.Database
	}
	if err := execAll(ctx, w.conn, "BEGIN"); err != nil {
		return err
	}
	w.open = true
	if w.Begin == nil {
		return nil
	}
	return w.Begin(ctx, w.conn)
}

// remove deletes the rows of a range, a part at a time where they are many.
func (w *writer) remove(ctx context.Context, r chunk.Range) error {
	site := chunk.Site{Server: w.Target.Name, DB: w.conn, Plan: w.job.write}
	for {
		bound, err := site.Bound(ctx, r, crowd*w.job.size)
		if err != nil {
			return err
		}
		part := r
		if bound != nil {
			part.UpTo = bound
		}
		s, err := w.job.write.DeleteRange(part.After, part.UpTo)
		if err != nil {
			return err
		}
		if err := w.start(ctx); err != nil {
			return err
		}
		found, err := s.Exec(ctx, w.conn)
		if err != nil {
			return err
		}
		w.pending.removed += found
		if bound == nil {
			return nil
		}
		if err := w.commit(ctx); err != nil {
			return err
		}
		r.After = bound
	}
}

// add writes a row; it may wait for others. What it needs of the row's memory it copies.
func (w *writer) add(ctx context.Context, row []driver.Value) error {
	text, args, bytesBefore, loose := len(w.next.Text), len(w.next.Args), w.args, w.next.Loose
	if err := w.job.copier.Append(&w.next, row); err != nil {
		return err
	}
	for _, a := range w.next.Args[args:] {
		if b, ok := a.([]byte); ok {
			w.args += len(b)
		}
	}
	if w.rows > 0 && len(w.next.Text)+w.args > w.packet-statementRoom { // alone it may have room
		last := bytes.Clone(w.next.Text[text+1:]) // without the comma
		lastArgs, lastBytes, lastLoose := slices.Clone(w.next.Args[args:]), w.args-bytesBefore, w.next.Loose
		w.next.Text, w.next.Args, w.next.Loose, w.args = w.next.Text[:text], w.next.Args[:args], loose, bytesBefore
		if err := w.flush(ctx); err != nil {
			return err
		}
		w.next.Text, w.next.Args, w.next.Loose, w.args = append(w.next.Text, last...), append(w.next.Args, lastArgs...), lastLoose, lastBytes
	}
	w.rows++
	if len(w.next.Text)+w.args < statementBytes && len(w.next.Args) < statementArgs {
		return nil
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	if w.pending.bytes < commitBytes {
		return nil
	}
	return w.commit(ctx)
}

// flush sends the statement that waits for rows.
func (w *writer) flush(ctx context.Context) error {
	if w.rows == 0 {
		return nil
	}
	if err := w.fits(); err != nil {
		return err
	}
	if err := w.start(ctx); err != nil {
		return err
	}
	if _, err := w.next.Exec(ctx, w.conn); err != nil {
		return err
	}
	w.pending.rows += int64(w.rows)
	w.pending.bytes += int64(len(w.next.Text) + w.args)
	w.rows, w.args = 0, 0
	w.job.copier.Begin(&w.next, w.replace)
	return nil
}

// fits refuses a row that the target would refuse: its text, or one of the values beside it, is too long.
func (w *writer) fits() error {
	need := len(w.next.Text)
	for _, a := range w.next.Args {
		if b, ok := a.([]byte); ok {
			need = max(need, len(b))
		}
	}
	if need+statementRoom <= w.packet {
		return nil
	}
	const mib = 1 << 20
	return fault.New(fault.Precondition, fmt.Sprintf("set max_allowed_packet on %s to at least %dM", w.Target.Name, (need+statementRoom+mib-1)/mib),
		"a row of table %s takes %d bytes, more than the max_allowed_packet of %s, which is %d", w.job.name, need, w.Target.Name, w.packet)
}

// commit ends the transaction, if one is open.
func (w *writer) commit(ctx context.Context) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	if !w.open {
		return nil
	}
	if err := execAll(ctx, w.conn, "COMMIT"); err != nil {
		return err
	}
	w.open = false
	w.count(w.pending, 1)
	w.written.rows += w.pending.rows
	w.written.bytes += w.pending.bytes
	w.written.removed += w.pending.removed
	w.pending = tally{}
	return nil
}

func (w *writer) count(t tally, sign int64) {
	w.job.done.rows.Add(sign * t.rows)
	w.job.done.bytes.Add(sign * t.bytes)
	w.job.done.removed.Add(sign * t.removed)
}

// rollback ends the transaction, if one is open, without it. Its failure means that the session is lost, which the next
// statement says.
func (w *writer) rollback(ctx context.Context) {
	if w.open {
		_ = execAll(ctx, w.conn, "ROLLBACK")
	}
	w.open = false
}

// undo forgets what was counted of the range: it is written again.
func (w *writer) undo(ctx context.Context) {
	w.rollback(ctx)
	w.count(tally{rows: w.written.rows, bytes: w.written.bytes}, -1)
	w.written = tally{}
}
