package applier

import (
	"context"
	"slices"

	"replicator/change"
	"replicator/conflict"
	"replicator/image"
)

// Tables whose columns are merged: every column of a row is a register of its own, and the row's beginning and end are one
// of the whole row (conflict.MergeUpdate and the functions around it).

// merging is what the index says about a change in such a table.
type merging struct {
	verdict conflict.Verdict
	rival   change.Stamp // of a conflict: the newest concurrent change
	keep    bool         // of a deletion that lost: the row is to be stated again, whole
}

// merge decides about one key. A row that begins has the verdict ApplyOver when some column has a change of its own: then
// each column is decided by itself.
func (t touch) merge(ix index, incoming change.Stamp) (merging, error) {
	row, err := lookup(ix, t.row)
	if err != nil {
		return merging{}, err
	}
	switch conflict.MergeInsert(incoming, row) {
	case conflict.Lost:
		return merging{verdict: conflict.Lose, rival: row.Stamp}, nil
	case conflict.Stale:
		return merging{verdict: conflict.Superseded}, nil
	case conflict.Merged, conflict.Resurrect, conflict.Keep:
	}
	if t.how == touchColumn {
		column, err := lookup(ix, t.key)
		return against(incoming, row, column), err
	}
	columns, err := t.columns(ix)
	if err != nil {
		return merging{}, err
	}
	if t.ends {
		return mergeEnd(incoming, row, columns), nil
	}
	m := merging{verdict: conflict.Apply}
	for _, c := range columns {
		switch of := against(incoming, row, c); {
		case of.verdict == conflict.Apply:
		case of.verdict.Conflict() && of.rival.Version.Compare(m.rival.Version) > 0:
			m.verdict, m.rival = conflict.ApplyOver, of.rival
		default:
			m.verdict = conflict.ApplyOver
		}
	}
	return m, nil
}

// mergeEnd decides about the end of a row against all that it would take away.
func mergeEnd(incoming change.Stamp, row conflict.Change, columns []conflict.Change) merging {
	m := merging{verdict: conflict.Apply}
	switch conflict.MergeDelete(incoming, row, columns) {
	case conflict.Stale:
		return merging{verdict: conflict.Superseded}
	case conflict.Keep:
		m.verdict, m.keep = conflict.Lose, true
	case conflict.Merged, conflict.Lost, conflict.Resurrect:
	}
	for _, c := range append(columns, row) {
		v := conflict.Decide(incoming, c.Stamp, c.Known)
		if v == conflict.ApplyOver && !m.keep {
			m.verdict = v
		}
		if v.Conflict() && c.Stamp.Version.Compare(m.rival.Version) > 0 {
			m.rival = c.Stamp
		}
	}
	return m
}

// against decides about one column.
func against(incoming change.Stamp, row, column conflict.Change) merging {
	m := merging{verdict: conflict.DecideColumn(incoming, row, column), rival: column.Stamp}
	if row.Known && (!column.Known || row.Stamp.Version.Compare(column.Stamp.Version) > 0) {
		m.rival = row.Stamp
	}
	return m
}

func lookup(ix index, k change.Key) (c conflict.Change, err error) {
	c.Stamp, c.Known, err = ix.Lookup(k)
	return c, err
}

// columns are the entries of all columns of the touched row.
func (t touch) columns(ix index) ([]conflict.Change, error) {
	all := make([]conflict.Change, len(t.of.merged))
	for i, name := range t.of.merged {
		var err error
		if all[i], err = lookup(ix, conflict.ColumnKey(t.row, name)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// columnFate is what becomes of one column that a change sets.
type columnFate struct {
	column int
	fate
}

// applied are the columns that are set.
func applied(all []columnFate) (columns []int) {
	for _, c := range all {
		if c.verdict.Applies() {
			columns = append(columns, c.column)
		}
	}
	return columns
}

// merged decides about an event of a table whose columns are merged.
func (x *execution) merged(ctx context.Context, ev *change.RowsEvent) (ops []image.Op, err error) {
	for _, r := range ev.Rows {
		if x.present != nil && ev.Kind == change.Delete && x.again(r.Key) {
			x.cursor++ // the row that is stated again follows
			continue
		}
		var done []image.Op
		if ev.Kind == change.Update && keyCount(r) == 1 {
			done, err = x.mergeUpdate(ctx, ev, r)
		} else {
			done, err = x.mergeWhole(ctx, ev, r)
		}
		if err != nil {
			return nil, err
		}
		ops = append(ops, done...)
	}
	return ops, nil
}

// mergeWhole carries out the beginning or end of a row; a change of the key is both. Each of a group's changes is decided
// column by column: one that overwrote some of them says nothing about those that the next one meets.
func (x *execution) mergeWhole(ctx context.Context, ev *change.RowsEvent, r change.Row) (ops []image.Op, err error) {
	before := x.next()
	told := x.once(r.Key, before)
	after, alsoTold := before, told
	if keyCount(r) == 2 {
		after = x.next()
		alsoTold = x.once(r.NewKey, after)
	}
	x.count(told.verdict, alsoTold.verdict)
	if x.present == nil {
		if before.verdict != conflict.Apply || after.verdict != conflict.Apply {
			return nil, errLockFirst
		}
		return []image.Op{{Kind: ev.Kind, Before: ev.Before(r), After: ev.After(r)}}, nil
	}
	c := rowChange{tx: x.tx, ev: ev, key: r.Key, image: ev.Before(r)}
	if ev.Kind != change.Insert {
		if ops, err = x.mergeEnd(ctx, c, before); err != nil || ev.Kind == change.Delete {
			return ops, err
		}
		c.moved = true
	}
	c.key, c.image, c.after = r.NewKey, ev.After(r), ev.After(r)
	more, err := x.mergeBegin(ctx, c, after)
	return append(ops, more...), err
}

// mergeEnd carries out the end of a row, unless the row is to stay: the error is then the *clash that states it again.
func (x *execution) mergeEnd(ctx context.Context, c rowChange, f fate) ([]image.Op, error) {
	if !f.verdict.Conflict() || !x.present.has(c.key) {
		return x.remove(ctx, c, f)
	}
	end := x.registers.of(c.ev.Table).whole(c.key)
	end.ends = true
	m, err := end.merge(x.decisions.index, c.tx.Stamp)
	if err != nil {
		return nil, err
	}
	if m.keep {
		return nil, &clash{kind: clashWhole, tx: c.tx, table: c.ev.Table, key: c.key, before: c.image}
	}
	if f.verdict == conflict.ApplyOver { // what lost besides the newest
		columns, err := end.columns(x.decisions.index)
		if err != nil {
			return nil, err
		}
		for _, known := range columns {
			lost := conflict.Decide(c.tx.Stamp, known.Stamp, known.Known) == conflict.ApplyOver
			if !lost || known.Stamp.Version == f.rival.Version {
				continue
			}
			if err := x.note(ctx, c, fate{conflict.ApplyOver, known.Stamp}); err != nil {
				return nil, err
			}
		}
	}
	return x.remove(ctx, c, f)
}

// mergeBegin carries out the beginning of a row. Where the row is there, its columns keep what is newer.
func (x *execution) mergeBegin(ctx context.Context, c rowChange, f fate) ([]image.Op, error) {
	if f.verdict != conflict.ApplyOver || !x.present.has(c.key) {
		return x.put(ctx, c, nil, f)
	}
	begin := x.registers.of(c.ev.Table).whole(c.key)
	row, err := lookup(x.decisions.index, c.key)
	if err != nil {
		return nil, err
	}
	columns, err := begin.columns(x.decisions.index)
	if err != nil {
		return nil, err
	}
	fates := make([]columnFate, len(columns))
	for i, known := range columns {
		m := against(c.tx.Stamp, row, known)
		fates[i] = columnFate{i, fate{m.verdict, m.rival}}
	}
	return x.setColumns(ctx, c, c.after, fates)
}

// mergeUpdate carries out the columns of an update that are not older than what the target has in them.
func (x *execution) mergeUpdate(ctx context.Context, ev *change.RowsEvent, r change.Row) ([]image.Op, error) {
	var fates []columnFate
	err := x.registers.touches(ev, r, func(t touch) error {
		fates = append(fates, columnFate{t.column, x.take(t.key)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(fates) == 0 { // it changes nothing
		x.count(conflict.Apply, conflict.Apply)
		return nil, nil
	}
	worst := conflict.Apply
	for _, v := range []conflict.Verdict{conflict.Lose, conflict.Superseded, conflict.ApplyOver} {
		if slices.ContainsFunc(fates, func(c columnFate) bool { return c.verdict == v }) {
			worst = v
			break
		}
	}
	x.count(worst, worst)
	if x.present == nil {
		if worst != conflict.Apply {
			return nil, errLockFirst
		}
		return []image.Op{{Kind: change.Update, Before: ev.Before(r), After: ev.After(r), Only: applied(fates)}}, nil
	}
	c := rowChange{tx: x.tx, ev: ev, key: r.Key, image: ev.After(r), after: ev.After(r)}
	if x.present.has(r.Key) {
		return x.setColumns(ctx, c, ev.Before(r), fates)
	}
	row, err := lookup(x.decisions.index, r.Key)
	if err != nil {
		return nil, err
	}
	if conflict.MergeUpdate(c.tx.Stamp, row, false) == conflict.Resurrect {
		return nil, &clash{kind: clashWhole, tx: c.tx, table: ev.Table, key: r.Key, before: c.after, after: c.after}
	}
	whole := fate{verdict: conflict.Apply} // what else the row is made of is on its way
	if len(applied(fates)) == 0 {
		whole = fates[max(0, slices.IndexFunc(fates, func(c columnFate) bool { return c.verdict == conflict.Lose }))].fate
	}
	return x.put(ctx, c, nil, whole)
}

// setColumns sets the columns of a row that is there.
func (x *execution) setColumns(ctx context.Context, c rowChange, before []byte, fates []columnFate) ([]image.Op, error) {
	if x.losers != nil {
		if err := x.losers.columns(ctx, c, fates, x.present[c.key]); err != nil {
			return nil, err
		}
	}
	x.present.set(c.key, true)
	only := applied(fates)
	if len(only) == 0 {
		return nil, nil
	}
	return []image.Op{{Kind: change.Update, Before: before, After: c.after, Only: only}}, nil
}
