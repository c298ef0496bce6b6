package applier

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"replicator/change"
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
	plans  map[planKey]*tablePlan

	checks  foreignKeyChecks
	pending statement
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
	plan *tablePlan
	kind change.RowKind
	rows int
	text []byte
	args []any
}

// newPortableWriter makes a writer for one connection. packet is the target's max_allowed_packet.
func newPortableWriter(conn execer, tables tableFinder, mixed bool, packet int) *portableWriter {
	return &portableWriter{conn: conn, tables: tables, mixed: mixed, packet: packet, plans: map[planKey]*tablePlan{}}
}

func (w *portableWriter) plan(ctx context.Context, source *change.Table) (*tablePlan, error) {
	target, err := w.tables(ctx, source.Name)
	if err != nil {
		return nil, err
	}
	key := planKey{source, target}
	if p, ok := w.plans[key]; ok {
		return p, nil
	}
	p, err := planTable(source, target, w.mixed)
	if err != nil {
		return nil, err
	}
	w.plans[key] = p
	return p, nil
}

func (w *portableWriter) write(ctx context.Context, c rowChanges) error {
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
		if err := w.op(ctx, p, op); err != nil {
			return err
		}
	}
	return nil
}

// setChecks follows the flag of the rows event. MySQL 9.7 logs the rows of a cascade before their parent's, with the flag;
// elsewhere the cascade has to run on the target.
func (w *portableWriter) setChecks(ctx context.Context, ev *change.RowsEvent) error {
	want, text := checksOn, "SET SESSION foreign_key_checks = 1"
	if binary.LittleEndian.Uint16(ev.Data[flagsOffset:])&flagNoForeignKeyChecks != 0 {
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

func (w *portableWriter) op(ctx context.Context, p *tablePlan, op image.Op) error {
	q, err := p.render(op)
	if err != nil {
		return err
	}
	if len(q.text)+q.argBytes()+statementRoom > w.packet {
		return w.tooLarge(p, len(q.text)+q.argBytes())
	}
	s := &w.pending
	joins := s.plan == p && s.kind == op.Kind && s.rows < batchRows && len(s.text)+len(q.text) < min(batchBytes, w.packet-statementRoom) &&
		len(s.args) == 0 && len(q.args) == 0 && !q.loose && p.batch && op.Kind != change.Update
	if joins {
		s.rows++
		s.text = append(append(s.text, separators[op.Kind]...), q.text[q.head:]...)
		return nil
	}
	if err := w.execute(ctx); err != nil {
		return err
	}
	w.pending = statement{plan: p, kind: op.Kind, rows: 1, text: q.text, args: q.args}
	if q.loose {
		return w.executeLoose(ctx)
	}
	return nil
}

func (w *portableWriter) tooLarge(p *tablePlan, need int) error {
	const mib = 1 << 20
	return fault.New(fault.Precondition,
		fmt.Sprintf("set max_allowed_packet on the target to at least %dM", (need+statementRoom+mib-1)/mib),
		"a row change of table %s takes %d bytes, more than the target's max_allowed_packet of %d", p.source.Name, need,
		w.packet)
}

// flush executes what is waiting. Who uses the session next finds foreign keys checked.
func (w *portableWriter) flush(ctx context.Context) error {
	if err := w.execute(ctx); err != nil {
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

func (w *portableWriter) reset() { w.pending, w.checks = statement{}, checksUnknown }

// execute sends the waiting statement and compares how many rows it found with how many it names.
func (w *portableWriter) execute(ctx context.Context) error {
	s := w.pending
	w.pending = statement{}
	if s.rows == 0 {
		return nil
	}
	result, err := w.conn.ExecContext(ctx, string(s.text), s.args...)
	if err != nil {
		return fmt.Errorf("%s rows of table %s: %w", s.kind, s.plan.source.Name, err)
	}
	found, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("%s rows of table %s: %w", s.kind, s.plan.source.Name, err)
	}
	if s.kind != change.Insert && found < int64(s.rows) {
		return fmt.Errorf("%s rows of table %s: %w", s.kind, s.plan.source.Name, errMissingRow)
	}
	return nil
}

// looseMode lets an ENUM take its error value 0, which strict mode refuses. Nothing else can go wrong in it unnoticed:
// the plan has made sure that every other value fits.
const (
	looseMode  = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"
	strictMode = "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"
)

func (w *portableWriter) executeLoose(ctx context.Context) error {
	if _, err := w.conn.ExecContext(ctx, looseMode); err != nil {
		return fmt.Errorf("switch strict mode off: %w", err)
	}
	err := w.execute(ctx)
	if _, back := w.conn.ExecContext(ctx, strictMode); back != nil {
		return errors.Join(err, fmt.Errorf("switch strict mode on: %w", back))
	}
	return err
}

// separators stand between the rows of a statement. Deletes are joined by OR: MariaDB finds no index for a list of tuples.
var separators = map[change.RowKind]string{change.Insert: ",", change.Delete: " OR "}

// rendered is the SQL of one row change. Rows of the same kind are joined by appending what follows head.
type rendered struct {
	text  []byte
	head  int
	args  []any
	loose bool // holds an ENUM's error value
}

func (r *rendered) argBytes() (n int) {
	for _, a := range r.args {
		if b, ok := a.([]byte); ok {
			n += len(b)
		}
	}
	return n
}

func (p *tablePlan) render(op image.Op) (*rendered, error) {
	var before, after []image.Value
	var err error
	if op.Kind != change.Insert {
		if before, err = image.Values(p.source, op.Before); err != nil {
			return nil, err
		}
	}
	if op.Kind != change.Delete {
		if after, err = image.Values(p.source, op.After); err != nil {
			return nil, err
		}
	}
	r := &rendered{}
	switch op.Kind {
	case change.Insert:
		r.text = append(r.text, p.head...)
		r.head = len(r.text)
		err = p.appendTuple(r, after)
	case change.Update:
		r.text = append(append(append(r.text, "UPDATE "...), p.name...), " SET "...)
		if err = p.appendAssignments(r, after); err == nil {
			r.text = append(r.text, " WHERE "...)
			err = p.appendCondition(r, before)
		}
	case change.Delete:
		r.text = append(append(append(r.text, "DELETE FROM "...), p.name...), " WHERE "...)
		r.head = len(r.text)
		err = p.appendCondition(r, before)
	}
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", p.source.Name, err)
	}
	return r, nil
}

func (p *tablePlan) appendTuple(r *rendered, values []image.Value) error {
	separator := byte('(')
	for i := range p.columns {
		if p.columns[i].generated {
			continue
		}
		r.text = append(r.text, separator)
		separator = ','
		if err := p.columns[i].appendValue(r, values); err != nil {
			return err
		}
	}
	r.text = append(r.text, ')')
	return nil
}

// appendAssignments names every column: the row may hold anything, and columns with ON UPDATE would change by themselves.
func (p *tablePlan) appendAssignments(r *rendered, values []image.Value) error {
	separator := ""
	for i := range p.columns {
		if p.columns[i].generated {
			continue
		}
		r.text = append(append(append(r.text, separator...), p.columns[i].quoted...), '=')
		separator = ","
		if err := p.columns[i].appendValue(r, values); err != nil {
			return err
		}
	}
	return nil
}

// appendCondition names a row by its primary key.
func (p *tablePlan) appendCondition(r *rendered, values []image.Value) error {
	r.text = append(r.text, '(')
	for i, k := range p.keys {
		c := &p.columns[k]
		if i > 0 {
			r.text = append(r.text, " AND "...)
		}
		if c.keyPrefix > 0 { // the key holds the first characters only, and the rest may have been changed
			r.text = fmt.Appendf(r.text, "LEFT(%s,%d)=LEFT(", c.quoted, c.keyPrefix)
		} else {
			r.text = append(append(r.text, c.quoted...), '=')
		}
		if err := c.appendValue(r, values); err != nil {
			return err
		}
		if c.keyPrefix > 0 {
			r.text = fmt.Appendf(r.text, ",%d)", c.keyPrefix)
		}
	}
	r.text = append(r.text, ')')
	return nil
}
