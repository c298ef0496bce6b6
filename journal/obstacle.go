package journal

import (
	"context"
	"strings"

	"replicator/change"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/server"
)

// inTheWay finds the row because of which the server refused a restore; nil when that is not why, or it cannot be found.
// old is the row that was to be replaced.
func (x *restorer) inTheWay(ctx context.Context, err error, old *Row) error {
	var find func(context.Context, *Row) (error, error)
	switch {
	case server.IsDuplicateKey(err):
		find = x.sameUnique
	case server.IsForeignKey(err) && !x.delete:
		find = x.missingParent
	case !server.IsForeignKey(err):
		return nil
	}
	if find != nil {
		if found, failed := find(ctx, old); failed == nil && found != nil {
			return found
		}
	}
	if server.IsForeignKey(err) {
		if found, failed := x.child(ctx, old); failed == nil && found != nil {
			return found
		}
	}
	return nil
}

// after is the row as the restore would leave it.
func (x *restorer) after(old *Row) []image.Value {
	if x.only == nil {
		return x.want.Values
	}
	values := append([]image.Value(nil), old.Values...)
	for _, i := range x.only {
		values[i] = x.want.Values[i]
	}
	return values
}

// sameUnique looks for another row with the same value of a secondary unique key.
func (x *restorer) sameUnique(ctx context.Context, old *Row) (found, failed error) {
	values := x.after(old)
	for _, key := range x.target.UniqueKeys {
		names := make([]string, len(key.Parts))
		for i, p := range key.Parts {
			if p.Column >= 0 {
				names[i] = x.target.Columns[p.Column].Name
			}
		}
		parts, tuple := pick(x.want, values, names)
		if parts == nil {
			continue
		}
		for i := range parts {
			parts[i].Prefix = key.Parts[i].Prefix
		}
		rows, err := search(ctx, x, x.plan, parts, tuple)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if text := r.KeyText(); old == nil || text != old.KeyText() {
				remedy := "change or delete that row first"
				if old != nil {
					remedy += ", or restore without the columns of that key (--columns)"
				}
				return fault.New(fault.Row, remedy,
					"row %s of %s on %s is in the way: it has the same value of the unique key %s (%s)", text, x.record.Table, x.server.Name,
					key.Name, strings.Join(names, ", ")), nil
			}
		}
	}
	return nil, nil
}

// missingParent looks for a foreign key whose parent does not exist.
func (x *restorer) missingParent(ctx context.Context, old *Row) (found, failed error) {
	values := x.after(old)
	for _, fk := range x.target.ForeignKeys {
		_, tuple := pick(x.want, values, fk.Columns)
		if tuple == nil {
			continue
		}
		parent, rows, err := x.related(ctx, fk.Parent, fk.ParentColumns, tuple)
		if err != nil {
			return nil, err
		}
		if parent != nil && len(rows) == 0 {
			return fault.New(fault.Row, "restore or insert that row first",
				"the parent of row %s of %s does not exist on %s: table %s has no row with %s (foreign key %s)", x.record.Key, x.record.Table,
				x.server.Name, fk.Parent, equations(parent, fk.ParentColumns, tuple), fk.Name), nil
		}
	}
	return nil, nil
}

// child looks for a row that refers to the one that is to be deleted or changed.
func (x *restorer) child(ctx context.Context, old *Row) (found, failed error) {
	if old == nil {
		return nil, nil
	}
	children, err := server.Referencing(ctx, x.conn, x.record.Table)
	if err != nil {
		return nil, err
	}
	for _, name := range children {
		table, err := server.OneTable(ctx, x.conn, name)
		if err != nil || table == nil {
			return nil, err
		}
		for _, fk := range table.ForeignKeys {
			if fk.Parent != x.record.Table || fk.OnDelete == "CASCADE" || fk.OnDelete == "SET NULL" {
				continue
			}
			_, tuple := pick(old, old.Values, fk.ParentColumns)
			if tuple == nil {
				continue
			}
			_, rows, err := x.related(ctx, name, fk.Columns, tuple)
			if err != nil {
				return nil, err
			}
			if len(rows) > 0 {
				return fault.New(fault.Row, "change or delete that row first",
					"row %s of %s on %s is in the way: it refers to row %s of %s (foreign key %s)", rows[0].KeyText(), name, x.server.Name,
					x.record.Key, x.record.Table, fk.Name), nil
			}
		}
	}
	return nil, nil
}

// pick takes the named columns of a row as a condition; nil when one of them is NULL or not there.
func pick(r *Row, values []image.Value, names []string) (parts []change.KeyPart, tuple []image.Value) {
	for _, name := range names {
		at := r.column(name)
		if at < 0 || values[at].Kind == image.Null {
			return nil, nil
		}
		parts = append(parts, change.KeyPart{Column: at})
		tuple = append(tuple, values[at])
	}
	return parts, tuple
}

// related reads the rows of another table whose columns have the values.
func (x *restorer) related(ctx context.Context, name change.TableName, columns []string, tuple []image.Value) (*change.Table, []*Row, error) {
	target, err := server.OneTable(ctx, x.conn, name)
	if err != nil || target == nil {
		return nil, nil, err
	}
	table := dml.TableOf(target)
	plan, err := dml.NewPlan(table, target, false)
	if err != nil {
		return nil, nil, err
	}
	parts := make([]change.KeyPart, len(columns))
	for i, c := range columns {
		parts[i].Column = target.Column(c)
		if parts[i].Column < 0 {
			return nil, nil, nil
		}
	}
	rows, err := search(ctx, x, plan, parts, tuple)
	return table, rows, err
}

// fewRows is how many rows in the way are read: one and the row itself would do.
const fewRows = 3

func search(ctx context.Context, x *restorer, plan *dml.Plan, parts []change.KeyPart, tuple []image.Value) ([]*Row, error) {
	q, err := plan.SelectWhere(parts, [][]image.Value{tuple}, dml.Options{Limit: fewRows})
	if err != nil {
		return nil, err
	}
	found, err := q.Run(ctx, x.conn)
	if err != nil {
		return nil, err
	}
	var rows []*Row
	for _, f := range found {
		rows = append(rows, &Row{Table: plan.Source(), Values: f.Values})
	}
	return rows, nil
}

// equations print "id = 5".
func equations(t *change.Table, columns []string, tuple []image.Value) string {
	var all []string
	for i, name := range columns {
		for j := range t.Columns {
			if strings.EqualFold(t.Columns[j].Name, name) {
				all = append(all, name+" = "+image.Print(&t.Columns[j], tuple[i]))
			}
		}
	}
	return strings.Join(all, ", ")
}
