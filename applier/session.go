package applier

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/dml"
	"replicator/image"
	"replicator/server"
)

// lockWait is how long a statement waits for a row lock of an application before the group is rolled back and tried again.
const lockWait = 5 * time.Second

// session is one connection to the target, on which groups are applied one after the other.
type session struct {
	opt      Options
	conn     *sql.Conn
	marker   *checkpoint.Writer
	replay   *replayWriter
	portable *portableWriter
	routing  routing
	used     time.Time
	open     bool // a transaction may be open
	broken   bool
	names    string // the character set that statements are sent in; "" when it is not known
}

func openSession(ctx context.Context, opt Options) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := opt.Server.DB().Conn(ctx)
	if err != nil {
		return nil, server.Fault(err, "connect to "+opt.Target)
	}
	s := &session{opt: opt, conn: conn, used: time.Now()}
	if err := s.setUp(ctx); err != nil {
		s.broken = true
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) setUp(ctx context.Context) error {
	err := s.opt.Dialect.ApplySession(ctx, s.conn, server.Session{LockWait: lockWait, Wait: s.opt.SessionWait})
	if err != nil {
		return err
	}
	canReplay, err := s.opt.Dialect.CanReplay(ctx, s.conn)
	if err != nil {
		return err
	}
	s.marker, err = checkpoint.NewWriter(ctx, s.conn, s.opt.Identity.ID, s.opt.Owner)
	if err != nil {
		return server.Fault(err, "prepare the marker on "+s.opt.Target)
	}
	s.routing = routing{opt: s.opt, canReplay: canReplay}
	s.replay = newReplayWriter(s.conn, s.opt.Dialect, s.opt.MaxPacket)
	s.portable = newPortableWriter(s.conn, s.targetTable, s.opt.SourceFlavor != s.opt.Flavor, s.opt.MaxPacket,
		s.opt.Dialect.Listing(), newSorter(newShapes(s.opt.Definitions, s.opt.Server.DB())))
	return nil
}

// The character sets that statements are sent in. A server looks at each byte of a text in utf8mb4, a megabyte of base64
// included; for replay the dialect knows those in which it does not.
const (
	namesReplay   = "replay"
	namesPortable = "utf8mb4"
)

// speak sets the character set of the statements that follow.
func (s *session) speak(ctx context.Context, names string) error {
	if s.names == names {
		return nil
	}
	if err := s.ownTime(ctx); err != nil {
		return err
	}
	s.names = ""
	statement := "SET NAMES " + names
	if names == namesReplay {
		statement = s.opt.Dialect.ReplayNames()
	}
	if _, err := s.conn.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	s.names = names
	return nil
}

// ownTime gives the session the server's time back: replayed events leave their own behind, which would become that of
// markers and journal entries.
func (s *session) ownTime(ctx context.Context) error {
	if s.names != namesReplay {
		return nil
	}
	if _, err := s.conn.ExecContext(ctx, "SET SESSION timestamp = DEFAULT"); err != nil {
		return fmt.Errorf("set the session's time: %w", err)
	}
	return nil
}

// way is how the rows of a table are written.
type way struct {
	writer writer
	names  string // the character set of its statements
	byKey  bool   // see rowChanges
}

// wayOf returns the way of a table's path.
func (s *session) wayOf(ctx context.Context, t *change.Table) (way, error) {
	sql := way{writer: s.portable, names: namesPortable}
	if t.Settles != "" {
		return sql, nil
	}
	route, err := s.routing.route(ctx, s.opt.Server.DB(), t)
	if err != nil || !route.replay {
		return sql, err
	}
	return way{writer: s.replay, names: namesReplay, byKey: !route.target.Derived}, nil
}

func (s *session) targetTable(ctx context.Context, name change.TableName) (*server.Table, error) {
	return s.opt.Definitions.Table(ctx, s.opt.Server.DB(), name)
}

// automatic tells which of a table's columns change by themselves on the target: generated ones, and those with ON UPDATE.
func (s *session) automatic(ctx context.Context, t *change.Table) ([]bool, error) {
	all := make([]bool, len(t.Columns))
	target, err := s.targetTable(ctx, t.Name)
	if err != nil || target == nil {
		return all, err
	}
	for i := range t.Columns {
		if at := target.Column(t.Columns[i].Name); at >= 0 {
			all[i] = target.Columns[at].Generated || target.Columns[at].AutoUpdate
		}
	}
	return all, nil
}

// close ends the session. One that an apply session used is not given back to the pool: its settings differ.
func (s *session) close() {
	if s.marker != nil && !s.broken {
		_ = s.marker.Close() // the connection ends anyway
	}
	if s.replay != nil && !s.broken {
		s.replay.close()
	}
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn }) // ends the connection instead of returning it
	_ = s.conn.Close()
}

// prepare readies the session for events of a format. It must be called outside a transaction.
func (s *session) prepare(ctx context.Context, f *change.Format) error {
	if !s.routing.canReplay || s.opt.SourceFlavor != s.opt.Flavor {
		return nil
	}
	return s.replay.prepare(ctx, f)
}

func (s *session) begin(ctx context.Context, lockFirst bool) error {
	s.used = time.Now()
	if err := s.ownTime(ctx); err != nil {
		return err
	}
	s.open = true
	if lockFirst {
		// Its gap locks keep away a row that was found absent.
		if _, err := s.conn.ExecContext(ctx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"); err != nil {
			return fmt.Errorf("set the isolation level: %w", err)
		}
	}
	if _, err := s.conn.ExecContext(ctx, "BEGIN"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return nil
}

func (s *session) commit(ctx context.Context) error {
	if _, err := s.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	s.open = false
	s.used = time.Now()
	return nil
}

// rollback ends an open transaction. Its failure means that the session is lost, and the transaction with it.
func (s *session) rollback(ctx context.Context) error {
	s.replay.reset()
	s.portable.reset()
	if !s.open {
		return nil
	}
	if _, err := s.conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		s.broken = true
		return fmt.Errorf("roll back: %w", err)
	}
	s.open = false
	return nil
}

// keepAlive keeps the server from ending an idle session.
func (s *session) keepAlive(ctx context.Context) error {
	if time.Since(s.used) < s.opt.SessionWait/3 {
		return nil
	}
	s.used = time.Now()
	if err := s.conn.PingContext(ctx); err != nil {
		return server.Fault(err, "keep the session on "+s.opt.Target)
	}
	return nil
}

// write carries the decided changes out, each table on its path. Tables of both paths keep their order. unchecked lets rows
// stand without their parents.
func (s *session) write(ctx context.Context, txs []*change.Transaction, x *execution, unchecked bool) error {
	var last writer
	s.replay.ahead = x.present == nil // otherwise rows are read and events written in turns
	s.portable.ahead = s.replay.ahead
	for _, tx := range txs {
		x.tx = tx
		err := tx.Body.Each(func(ev *change.RowsEvent) error {
			if x.present != nil {
				parent, err := s.isParent(ctx, ev.Table.Name)
				if err != nil {
					return err
				}
				if parent {
					if err := flush(ctx, last); err != nil {
						return err
					}
					if err := s.guard(ctx, tx, ev, x, unchecked); err != nil {
						return err
					}
				}
			}
			ops, asIs, err := x.event(ctx, ev)
			if err != nil || (!asIs && len(ops) == 0) {
				return err
			}
			w, err := s.wayOf(ctx, ev.Table)
			if err != nil {
				return err
			}
			if last != w.writer {
				if err := flush(ctx, last); err != nil {
					return err
				}
			}
			last = w.writer
			if err := s.speak(ctx, w.names); err != nil {
				return err
			}
			if asIs {
				ops = nil
			}
			if unchecked {
				ev = withoutChecks(ev)
			}
			return w.writer.write(ctx, rowChanges{Event: ev, Format: tx.Format, Ops: ops, ByKey: w.byKey})
		})
		if err != nil {
			return err
		}
	}
	return flush(ctx, last)
}

func flush(ctx context.Context, w writer) error {
	if w == nil {
		return nil
	}
	return w.flush(ctx)
}

// withoutChecks is an event whose rows may refer to rows that do not exist.
func withoutChecks(ev *change.RowsEvent) *change.RowsEvent {
	if ev.Table.Settles != "" {
		return ev
	}
	free := *ev
	free.Data = bytes.Clone(ev.Data)
	free.Data[flagsOffset] |= flagNoForeignKeyChecks
	return &free
}

// probe carries the changes of one transaction out one by one, as SQL whatever their path is: the transaction is rolled
// back in any case. It returns a *clash for the change that other rows are in the way of.
func (s *session) probe(ctx context.Context, tx *change.Transaction, x *execution, unchecked bool) error {
	x.tx = tx
	if err := s.speak(ctx, namesPortable); err != nil {
		return err
	}
	return tx.Body.Each(func(ev *change.RowsEvent) error {
		if parent, err := s.isParent(ctx, ev.Table.Name); err != nil {
			return err
		} else if parent {
			if err := s.guard(ctx, tx, ev, x, unchecked); err != nil {
				return err
			}
		}
		ops, _, err := x.event(ctx, ev)
		if err != nil {
			return err
		}
		sent := ev
		if unchecked {
			sent = withoutChecks(ev)
		}
		for _, op := range ops {
			err := s.portable.write(ctx, rowChanges{Event: sent, Format: tx.Format, Ops: []image.Op{op}})
			if err == nil {
				err = s.portable.flush(ctx)
			}
			if err != nil {
				return s.clash(ctx, tx, ev, op, err)
			}
		}
		return nil
	})
}

// clash says what a change that the server refuses meets; err is its answer.
func (s *session) clash(ctx context.Context, tx *change.Transaction, ev *change.RowsEvent, op image.Op, err error) error {
	c := &clash{tx: tx, table: ev.Table, after: op.After}
	switch {
	case server.IsDuplicateKey(err) && op.After != nil:
		c.kind = clashUnique
	case server.IsMissingParent(err) && op.After != nil:
		c.kind = clashParent
	case server.IsForeignKey(err) && op.Before != nil:
		c.kind, c.unseen = clashChild, true
	default:
		return err
	}
	img := op.After
	if c.kind == clashChild {
		img = op.Before
	}
	plan, rows, named := s.named(ctx, ev.Table, [][]byte{img})
	if named != nil {
		return errors.Join(named, err)
	}
	key, keyed := s.opt.Keyer.RowKey(ctx, plan.Source(), rows[0])
	if keyed != nil {
		return errors.Join(keyed, err)
	}
	c.key = key
	switch c.kind {
	case clashChild:
		c.parents = []located{{plan, key, rows[0]}}
	case clashUnique:
		if found := s.rivals(ctx, c, plan, op, rows[0]); found != nil {
			return errors.Join(found, err)
		}
	case clashParent, clashStand, clashWhole:
	}
	return c
}

// rivals notes the rows that a unique clash is with, while the transaction is as far as the change that met them.
func (s *session) rivals(ctx context.Context, c *clash, plan *dml.Plan, op image.Op, values []image.Value) error {
	own := []change.Key{c.key}
	if op.Before != nil {
		before, err := image.Values(c.table, op.Before)
		if err != nil {
			return err
		}
		old, err := s.opt.Keyer.RowKey(ctx, plan.Source(), before)
		if err != nil {
			return err
		}
		own = append(own, old)
	}
	found, err := s.holders(ctx, plan, values, own...)
	for _, h := range found {
		c.rivals = append(c.rivals, h.key)
	}
	return err
}

// lockBatch is how many rows one locking SELECT looks at.
const lockBatch = 50

// lock locks every row that the transactions touch and tells which of them exist. Absent ones stay absent until the
// transaction ends.
func (s *session) lock(ctx context.Context, txs []*change.Transaction) (presence, error) {
	found := presence{}
	if err := s.speak(ctx, namesPortable); err != nil {
		return nil, err
	}
	for _, tx := range txs {
		err := tx.Body.Each(func(ev *change.RowsEvent) error {
			if ev.Table.Numbered { // their keys are the origin's alone: nobody else writes them, and none exists here
				return nil
			}
			var keys []change.Key
			var images [][]byte
			add := func(k change.Key, img []byte) {
				if _, seen := found[k]; !seen {
					found[k] = 0
					keys = append(keys, k)
					images = append(images, img)
				}
			}
			for _, r := range ev.Rows {
				if before := ev.Before(r); before != nil {
					add(r.Key, before)
				}
				if after := ev.After(r); after != nil {
					add(r.NewKey, after)
				}
			}
			for len(keys) > 0 {
				n := min(len(keys), lockBatch)
				if err := s.lockRows(ctx, ev.Table, keys[:n], images[:n], found); err != nil {
					return err
				}
				keys, images = keys[n:], images[n:]
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// lockRows asks with one statement which rows exist. Each row is named by the condition on its key, and found again by
// the number of that condition.
func (s *session) lockRows(ctx context.Context, t *change.Table, keys []change.Key, images [][]byte, found presence) error {
	if t.Settles != "" {
		rows, err := s.read(ctx, t, keys, images)
		for key := range rows {
			found[key] = exists
		}
		return err
	}
	plan, err := s.portable.plan(ctx, t)
	if err != nil {
		return err
	}
	query, args, err := plan.Lock(images)
	if err != nil {
		return err
	}
	rows, err := s.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("lock rows of %s: %w", t.Name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var i int
		if err := rows.Scan(&i); err != nil {
			return fmt.Errorf("lock rows of %s: %w", t.Name, err)
		}
		found[keys[i]] = exists
	}
	return rows.Err()
}

func missingRow(err error) bool { return server.IsMissingRow(err) || errors.Is(err, errMissingRow) }
