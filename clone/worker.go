package clone

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"replicator/dml"
	"replicator/fault"
	"replicator/journal"
	"replicator/resync/chunk"
	"replicator/server"
)

// savepoint is the beginning of a session's transaction.
const savepoint = "replicator"

const (
	// lockWait is how long a statement waits for a lock of somebody else.
	lockWait = 50 * time.Second
	// writeAttempts is how often a range is written when another worker, or an application, is in the way.
	writeAttempts = 5
	// crowd is how many times the rows of a range the target may have in it to be compared, and not just replaced.
	crowd = 2
)

// copyRows runs a worker on each session of the snapshot.
func (c *copying) copyRows(parent context.Context) error {
	group, ctx := errgroup.WithContext(parent)
	for _, conn := range c.snap.sessions {
		group.Go(func() error { return c.work(ctx, conn) })
	}
	err := group.Wait()
	if parent.Err() != nil {
		return context.Cause(parent)
	}
	return err
}

// worker copies ranges, from one session to another.
type worker struct {
	*copying
	from *sql.Conn
	to   writer
}

func (c *copying) work(ctx context.Context, from *sql.Conn) (err error) {
	to, err := c.targetSession(ctx)
	if err != nil {
		return err
	}
	defer discard(to)
	if err := execAll(ctx, to, dml.RawResults); err != nil {
		return server.Fault(err, "prepare a session on "+c.Target.Name)
	}
	if err := execAll(ctx, from, dml.RawResults, "SAVEPOINT "+savepoint); err != nil {
		return server.Fault(err, "prepare a session on "+c.Source.Name)
	}
	w := &worker{copying: c, from: from, to: newWriter(to, c)}
	for {
		j := c.take()
		if j == nil {
			break
		}
		r, ok, err := j.next(ctx, from)
		if err != nil {
			err = c.stale(err, j.doing("read"))
		} else if ok {
			err = w.copy(ctx, j, r)
		}
		if err == nil {
			err = w.letGo(ctx)
		}
		if complete := c.release(j, j.whole || !ok || r.UpTo == nil); complete && err == nil {
			err = w.addKeys(ctx, j)
			j.finished.Store(err == nil)
		}
		if err != nil {
			return err
		}
	}
	// The session is the caller's again.
	if err := execAll(ctx, from, "SET NAMES utf8mb4"); err != nil {
		return server.Fault(err, "give a session on "+c.Source.Name+" back")
	}
	return nil
}

// letGo gives up the session's claim on the definitions of the tables that it has read. A statement that changes one would
// wait for it, and everybody who uses the table for that statement. On MariaDB that takes BINLOG ADMIN.
func (w *worker) letGo(ctx context.Context) error {
	if err := execAll(ctx, w.from, "ROLLBACK TO SAVEPOINT "+savepoint); err != nil {
		return server.Fault(err, "let go of tables on "+w.Source.Name)
	}
	return nil
}

// copy makes a range of the target equal to the source's.
func (w *worker) copy(ctx context.Context, j *job, r chunk.Range) error {
	if !j.fill {
		return w.sync(ctx, j, r)
	}
	w.to.begin(j, false)
	err := w.rows(ctx, j, r)
	if err == nil || j.whole || !server.IsDuplicateKey(err) && server.Classify(err) != fault.Busy || isRead(err) {
		return w.named(err, j)
	}
	// Somebody else writes rows there, or locks them.
	w.to.undo(ctx)
	return w.replace(ctx, j, r)
}

// rows writes the rows of a range, and commits.
func (w *worker) rows(ctx context.Context, j *job, r chunk.Range) error {
	query, err := j.copier.Select(r.After, r.UpTo)
	if err != nil {
		return err
	}
	err = w.read(ctx, query, j.whole, func(rows driver.Rows) error {
		row := make([]driver.Value, len(rows.Columns()))
		for {
			if err := rows.Next(row); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return &readError{err}
			}
			if err := w.to.add(ctx, row); err != nil {
				return err
			}
		}
	})
	if err == nil {
		err = w.to.commit(ctx)
	}
	if err != nil {
		w.to.rollback(ctx)
	}
	return err
}

// named gives an error the table and the server that it is about.
func (w *worker) named(err error, j *job) error {
	if err == nil {
		return nil
	}
	if read, is := errors.AsType[*readError](err); is {
		return w.stale(read.error, j.doing("read"))
	}
	if f, is := fault.As(err); is {
		return f
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	f := server.Fault(err, j.doing("write"))
	if f.Class == fault.Row || f.Class == fault.Definition {
		f.Remedy = "correct the table on " + w.Target.Name + ", or drop it there; then run it again"
	}
	return fmt.Errorf("%s: %w", w.Target.Name, f)
}

// fineRows is how many rows are compared at a time where a range differs.
const fineRows = 500

// sync compares a range, and replaces what differs of it.
func (w *worker) sync(ctx context.Context, j *job, r chunk.Range) error {
	same, err := w.stays(ctx, j, r)
	switch {
	case err != nil || same:
		return err
	case !j.sums || j.size <= fineRows:
		return w.replace(ctx, j, r)
	}
	target := &chunk.Site{Server: w.Target.Name, DB: w.to.conn, Plan: j.write}
	switch some, err := target.Bound(ctx, r, 1); {
	case err != nil:
		return w.named(err, j)
	case some == nil: // nothing to compare
		return w.replace(ctx, j, r)
	}
	return w.finer(ctx, j, r)
}

// finer goes through a range in small parts: where little has changed, little is written.
func (w *worker) finer(ctx context.Context, j *job, r chunk.Range) error {
	source := &chunk.Site{Server: w.Source.Name, DB: w.from, Plan: j.read}
	for {
		part := r
		bound, err := source.Bound(ctx, r, fineRows)
		if err != nil {
			return w.stale(err, j.doing("read"))
		}
		if bound != nil {
			part.UpTo = bound
		}
		same, err := w.stays(ctx, j, part)
		if err == nil && !same {
			err = w.replace(ctx, j, part)
		}
		if err != nil || bound == nil {
			return err
		}
		r.After = bound
	}
}

// stays reports whether a range is to stay as it is, and counts its rows then.
func (w *worker) stays(ctx context.Context, j *job, r chunk.Range) (bool, error) {
	rows, same, err := w.same(ctx, j, r)
	if err == nil && same {
		j.done.rows.Add(rows)
		j.done.same.Add(rows)
	}
	return same, err
}

// same reports whether both servers have the same rows in a range, and how many.
func (w *worker) same(ctx context.Context, j *job, r chunk.Range) (rows int64, same bool, err error) {
	target := &chunk.Site{Server: w.Target.Name, DB: w.to.conn, Plan: j.write}
	if r.After == nil || r.UpTo == nil { // there may be any number of others
		bound, err := target.Bound(ctx, r, crowd*j.size)
		if err != nil || bound != nil {
			return 0, false, w.named(err, j)
		}
	}
	if !j.sums {
		rows, same, err = w.equal(ctx, j, r)
		return rows, same, w.named(err, j)
	}
	there, err := target.Sum(ctx, r)
	if err != nil {
		return 0, false, w.named(err, j)
	}
	if there.Rows == 0 && r.UpTo != nil { // the source has some, or there would be no such range
		return 0, false, nil
	}
	source := &chunk.Site{Server: w.Source.Name, DB: w.from, Plan: j.read}
	here, err := source.Sum(ctx, r)
	switch {
	case err != nil:
		return 0, false, w.stale(err, j.doing("read"))
	case here == there && here.Whole:
		return here.Rows, true, nil
	case here.Rows == there.Rows && (!here.Whole || !there.Whole):
		rows, same, err = w.equal(ctx, j, r)
		return rows, same, w.named(err, j)
	}
	return 0, false, nil
}

// equal compares a range row by row, by value.
func (w *worker) equal(ctx context.Context, j *job, r chunk.Range) (rows int64, same bool, err error) {
	here, err := j.read.SelectRaw(r.After, r.UpTo)
	if err != nil {
		return 0, false, err
	}
	there, err := j.write.SelectRaw(r.After, r.UpTo)
	if err != nil {
		return 0, false, err
	}
	err = w.read(ctx, here, false, func(a driver.Rows) error {
		return open(ctx, w.to.conn, there, false, func(b driver.Rows) error {
			rowA, rowB := make([]driver.Value, len(a.Columns())), make([]driver.Value, len(b.Columns()))
			for {
				errA, errB := a.Next(rowA), b.Next(rowB)
				endA, endB := errors.Is(errA, io.EOF), errors.Is(errB, io.EOF)
				switch {
				case errA != nil && !endA:
					return &readError{errA}
				case errB != nil && !endB:
					return errB
				case endA || endB:
					same = endA && endB
					return nil
				}
				differ, err := j.differ(rowA, rowB)
				if err != nil || differ {
					return err
				}
				rows++
			}
		})
	})
	return rows, same, err
}

// differ compares two rows, of which nothing but the tables is known to belong together.
func (j *job) differ(from, to []driver.Value) (bool, error) {
	a, err := j.read.ParseRaw(from)
	if err != nil {
		return false, err
	}
	b, err := j.write.ParseRaw(to)
	if err != nil {
		return false, err
	}
	here, there := &journal.Row{Table: j.source, Values: a}, &journal.Row{Table: j.source, Values: b}
	documents := j.write.Documents()
	return len(journal.Differing(here.WithDocuments(documents), there.WithDocuments(documents))) > 0, nil
}

// replace deletes what the target has in a range and writes the range's rows. They replace stale rows elsewhere that hold a
// unique value of theirs.
func (w *worker) replace(ctx context.Context, j *job, r chunk.Range) error {
	for attempt := 1; ; attempt++ {
		w.to.begin(j, true)
		err := w.to.remove(ctx, r)
		if err == nil {
			err = w.rows(ctx, j, r)
		} else {
			w.to.rollback(ctx)
		}
		if err == nil || attempt == writeAttempts || ctx.Err() != nil || server.Classify(err) != fault.Busy || isRead(err) {
			return w.named(err, j)
		}
		w.to.undo(ctx)
	}
}

// readError is an error of the snapshot's server.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// read runs a query on the snapshot's server.
func (w *worker) read(ctx context.Context, query string, abandon bool, use func(driver.Rows) error) error {
	begun := false
	err := open(ctx, w.from, query, abandon, func(rows driver.Rows) error {
		begun = true
		return use(rows)
	})
	if err != nil && !begun {
		return &readError{err}
	}
	return err
}

// open runs a query and hands its rows out as the driver reads them: each is gone with the next one. It asks the driver
// itself, because package database/sql makes several copies of each value. When use fails, the rest of the rows is read and
// thrown away, or, with abandon, the session is.
func open(ctx context.Context, conn *sql.Conn, query string, abandon bool, use func(driver.Rows) error) error {
	return conn.Raw(func(raw any) error {
		q, ok := raw.(driver.QueryerContext)
		if !ok {
			return errors.New("bug: the driver runs no queries")
		}
		rows, err := q.QueryContext(ctx, query, nil)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // what was wrong with it has been said
		err = use(rows)
		if c, ok := raw.(driver.Conn); ok && err != nil && abandon {
			_ = c.Close() // the rest of the answer is not wanted
		}
		return err
	})
}

func isRead(err error) bool {
	_, is := errors.AsType[*readError](err)
	return is
}
