package applier

import (
	"context"
	"errors"
	"slices"

	"replicator/change"
	"replicator/conflict"
	"replicator/dml"
	"replicator/image"
	"replicator/journal"
	"replicator/server"
)

// parent settles the arrival of a row whose parent is gone: the row goes too, or loses its reference, as the foreign key
// says about the deletion of a parent.
func (w *settlement) parent(ctx context.Context, l *Link) error {
	s, c := w.session, w.clash
	plan, err := s.portable.plan(ctx, c.table)
	if err != nil {
		return err
	}
	values, err := image.Values(c.table, c.after)
	if err != nil {
		return err
	}
	mine, err := s.rows(ctx, plan, [][]image.Value{values})
	if err != nil {
		return err
	}
	missing, err := s.missingParents(ctx, plan, values)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		return errNothingToSettle
	}
	if err := s.lockBelow(ctx, c, mine); err != nil {
		return err
	}
	if err := l.reach(ctx, l.session); err != nil {
		return err
	}
	if applies, err := w.applies(); err != nil || !applies {
		return errors.Join(err, errNothingToSettle)
	}
	parent, winner, err := s.departed(ctx, missing[0], c.table, values)
	if err != nil {
		return err
	}
	lacks := len(s.opt.Index.Lacks(c.tx.Stamp.Context)) > 0
	switch conflict.Orphan(conflict.Change{Stamp: c.tx.Stamp, Known: true}, parent, lacks, !s.opt.CascadesLogged) {
	case conflict.Wait:
		if err := l.awaitOthers(c.tx.Stamp.Context); err != nil {
			return err
		}
		return errUnchecked
	case conflict.Leave, conflict.Hide:
		return errUnchecked
	case conflict.Settle:
	}
	loser := c.side(values)
	after := slices.Clone(values)
	for _, fk := range missing {
		if fk.OnDelete != "SET NULL" {
			return w.refuse(ctx, plan, journal.ParentMissing, mine, winner, loser)
		}
		for _, at := range columns(c.table, fk.Columns) {
			after[at] = image.Value{}
		}
	}
	if err := w.replaced(mine, c.side(after)); err != nil {
		return err
	}
	winner.Row = &journal.Row{Table: c.table, Values: after}
	w.entries = append(w.entries, w.entry(c.table.Name, c.key, loser.Row, journal.ParentMissing, winner, loser))
	w.say(c.table.Name, c.key, journal.ParentMissing, change.Version{})
	put := dml.Change{Kind: change.Insert, After: after}
	if len(mine) > 0 {
		put = dml.Change{Kind: change.Update, Before: values, After: after}
	}
	w.writes = append(w.writes, write{plan: plan, change: put})
	return nil
}

// replaced keeps what the incoming change takes from the target in the form in which it has a place: a row, or the deletion
// of one, that it was not made on top of. The group decided again does not find it any more.
func (w *settlement) replaced(mine []located, winner journal.Side) error {
	s, c := w.session, w.clash
	if len(mine) > 0 {
		return w.overwritten(mine[0], journal.UpdateOriginDiffers, winner)
	}
	known, found, err := s.newest(c.table, c.key)
	if err != nil || !found || c.tx.Stamp.Covers(known.Version) || known.Version == c.tx.Stamp.Version || s.opt.Recent.settled(known.Version) != "" {
		return err
	}
	w.entries = append(w.entries, w.entry(c.table.Name, c.key, winner.Row, journal.UpdateDeleted, winner,
		s.opt.Recent.side(c.table.Name, known.Version, nil)))
	return nil
}

// missingParents finds the foreign keys of a row whose parents do not exist; they stay away until the transaction ends.
func (s *session) missingParents(ctx context.Context, plan *dml.Plan, values []image.Value) ([]server.ForeignKey, error) {
	var missing []server.ForeignKey
	for _, fk := range plan.Target().ForeignKeys {
		parent, parts, tuple, err := s.parentOf(ctx, fk, plan.Source(), values)
		if err != nil {
			return nil, err
		}
		if tuple == nil {
			continue
		}
		found, err := s.where(ctx, parent, parts, [][]image.Value{tuple})
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			missing = append(missing, fk)
		}
	}
	return missing, nil
}

// parentOf names the row that a foreign key of a child leads to; tuple is nil where it leads nowhere.
func (s *session) parentOf(ctx context.Context, fk server.ForeignKey, child *change.Table, values []image.Value) (
	parent *dml.Plan, parts []change.KeyPart, tuple []image.Value, err error,
) {
	if parent, err = s.portable.own(ctx, fk.Parent); err != nil {
		return nil, nil, nil, err
	}
	to := columns(parent.Source(), fk.ParentColumns)
	for i, at := range columns(child, fk.Columns) {
		if at < 0 || to[i] < 0 || values[at].Kind == image.Null {
			return parent, nil, nil, nil
		}
		parts, tuple = append(parts, change.KeyPart{Column: to[i]}), append(tuple, values[at])
	}
	return parent, parts, tuple, nil
}

// departed is the change that removed a parent, as far as it is remembered.
func (s *session) departed(ctx context.Context, fk server.ForeignKey, child *change.Table, values []image.Value) (
	known conflict.Change, side journal.Side, err error,
) {
	parent, parts, tuple, err := s.parentOf(ctx, fk, child, values)
	if err != nil {
		return known, side, err
	}
	row := make([]image.Value, len(parent.Source().Columns))
	for i, p := range parts {
		row[p.Column] = tuple[i]
	}
	for _, p := range parent.Source().PrimaryKey {
		if row[p.Column].Kind == image.Null { // the reference is to another key
			return known, side, nil
		}
	}
	key, err := s.opt.Keyer.RowKey(ctx, parent.Source(), row)
	if err != nil {
		return known, side, err
	}
	known.Stamp, known.Known, err = s.newest(parent.Source(), key)
	return known, s.opt.Recent.side(fk.Parent, known.Stamp.Version, nil), err
}

// child settles the removal of a parent that has children which its origin had not seen.
func (w *settlement) child(ctx context.Context, l *Link) error {
	s, c := w.session, w.clash
	// They are looked for twice: the barrier makes known what has changed those that are locked the first time.
	_, err := s.orphans(ctx, c.tx.Stamp, c.parents, family{unseen: c.unseen, kept: c.kept})
	if err == nil {
		err = l.reach(ctx, l.session)
	}
	if err == nil {
		err = l.awaitOthers(c.tx.Stamp.Context)
	}
	if err != nil {
		return err
	}
	found, err := s.orphans(ctx, c.tx.Stamp, c.parents, family{unseen: c.unseen, kept: c.kept})
	if err != nil {
		return err
	}
	winner := c.side(nil)
	goes, err := w.mentioned()
	if err != nil {
		return err
	}
	found.settle = slices.DeleteFunc(found.settle, func(o orphan) bool { return goes[o.key] })
	return w.dispose(found.settle, winner)
}

// mentioned are the rows that the transaction itself takes away, or takes from their parents: those of its changes that
// will be applied.
func (w *settlement) mentioned() (map[change.Key]bool, error) {
	tx, goes := w.clash.tx, map[change.Key]bool{}
	err := tx.Body.Each(func(ev *change.RowsEvent) error {
		if ev.Kind == change.Insert {
			return nil
		}
		for _, r := range ev.Rows {
			known, found, err := w.session.newest(ev.Table, r.Key)
			if err != nil {
				return err
			}
			if conflict.Decide(tx.Stamp, known, found).Applies() {
				goes[r.Key] = true
			}
		}
		return nil
	})
	return goes, err
}
