package applier

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

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
	plan *dml.Plan
	kind change.RowKind
	rows int
	text []byte
	args []any
}

// newPortableWriter makes a writer for one connection. packet is the target's max_allowed_packet.
func newPortableWriter(conn execer, tables tableFinder, mixed bool, packet int) *portableWriter {
	return &portableWriter{conn: conn, tables: tables, mixed: mixed, packet: packet, plans: map[planKey]*dml.Plan{}, owns: map[*server.Table]*dml.Plan{}}
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
		if c.Event.Table.Numbered { // what the group did to the same row before does not tell which one it is here
			op = image.Op{Kind: change.Insert, After: op.After}
		}
		if err := w.op(ctx, p, op); err != nil {
			return err
		}
	}
	return nil
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
	if len(q.Text)+q.ArgBytes()+statementRoom > w.packet {
		return w.tooLarge(p, len(q.Text)+q.ArgBytes())
	}
	s := &w.pending
	joins := s.plan == p && s.kind == op.Kind && s.rows < batchRows && len(s.text)+len(q.Text) < min(batchBytes, w.packet-statementRoom) &&
		len(s.args) == 0 && len(q.Args) == 0 && !q.Loose && p.Batch() && op.Kind != change.Update
	if joins {
		s.rows++
		s.text = append(append(s.text, separators[op.Kind]...), q.Text[q.Head:]...)
		return nil
	}
	if err := w.execute(ctx); err != nil {
		return err
	}
	w.pending = statement{plan: p, kind: op.Kind, rows: 1, text: q.Text, args: q.Args}
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

// separators stand between the rows of a statement. Deletes are joined by OR: MariaDB finds no index for a list of tuples.
var separators = map[change.RowKind]string{change.Insert: ",", change.Delete: " OR "}
