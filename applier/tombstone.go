package applier

import (
	"context"
	"fmt"

	"replicator/change"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
)

// own is the plan of a table of the target by its own definition, for rows that were read from it.
func (w *portableWriter) own(ctx context.Context, name change.TableName) (*dml.Plan, error) {
	target, err := w.tables(ctx, name)
	if err != nil {
		return nil, err
	}
	if target == nil {
		return nil, fault.New(fault.Definition, "create the table as it is on the other servers",
			"the target does not have table %s", name)
	}
	if p, ok := w.owns[target]; ok {
		return p, nil
	}
	p, err := dml.NewPlan(dml.TableOf(target), target, false)
	if err != nil {
		return nil, err
	}
	w.owns[target] = p
	return p, nil
}

// buried puts the keys of tombstones into rows of the target's own definition, in which everything else is NULL.
func (w *portableWriter) buried(ctx context.Context, t *change.Table, images [][]byte) (*dml.Plan, [][]image.Value, error) {
	plan, err := w.own(ctx, t.Name)
	if err != nil {
		return nil, nil, err
	}
	rows := make([][]image.Value, len(images))
	for i, img := range images {
		key, values, err := image.DecodeKey(t.Name, img)
		if err != nil {
			return nil, nil, err
		}
		row := make([]image.Value, len(plan.Source().Columns))
		for j := range key.Columns {
			at := columns(plan.Source(), []string{key.Columns[j].Name})[0]
			if at < 0 {
				return nil, nil, fault.New(fault.Definition, "make the definitions of the table equal on all servers",
					"table %s has no column %s on the target, which is part of its key elsewhere", t.Name, key.Columns[j].Name)
			}
			row[at] = values[j]
		}
		rows[i] = row
	}
	return plan, rows, nil
}

// bury removes the rows that tombstones name.
func (w *portableWriter) bury(ctx context.Context, c rowChanges) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	for _, op := range c.Ops {
		plan, rows, err := w.buried(ctx, c.Event.Table, [][]byte{op.Before})
		if err != nil {
			return err
		}
		statement, err := plan.Render(dml.Change{Kind: change.Delete, Before: rows[0]})
		if err != nil {
			return err
		}
		if err := w.run(ctx, statement); err != nil {
			return fmt.Errorf("delete a row of table %s: %w", c.Event.Table.Name, err)
		}
	}
	return nil
}

// run executes one statement by itself.
func (w *portableWriter) run(ctx context.Context, s *dml.Statement) error {
	exec := func() error {
		_, err := w.conn.ExecContext(ctx, string(s.Text), s.Args...)
		return err
	}
	if s.Loose {
		return w.loosely(ctx, exec)
	}
	return exec()
}
