package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"replicator/change"
	"replicator/conflict"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/server"
)

// reference is a foreign key that leads to a table.
type reference struct {
	child *server.Table
	key   server.ForeignKey
}

// References returns the foreign keys that lead to a table of the target.
func (d *Definitions) References(ctx context.Context, q server.Querier, parent change.TableName) ([]reference, error) {
	d.mu.Lock()
	epoch := d.epoch
	found, known := d.references[parent]
	d.mu.Unlock()
	if known {
		return found, nil
	}
	asked, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	children, err := server.Referencing(asked, q, parent)
	if err != nil {
		return nil, err
	}
	for _, name := range children {
		child, err := d.Table(ctx, q, name)
		if err != nil {
			return nil, err
		}
		if child == nil {
			continue
		}
		for _, fk := range child.ForeignKeys {
			if strings.EqualFold(fk.Parent.Database, parent.Database) && strings.EqualFold(fk.Parent.Table, parent.Table) {
				found = append(found, reference{child, fk})
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch == epoch {
		d.references[parent] = found
	}
	return found, nil
}

// located is a row of the target with all its values.
type located struct {
	plan   *dml.Plan
	key    change.Key
	values []image.Value
}

// orphan is a child that a parent's removal would leave behind, or take with it although its origin had not seen it.
type orphan struct {
	located
	null []int // columns that are to become NULL; none: the row goes
}

// orphans are what a change that removes parents means for the rows below them.
type orphans struct {
	settle []orphan     // leave, or lose their reference, by a published write
	hide   []orphan     // the same in the group itself: the server's foreign keys would not do it
	leave  bool         // some stay: their parent is on its way back
	locked int          // how many rows were found
	gone   []change.Key // those that go with their parents, by the server's foreign keys or hidden
}

// orphans finds and locks the rows below parents that a change with this stamp removes, and decides about them by
// conflict.Below. Those that are to go with their parent are mostly the server's business: it does the same on every
// server. f says how.
func (s *session) orphans(ctx context.Context, stamp change.Stamp, parents []located, f family) (orphans, error) {
	o := orphanage{session: s, stamp: stamp, seen: map[change.Key]bool{}, family: f}
	for _, p := range parents {
		o.seen[p.key] = true
	}
	err := o.collect(ctx, parents, f.unseen)
	o.found.locked = len(o.seen) - len(parents)
	return o.found, err
}

// family says how the rows below others are to be looked at.
type family struct {
	unseen    bool // every child is to be settled: the parent is itself removed by a published write
	unchecked bool // the server will not do anything by itself
	kept      bool // the parent stays: only what the source's own foreign keys have taken along goes
}

type orphanage struct {
	session *session
	stamp   change.Stamp
	seen    map[change.Key]bool
	family
	found orphans
}

func (o *orphanage) collect(ctx context.Context, parents []located, unseen bool) error {
	if len(parents) == 0 {
		return nil
	}
	s := o.session
	references, err := s.opt.Definitions.References(ctx, s.opt.Server.DB(), parents[0].plan.Source().Name)
	if err != nil {
		return err
	}
	for _, ref := range references {
		if o.kept && ref.key.OnDelete != "CASCADE" && ref.key.OnDelete != "SET NULL" {
			continue
		}
		children, err := s.children(ctx, ref, parents)
		if err != nil {
			return err
		}
		var hidden, gone []located
		for _, c := range children {
			if o.seen[c.key] {
				continue
			}
			o.seen[c.key] = true
			fate := conflict.Settle
			if !unseen {
				if fate, err = o.fate(c); err != nil {
					return err
				}
			}
			var null []int
			if ref.key.OnDelete == "SET NULL" {
				null = columns(c.plan.Source(), ref.key.Columns)
			}
			switch {
			case fate == conflict.Settle && null != nil:
				o.found.settle = append(o.found.settle, orphan{c, null})
			case fate == conflict.Settle:
				gone = append(gone, c)
			case fate != conflict.Hide:
				o.found.leave = true
			case null == nil:
				hidden = append(hidden, c)
			case o.unchecked:
				o.found.hide = append(o.found.hide, orphan{c, null})
			}
		}
		if err := o.below(ctx, ref, hidden, gone); err != nil {
			return err
		}
	}
	return nil
}

// below goes on with the children of rows that go; they come behind their own children.
func (o *orphanage) below(ctx context.Context, ref reference, hidden, gone []located) error {
	if err := o.collect(ctx, hidden, false); err != nil {
		return err
	}
	if err := o.collect(ctx, gone, true); err != nil {
		return err
	}
	for _, c := range gone {
		o.found.settle = append(o.found.settle, orphan{located: c})
	}
	for _, c := range hidden {
		o.found.gone = append(o.found.gone, c.key)
	}
	if ref.key.OnDelete == "CASCADE" && !o.unchecked {
		return nil
	}
	for _, c := range hidden {
		o.found.hide = append(o.found.hide, orphan{located: c})
	}
	return nil
}

// fate decides about a child of a row that the change removes.
func (o *orphanage) fate(c located) (conflict.Fate, error) {
	opt := &o.session.opt
	known, found, err := o.session.newest(c.plan.Source(), c.key)
	if err != nil {
		return 0, err
	}
	deletion := conflict.Change{Stamp: o.stamp, Known: true}
	fate := conflict.Below(conflict.Change{Stamp: known, Known: found}, deletion, opt.LogsCascades)
	if fate == conflict.Leave && len(opt.Index.Lacks(known.Context)) == 0 && len(opt.Index.Lacks(o.stamp.Context)) == 0 {
		return conflict.Settle, nil // nothing is on its way: the servers differed
	}
	return fate, nil
}

// children reads and locks the rows that refer to parents by one foreign key.
func (s *session) children(ctx context.Context, ref reference, parents []located) ([]located, error) {
	plan, err := s.portable.own(ctx, ref.child.Name)
	if err != nil {
		return nil, err
	}
	parts := make([]change.KeyPart, len(ref.key.Columns))
	for i, c := range columns(plan.Source(), ref.key.Columns) {
		parts[i].Column = c
	}
	from := columns(parents[0].plan.Source(), ref.key.ParentColumns)
	var tuples [][]image.Value
	for _, p := range parents {
		tuple := make([]image.Value, len(from))
		null := false
		for i, c := range from {
			if c < 0 {
				return nil, fault.New(fault.Definition, "make the definitions of the table equal on both servers",
					"table %s refers to columns of %s that the source does not have", ref.child.Name, p.plan.Source().Name)
			}
			tuple[i] = p.values[c]
			null = null || tuple[i].Kind == image.Null
		}
		if !null {
			tuples = append(tuples, tuple)
		}
	}
	var all []located
	for len(tuples) > 0 {
		n := min(len(tuples), lockBatch)
		found, err := s.where(ctx, plan, parts, tuples[:n])
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
		tuples = tuples[n:]
	}
	return all, nil
}

// where reads and locks rows by the values of some columns.
func (s *session) where(ctx context.Context, plan *dml.Plan, parts []change.KeyPart, tuples [][]image.Value) ([]located, error) {
	if err := s.speak(ctx, namesPortable); err != nil {
		return nil, err
	}
	query, err := plan.SelectWhere(parts, tuples, dml.Options{Lock: true})
	if err != nil {
		return nil, err
	}
	found, err := query.Run(ctx, s.conn)
	if err != nil {
		return nil, err
	}
	return s.locate(ctx, plan, found)
}

// locate computes the keys of rows that were read.
func (s *session) locate(ctx context.Context, plan *dml.Plan, found []dml.Found) ([]located, error) {
	all := make([]located, len(found))
	for i, f := range found {
		key, err := s.opt.Keyer.RowKey(ctx, plan.Source(), f.Values)
		if err != nil {
			return nil, fmt.Errorf("compute the key of a row: %w", err)
		}
		all[i] = located{plan, key, f.Values}
	}
	return all, nil
}

// columns finds columns by name; -1 is none.
func columns(t *change.Table, names []string) []int {
	at := make([]int, len(names))
	for i, name := range names {
		at[i] = -1
		for j := range t.Columns {
			if strings.EqualFold(t.Columns[j].Name, name) {
				at[i] = j
			}
		}
	}
	return at
}

// guard looks at the rows below those that an event removes, or that it does not bring because something newer has removed
// them. Nothing has been written for the event yet; what the group wrote before has been sent. The error is a *clash when
// the conflict must be settled first.
func (s *session) guard(ctx context.Context, tx *change.Transaction, ev *change.RowsEvent, x *execution, unchecked bool) error {
	gone, kept, err := s.removed(ev, x)
	if err != nil {
		return err
	}
	if err := s.guardBelow(ctx, tx, ev.Table, x, gone, family{unchecked: unchecked}); err != nil {
		return err
	}
	return s.guardBelow(ctx, tx, ev.Table, x, kept, family{unchecked: true, kept: true})
}

// removed names the rows that will not be there behind an event. kept are those whose deletion is not applied although its
// source's own foreign keys took their children along, and did not log it.
func (s *session) removed(ev *change.RowsEvent, x *execution) (gone, kept batch, err error) {
	i := x.cursor
	for _, r := range ev.Rows {
		applies := i < len(x.decisions.verdicts) && x.decisions.verdicts[i].Applies()
		if err := x.registers.touches(ev, r, func(touch) error { i++; return nil }); err != nil {
			return gone, kept, err
		}
		switch {
		case ev.Kind == change.Delete && applies:
			gone.add(r.Key, ev.Before(r))
		case ev.Kind == change.Delete && !s.opt.LogsCascades && ev.Table.Settles == "":
			kept.add(r.Key, ev.Before(r))
		case ev.Kind != change.Delete && !applies && !x.present.has(r.Key):
			gone.add(r.NewKey, ev.After(r))
		}
	}
	return gone, kept, nil
}

func (s *session) guardBelow(ctx context.Context, tx *change.Transaction, t *change.Table, x *execution, gone batch, f family) error {
	if len(gone.keys) == 0 {
		return nil
	}
	plan, rows, err := s.named(ctx, t, gone.images)
	if err != nil {
		return err
	}
	parents := make([]located, len(rows))
	for i := range rows {
		parents[i] = located{plan, gone.keys[i], rows[i]}
	}
	found, err := s.orphans(ctx, tx.Stamp, parents, f)
	if err != nil || found.locked == 0 {
		return err
	}
	if err := x.reach(ctx); err != nil { // the children are locked only now
		return err
	}
	if found, err = s.orphans(ctx, tx.Stamp, parents, f); err != nil {
		return err
	}
	switch {
	case len(found.settle) > 0:
		return &clash{kind: clashChild, tx: tx, parents: parents, kept: f.kept}
	case found.leave && !f.unchecked:
		return errUnchecked
	case !s.opt.LogsCascades: // what the source's own cascade took along is known only when everything else is
		if err := x.await(tx.Stamp.Context); err != nil {
			return err
		}
	}
	for _, key := range found.gone {
		x.present.set(key, false)
	}
	return s.hide(ctx, found.hide)
}

// hide takes rows away in the group itself.
func (s *session) hide(ctx context.Context, rows []orphan) error {
	for _, o := range rows {
		c := dml.Change{Kind: change.Delete, Before: o.values}
		if o.null != nil {
			c = dml.Change{Kind: change.Update, Before: o.values, After: o.without(), Only: o.null}
		}
		statement, err := o.plan.Render(c)
		if err == nil {
			err = s.speak(ctx, namesPortable)
		}
		if err == nil {
			err = s.portable.run(ctx, statement)
		}
		if err != nil {
			return fmt.Errorf("take away a row of table %s whose parent is gone: %w", o.plan.Source().Name, err)
		}
	}
	return nil
}

// without is the row without its reference.
func (o *orphan) without() []image.Value {
	values := slices.Clone(o.values)
	for _, c := range o.null {
		values[c] = image.Value{}
	}
	return values
}

// isParent reports whether rows of other tables refer to rows of this one.
func (s *session) isParent(ctx context.Context, name change.TableName) (bool, error) {
	references, err := s.opt.Definitions.References(ctx, s.opt.Server.DB(), name)
	return len(references) > 0, err
}
