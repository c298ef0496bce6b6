package applier

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"replicator/change"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/server"
)

// errMissingRow says that an UPDATE or DELETE of the portable path did not find its row; on the replay path the server
// itself says so, with error 1032.
var errMissingRow = errors.New("the row to be changed does not exist on the target")

const (
	flagNoForeignKeyChecks = 0x2
	flagsOffset            = 19 + 6 // behind header and table id of a rows event

	batchRows = 500
)

// tableFinder gives a target's definition of a table, nil when it does not exist there.
type tableFinder func(ctx context.Context, name change.TableName) (*server.Table, error)

// portableWriter carries changes out as SQL: where source and target differ in flavor or definition, or the target may
// not run BINLOG. Columns are matched by name. The session must have the settings of package server: strict sql_mode that
// takes zero and invalid dates, time_zone +00:00, clientFoundRows. Errors of rows are the server's own (1062 and so on),
// and errMissingRow.
type portableWriter struct {
	conn   execer
	tables tableFinder
	mixed  bool // source and target are of different flavors
	packet int  // the target's max_allowed_packet
	plans  map[planKey]*dml.Plan
	owns   map[*server.Table]*dml.Plan

	checks  foreignKeyChecks
	pending *statement // waits for further rows, in their order
	listing server.Listing
	sorter  *sorter
	// ahead lets the writer keep back what it is given until it is flushed, and use the order that is cheapest: nobody looks
	// at rows meanwhile.
	ahead bool
}

type planKey struct {
	source *change.Table
	target *server.Table
}

// foreignKeyChecks is the session's setting, as far as it is known.
type foreignKeyChecks uint8

const (
	checksUnknown foreignKeyChecks = iota
	checksOn
	checksOff
)

// statement is one that waits for more rows of its kind.
type statement struct {
	statementKind
	rows            int
	text            []byte
	args            []any
	separator, tail string
}

// newStatement begins a statement that may be kept for longer than the rows event that r comes from.
func newStatement(k statementKind, r *dml.Statement) *statement {
	s := &statement{
		statementKind: k, rows: 1, text: bytes.Clone(r.Text), args: slices.Clone(r.Args), separator: r.Separator, tail: r.Tail,
	}
	for i, a := range s.args {
		if b, ok := a.([]byte); ok {
			s.args[i] = bytes.Clone(b)
		}
	}
	return s
}

// takes reports whether one more row of the same kind and form has room in the statement.
func (s *statement) takes(r *dml.Statement, most int) bool {
	return s.separator == r.Separator && s.tail == r.Tail && s.rows < batchRows && len(s.text)+len(r.Text) < most
}

func (s *statement) append(r *dml.Statement) {
	s.rows++
	s.text = append(append(s.text, s.separator...), r.Text[r.Head:]...)
}

// newPortableWriter makes a writer for one connection. packet is the target's max_allowed_packet.
func newPortableWriter(conn execer, tables tableFinder, mixed bool, packet int, listing server.Listing, o *sorter) *portableWriter {
	return &portableWriter{
		conn: conn, tables: tables, mixed: mixed, packet: packet, plans: map[planKey]*dml.Plan{}, owns: map[*server.Table]*dml.Plan{},
		listing: listing, sorter: o,
	}
}

func (w *portableWriter) plan(ctx context.Context, source *change.Table) (*dml.Plan, error) {
	target, err := w.tables(ctx, source.Name)
	if err != nil {
		return nil, err
	}
	key := planKey{source, target}
	if p, ok := w.plans[key]; ok {
		return p, nil
	}
	p, err := dml.NewPlan(source, target, w.mixed)
	if err != nil {
		return nil, err
	}
	w.plans[key] = p
	return p, nil
}

func (w *portableWriter) write(ctx context.Context, c rowChanges) error {
	if c.Event.Table.Settles == "" && w.ahead && c.Ops == nil {
		if takes, err := w.sorter.takes(ctx, c.Event.Table); err != nil {
			return err
		} else if takes {
			return w.gather(ctx, c.Event)
		}
	}
	if err := w.executeSorted(ctx); err != nil {
		return err
	}
	if c.Event.Table.Settles != "" {
		return w.bury(ctx, c)
	}
	p, err := w.plan(ctx, c.Event.Table)
	if err != nil {
		return err
	}
	if err := w.setChecks(ctx, c.Event); err != nil {
		return err
	}
	ops := c.Ops
	if ops == nil {
		ops = make([]image.Op, len(c.Event.Rows))
		for i, r := range c.Event.Rows {
			ops[i] = image.Op{Kind: c.Event.Kind, Before: c.Event.Before(r), After: c.Event.After(r)}
		}
	}
	for _, op := range ops {
		if err := w.op(ctx, p, numbered(c.Event.Table, op)); err != nil {
			return err
		}
	}
	return nil
}

// numbered is what becomes of a change where each server numbers its rows by itself: what the group did to the same row
// before does not tell which one it is here.
func numbered(t *change.Table, op image.Op) image.Op {
	if t.Numbered {
		return image.Op{Kind: change.Insert, After: op.After}
	}
	return op
}

// gather gives the changes of an event to the sorter. Foreign keys play no part in them.
func (w *portableWriter) gather(ctx context.Context, ev *change.RowsEvent) error {
	if err := w.execute(ctx); err != nil {
		return err
	}
	p, err := w.plan(ctx, ev.Table)
	if err != nil {
		return err
	}
	for _, r := range ev.Rows {
		op := numbered(ev.Table, image.Op{Kind: ev.Kind, Before: ev.Before(r), After: ev.After(r)})
		q := &w.sorter.row
		if err := p.RenderMany(q, op, w.listing); err != nil {
			return err
		}
		size := len(q.Text) + len(q.Tail) + q.ArgBytes()
		if size+statementRoom > w.packet {
			return w.tooLarge(p, size)
		}
		if q.Loose || w.sorter.bytes+size > sorterMost {
			if err := w.executeSorted(ctx); err != nil {
				return err
			}
		}
		if q.Loose {
			one := newStatement(statementKind{p, op.Kind}, q)
			if err := w.loosely(ctx, func() error { return w.send(ctx, one) }); err != nil {
				return err
			}
			continue
		}
		l, err := w.sorter.place(ctx, ev, r)
		if err != nil {
			return err
		}
		w.sorter.add(l, statementKind{p, op.Kind}, w.most()-len(q.Tail))
	}
	return nil
}

// most is how long a statement of several rows may be.
func (w *portableWriter) most() int { return min(batchBytes, w.packet-statementRoom) }

// executeSorted sends what the sorter holds.
func (w *portableWriter) executeSorted(ctx context.Context) error {
	return w.sorter.each(func(s *statement) error { return w.send(ctx, s) })
}

// setChecks follows the flag of the rows event. MySQL 9.7 logs the rows of a cascade before their parent's, with the flag;
// elsewhere the cascade has to run on the target.
func (w *portableWriter) setChecks(ctx context.Context, ev *change.RowsEvent) error {
	return w.check(ctx, binary.LittleEndian.Uint16(ev.Data[flagsOffset:])&flagNoForeignKeyChecks == 0)
}

// check switches foreign key checks on or off for what follows.
func (w *portableWriter) check(ctx context.Context, on bool) error {
	want, text := checksOn, "SET SESSION foreign_key_checks = 1"
	if !on {
		want, text = checksOff, "SET SESSION foreign_key_checks = 0"
	}
	if w.checks == want {
		return nil
	}
	if err := w.execute(ctx); err != nil {
		return err
	}
	if _, err := w.conn.ExecContext(ctx, text); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	w.checks = want
	return nil
}

func (w *portableWriter) op(ctx context.Context, p *dml.Plan, op image.Op) error {
	q, err := p.RenderOp(op)
	if err != nil {
		return err
	}
	return w.queue(ctx, p, op.Kind, q)
}

// queue takes a statement, which may wait for others of its kind.
func (w *portableWriter) queue(ctx context.Context, p *dml.Plan, kind change.RowKind, q *dml.Statement) error {
	if len(q.Text)+q.ArgBytes()+statementRoom > w.packet {
		return w.tooLarge(p, len(q.Text)+q.ArgBytes())
	}
	if s := w.pending; s != nil && s.statementKind == (statementKind{p, kind}) && len(s.args) == 0 && len(q.Args) == 0 && !q.Loose &&
		(p.Batch() || w.checks == checksOff) && kind != change.Update && s.takes(q, w.most()) {
		s.append(q)
		return nil
	}
	if err := w.execute(ctx); err != nil {
		return err
	}
	w.pending = newStatement(statementKind{p, kind}, q)
	if q.Loose {
		return w.loosely(ctx, func() error { return w.execute(ctx) })
	}
	return nil
}

func (w *portableWriter) tooLarge(p *dml.Plan, need int) error {
	const mib = 1 << 20
	return fault.New(fault.Precondition,
		fmt.Sprintf("set max_allowed_packet on the target to at least %dM", (need+statementRoom+mib-1)/mib),
		"a row change of table %s takes %d bytes, more than the target's max_allowed_packet of %d", p.Source().Name, need,
		w.packet)
}

// flush executes what is waiting. Who uses the session next finds foreign keys checked.
func (w *portableWriter) flush(ctx context.Context) error {
	if err := w.execute(ctx); err != nil {
		return err
	}
	if err := w.executeSorted(ctx); err != nil {
		return err
	}
	if w.checks == checksOff {
		if _, err := w.conn.ExecContext(ctx, "SET SESSION foreign_key_checks = 1"); err != nil {
			return fmt.Errorf("switch foreign key checks on: %w", err)
		}
	}
	w.checks = checksUnknown // replayed events leave their own setting behind
	return nil
}

func (w *portableWriter) reset() {
	w.pending, w.checks = nil, checksUnknown
	w.sorter.reset()
}

// execute sends the statement that waits for further rows.
func (w *portableWriter) execute(ctx context.Context) error {
	s := w.pending
	w.pending = nil
	if s == nil {
		return nil
	}
	return w.send(ctx, s)
}

// send executes a statement and compares how many rows it found with how many it names.
func (w *portableWriter) send(ctx context.Context, s *statement) error {
	result, err := w.conn.ExecContext(ctx, string(append(s.text, s.tail...)), s.args...)
	if err != nil {
		return fmt.Errorf("%s rows of table %s: %w", s.kind, s.plan.Source().Name, err)
	}
	found, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("%s rows of table %s: %w", s.kind, s.plan.Source().Name, err)
	}
	if s.kind != change.Insert && found < int64(s.rows) {
		return fmt.Errorf("%s rows of table %s: %w", s.kind, s.plan.Source().Name, errMissingRow)
	}
	return nil
}

// looseMode lets an ENUM take its error value 0, which strict mode refuses. Nothing else can go wrong in it unnoticed:
// the plan has made sure that every other value fits.
const (
	looseMode  = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"
	strictMode = "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"
)

func (w *portableWriter) loosely(ctx context.Context, exec func() error) error {
	if _, err := w.conn.ExecContext(ctx, looseMode); err != nil {
		return fmt.Errorf("switch strict mode off: %w", err)
	}
	err := exec()
	if _, back := w.conn.ExecContext(ctx, strictMode); back != nil {
		return errors.Join(err, fmt.Errorf("switch strict mode on: %w", back))
	}
	return err
}
