package applier

import (
	"context"

	"replicator/change"
	"replicator/conflict"
	"replicator/image"
	"replicator/journal"
)

// presence is which of a group's rows exist on the target while their locks are held, kept up to date as the group's
// own changes are carried out.
type presence map[change.Key]state

type state uint8

const (
	exists  state = 1 << iota
	touched       // by a change of this group
	stood         // it was there before the group touched it
	appears       // it was not, and the group writes it
)

func (p presence) has(k change.Key) bool { return p[k]&exists != 0 }

func (p presence) set(k change.Key, there bool) {
	s := p[k]
	if s&touched == 0 && s&exists != 0 {
		s |= stood
	}
	if there && s&(exists|stood) == 0 {
		s |= appears
	}
	s = s&^exists | touched
	if there {
		s |= exists
	}
	p[k] = s
}

// appear reports whether the group writes rows that were absent.
func (p presence) appear() bool {
	for _, s := range p {
		if s&appears != 0 {
			return true
		}
	}
	return false
}

// execution turns decided rows into operations, in the order of the group. It is used once, from the first row to the
// last.
type execution struct {
	decisions *decisions
	registers *Registers
	present   presence // nil: not known, the server will tell
	losers    *losers  // where it tells what is lost; nil: nowhere
	tx        *change.Transaction
	cursor    int
	// overwritten holds the keys of which this group has overwritten a concurrent version: its later changes of the same
	// key overwrite its own.
	overwritten map[change.Key]bool
	outcome     Outcome
	reach       func(context.Context) error // waits at the barrier once more
	await       func(change.Context) error  // fails while what a change was made on top of is on its way
}

func newExecution(d *decisions, registers *Registers, present presence, l *losers) *execution {
	return &execution{decisions: d, registers: registers, present: present, losers: l, overwritten: map[change.Key]bool{}}
}

func keyCount(r change.Row) int {
	if r.Key == r.NewKey {
		return 1
	}
	return 2
}

// fate is what becomes of one key that a row change touches.
type fate struct {
	verdict conflict.Verdict
	rival   change.Stamp // of a conflict: the concurrent change that the key had
}

// event decides what is to be carried out for one rows event. asIs means: the event as it stands.
func (x *execution) event(ctx context.Context, ev *change.RowsEvent) (ops []image.Op, asIs bool, err error) {
	switch g := x.registers.of(ev.Table); {
	case g != nil && g.merged != nil:
		ops, err = x.merged(ctx, ev)
		return ops, false, err
	case g != nil && ev.Kind == change.Update:
		ops, err = x.updates(ctx, ev, g)
		return ops, false, err
	}
	asIs = x.present == nil && x.allApply(ev)
	for _, r := range ev.Rows {
		if x.present != nil && ev.Kind == change.Delete && ev.Table.Settles == "" && x.again(r.Key) {
			x.cursor++ // the row that is stated again follows
			continue
		}
		before := x.take(r.Key)
		after := before
		if keyCount(r) == 2 {
			after = x.take(r.NewKey)
		}
		x.count(before.verdict, after.verdict)
		if asIs {
			continue
		}
		if x.present == nil {
			if before.verdict.Applies() != after.verdict.Applies() {
				return nil, false, errLockFirst
			}
			if before.verdict.Applies() {
				ops = append(ops, image.Op{Kind: ev.Kind, Before: ev.Before(r), After: ev.After(r)})
			}
			continue
		}
		done, err := x.locked(ctx, ev, r, before, after)
		if err != nil {
			return nil, false, err
		}
		ops = append(ops, done...)
	}
	return ops, asIs, nil
}

// updates decides about updates in a table with columns that add up: what is added is added whatever becomes of the other
// columns.
func (x *execution) updates(ctx context.Context, ev *change.RowsEvent, g *registers) (ops []image.Op, err error) {
	for _, r := range ev.Rows {
		if keyCount(r) == 2 { // one row ends, another one begins
			before, after := x.take(r.Key), x.take(r.NewKey)
			x.count(before.verdict, after.verdict)
			if x.present == nil {
				return nil, errLockFirst
			}
			done, err := x.locked(ctx, ev, r, before, after)
			if err != nil {
				return nil, err
			}
			ops = append(ops, done...)
			continue
		}
		sets, adds := fate{verdict: conflict.Apply}, fate{verdict: conflict.Superseded}
		var only []int
		isSet := false
		err := x.registers.touches(ev, r, func(t touch) error {
			if f := x.take(t.key); t.how == touchRow {
				sets, isSet = f, true
			} else {
				adds = f
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		x.count(sets.verdict, sets.verdict)
		if !isSet {
			sets = adds
		}
		if !isSet || !sets.verdict.Applies() {
			only = g.add
		}
		op := image.Op{Kind: change.Update, Before: ev.Before(r), After: ev.After(r), Add: g.add, Only: only}
		if x.present == nil {
			if sets.verdict.Applies() || adds.verdict.Applies() {
				ops = append(ops, op)
			}
			continue
		}
		c := rowChange{tx: x.tx, ev: ev, key: r.Key, image: ev.After(r), after: ev.After(r)}
		if err := x.note(ctx, c, sets); err != nil {
			return nil, err
		}
		there := x.present.has(r.Key)
		applies := sets.verdict.Applies() || adds.verdict.Applies()
		x.present.set(r.Key, there || sets.verdict.Applies())
		switch {
		case there && applies:
			ops = append(ops, op)
		case sets.verdict.Applies(): // the servers differed
			ops = append(ops, image.Op{Kind: change.Insert, After: ev.After(r)})
		}
	}
	return ops, nil
}

// again reports whether the transaction states a row again: it removes it and inserts it.
func (x *execution) again(key change.Key) bool {
	if x.tx == nil {
		return false
	}
	_, again := x.tx.Originals[key]
	return again
}

func (x *execution) allApply(ev *change.RowsEvent) bool {
	i := x.cursor
	for _, r := range ev.Rows {
		for range keyCount(r) {
			if !x.decisions.verdicts[i].Applies() {
				return false
			}
			i++
		}
	}
	return true
}

// take returns the fate of the next key. A conflict is told once per key and group.
func (x *execution) take(key change.Key) fate { return x.once(key, x.next()) }

// next returns the fate of the next key as the index has it.
func (x *execution) next() fate {
	f := fate{x.decisions.verdicts[x.cursor], x.decisions.rivals[x.cursor]}
	x.cursor++
	return f
}

// once makes a conflict that was told before an ordinary change.
func (x *execution) once(key change.Key, f fate) fate {
	if f.verdict == conflict.ApplyOver {
		if x.overwritten[key] {
			return fate{verdict: conflict.Apply}
		}
		x.overwritten[key] = true
	}
	return f
}

func (x *execution) count(before, after conflict.Verdict) {
	x.outcome.Rows++
	either := func(v conflict.Verdict) bool { return before == v || after == v }
	switch {
	case either(conflict.Lose):
		x.outcome.Lost++
	case either(conflict.Superseded):
		x.outcome.Superseded++
	case either(conflict.ApplyOver):
		x.outcome.Overwritten++
	}
}

// locked carries a change out when every row is locked: a change of the key counts as the removal of one row and the
// writing of another.
func (x *execution) locked(ctx context.Context, ev *change.RowsEvent, r change.Row, onOld, onNew fate) ([]image.Op, error) {
	before, after := ev.Before(r), ev.After(r)
	c := rowChange{tx: x.tx, ev: ev, key: r.Key, image: before, old: before}
	switch {
	case ev.Table.Settles != "" || ev.Kind == change.Delete:
		return x.remove(ctx, c, onOld)
	case keyCount(r) == 1:
		c.image, c.after = after, after
		return x.put(ctx, c, before, onOld)
	}
	moved := c
	moved.key, moved.image, moved.old, moved.after, moved.moved = r.NewKey, after, nil, after, true
	if onOld.verdict.Applies() && onNew.verdict.Applies() && x.present.has(r.Key) && !x.present.has(r.NewKey) {
		if err := x.note(ctx, c, onOld); err != nil {
			return nil, err
		}
		if err := x.note(ctx, moved, onNew); err != nil {
			return nil, err
		}
		x.present.set(r.Key, false)
		x.present.set(r.NewKey, true)
		return []image.Op{{Kind: change.Update, Before: before, After: after}}, nil
	}
	ops, err := x.remove(ctx, c, onOld)
	if err != nil {
		return nil, err
	}
	more, err := x.put(ctx, moved, nil, onNew)
	return append(ops, more...), err
}

// note tells what a change takes from somebody, before it is carried out.
func (x *execution) note(ctx context.Context, c rowChange, f fate) error {
	if x.losers == nil {
		return nil
	}
	return x.losers.note(ctx, c, f, x.present[c.key])
}

func (x *execution) remove(ctx context.Context, c rowChange, f fate) ([]image.Op, error) {
	if err := x.note(ctx, c, f); err != nil {
		return nil, err
	}
	there := x.present.has(c.key)
	x.present.set(c.key, there && !f.verdict.Applies())
	if !f.verdict.Applies() || !there {
		return nil, nil
	}
	return []image.Op{{Kind: change.Delete, Before: c.image}}, nil
}

// put makes the row equal to the after image. A row that exists is found by its key alone, so the after image serves as
// before image where there is none.
func (x *execution) put(ctx context.Context, c rowChange, old []byte, f fate) ([]image.Op, error) {
	if err := x.note(ctx, c, f); err != nil {
		return nil, err
	}
	there := x.present.has(c.key)
	x.present.set(c.key, there || f.verdict.Applies())
	if !f.verdict.Applies() {
		return nil, nil
	}
	if !there {
		return []image.Op{{Kind: change.Insert, After: c.after}}, nil
	}
	if old == nil {
		old = c.after
	}
	return []image.Op{{Kind: change.Update, Before: old, After: c.after}}, nil
}

// rowChange is one key of one row change of the source.
type rowChange struct {
	tx    *change.Transaction
	ev    *change.RowsEvent
	key   change.Key
	image []byte // names the row by its key
	old   []byte // the row of this key that the change was made on; nil: it brings the row
	after []byte // nil: the row goes away
	moved bool   // the row comes from another key
}

// kind names the conflict that the change meets at a row that is there, or not.
func (c rowChange) kind(present, rival bool) journal.Kind {
	switch {
	case c.ev.Table.Settles != "":
		return journal.Kind(c.ev.Table.Settles)
	case c.tx.Settles != "" && present:
		return journal.Kind(c.tx.Settles)
	case c.after == nil && present:
		return journal.DeleteOriginDiffers
	case c.after == nil:
		return journal.DeleteMissing
	case present && c.ev.Kind == change.Update:
		return journal.UpdateOriginDiffers
	case present:
		return journal.InsertExists
	case rival:
		return journal.UpdateDeleted
	}
	return journal.UpdateMissing
}
