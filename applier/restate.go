package applier

import (
	"context"

	"replicator/change"
	"replicator/conflict"
	"replicator/dml"
	"replicator/image"
	"replicator/journal"
)

// stand writes a value of the target's own again that a concurrent change would overwrite: as an ordinary change, newer
// than what it stands against. The row is removed and inserted again, because servers do not log an update that changes
// nothing.
func (w *settlement) stand(ctx context.Context, l *Link) error {
	s, c := w.session, w.clash
	plan, err := s.portable.plan(ctx, c.table)
	if err != nil {
		return err
	}
	values, err := image.Values(c.table, c.before)
	if err != nil {
		return err
	}
	mine, err := s.rows(ctx, plan, [][]image.Value{values})
	if err == nil {
		err = l.reach(ctx, l.session)
	}
	if err != nil {
		return err
	}
	known, found, err := s.opt.Index.Lookup(c.key)
	if err != nil {
		return err
	}
	original := s.opt.Index.Original(c.key, known.Version)
	if conflict.Decide(c.tx.Stamp, known, found) != conflict.ApplyOver || !s.opt.Prefers(c.table.Name, original, stated(c.tx, c.key)) {
		return errNothingToSettle
	}
	w.say(c.table.Name, c.key, journal.UpdateOriginDiffers, original)
	if len(mine) == 0 {
		return w.bury(plan.Source(), c.key, values, journal.DeleteOriginDiffers, change.Version{})
	}
	w.restate(mine[0])
	return nil
}

// restate writes a row again as it is.
func (w *settlement) restate(row located) {
	w.writes = append(w.writes,
		write{plan: row.plan, change: dml.Change{Kind: change.Delete, Before: row.values}, again: true},
		write{plan: row.plan, change: dml.Change{Kind: change.Insert, After: row.values}, again: true})
}

// whole settles the meeting of a deletion with changes of single columns that it did not see: the row stays, or comes back,
// with all of its columns.
func (w *settlement) whole(ctx context.Context, l *Link) error {
	s, c := w.session, w.clash
	plan, err := s.portable.plan(ctx, c.table)
	if err != nil {
		return err
	}
	named, err := image.Values(c.table, c.before)
	if err != nil {
		return err
	}
	mine, err := s.rows(ctx, plan, [][]image.Value{named})
	if err == nil {
		err = l.reach(ctx, l.session)
	}
	if err != nil {
		return err
	}
	if c.after == nil {
		return w.stay(plan.Source(), mine)
	}
	row, err := lookup(s.opt.Index, c.key)
	if err != nil {
		return err
	}
	if len(mine) > 0 || conflict.MergeUpdate(c.tx.Stamp, row, false) != conflict.Resurrect {
		return errNothingToSettle
	}
	winner := c.side(named)
	w.entries = append(w.entries, w.entry(c.table.Name, c.key, winner.Row, journal.UpdateDeleted, winner,
		s.opt.Recent.side(c.table.Name, row.Stamp.Version, nil)))
	w.say(c.table.Name, c.key, journal.UpdateDeleted, change.Version{})
	w.writes = append(w.writes, write{plan: plan, change: dml.Change{Kind: change.Insert, After: named}})
	return nil
}

// stay states a row again against a deletion that did not see the newest change of one of its columns.
func (w *settlement) stay(table *change.Table, mine []located) error {
	s, c := w.session, w.clash
	end := s.opt.Registers.of(table).whole(c.key)
	end.ends = true
	m, err := end.merge(s.opt.Index, c.tx.Stamp)
	if err != nil {
		return err
	}
	if !m.keep || len(mine) == 0 {
		return errNothingToSettle
	}
	w.say(table.Name, c.key, journal.DeleteOriginDiffers, s.opt.Recent.original(m.rival.Version, c.key))
	w.restate(mine[0])
	return nil
}

// stated is the version of the change whose value a transaction gives a row: its own, unless it states an older one again.
func stated(tx *change.Transaction, key change.Key) change.Version {
	if v, again := tx.Originals[key]; again {
		return v
	}
	return tx.Stamp.Version
}
