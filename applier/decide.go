package applier

import (
	"errors"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/conflict"
	"replicator/image"
)

// index is what the target's owner knows of rows that could still conflict.
type index interface {
	Lookup(key change.Key) (change.Stamp, bool, error)
}

// errLockFirst says that a decision needs to know which rows exist, or that a decision changed before the commit: the
// group is rolled back and run again, locking first.
var errLockFirst = errors.New("the rows must be locked before they are decided")

// decisions are the verdicts over every key of a group, in the order of its rows, with the manifest that names the keys.
type decisions struct {
	manifest []checkpoint.Entry
	verdicts []conflict.Verdict // one per key of the manifest
}

// Outcome counts what a group's decisions did with its row changes.
type Outcome struct {
	Transactions int64
	Rows         int64 // row changes of the source transactions
	Lost         int64 // not applied: a concurrent version was newer
	Superseded   int64 // not applied: a version made on top of it had arrived before
	Overwritten  int64 // applied over a concurrent older version
}

// rowKeys yields the keys that a row change touches: two where an update changes the primary key.
func rowKeys(r change.Row) [2]change.Key { return [2]change.Key{r.Key, r.NewKey} }

func keyCount(r change.Row) int {
	if r.Key == r.NewKey {
		return 1
	}
	return 2
}

// enlist makes a manifest of a group. The keys of a transaction in memory are collected; those of a spooled one are read
// from its spool whenever they are needed.
func enlist(txs []*change.Transaction) (*decisions, error) {
	d := &decisions{}
	total := 0
	for _, tx := range txs {
		entry := checkpoint.Entry{GTID: tx.GTID, Stamp: tx.Stamp, Keys: spooledKeys(tx.Body)}
		var listed []change.Key
		if !tx.Spooled {
			listed = make([]change.Key, 0, tx.Rows)
		}
		err := entry.Keys(func(k change.Key) error {
			entry.Count++
			if !tx.Spooled {
				listed = append(listed, k)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if !tx.Spooled {
			entry.Keys = listedKeys(listed)
		}
		d.manifest = append(d.manifest, entry)
		total += entry.Count
	}
	d.verdicts = make([]conflict.Verdict, total)
	return d, nil
}

type keys = func(yield func(change.Key) error) error

func spooledKeys(body change.Body) keys {
	return func(yield func(change.Key) error) error {
		return body.Each(func(ev *change.RowsEvent) error {
			for _, r := range ev.Rows {
				touched := rowKeys(r)
				for _, k := range touched[:keyCount(r)] {
					if err := yield(k); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
}

func listedKeys(list []change.Key) keys {
	return func(yield func(change.Key) error) error {
		for _, k := range list {
			if err := yield(k); err != nil {
				return err
			}
		}
		return nil
	}
}

// judge looks every key up and notes the verdicts. It reports whether any change of the group would be carried out
// otherwise than the verdicts before said.
func (d *decisions) judge(ix index) (changed bool, err error) {
	i := 0
	for _, entry := range d.manifest {
		err := entry.Keys(func(key change.Key) error {
			known, found, err := ix.Lookup(key)
			if err != nil {
				return err
			}
			verdict := conflict.Decide(entry.Stamp, known, found)
			if verdict.Applies() != d.verdicts[i].Applies() {
				changed = true
			}
			d.verdicts[i] = verdict
			i++
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	return changed, nil
}

// presence is which of a group's rows exist on the target while their locks are held, kept up to date as the group's
// own changes are carried out.
type presence map[change.Key]bool

// execution turns decided rows into operations, in the order of the group. It is used once, from the first row to the
// last.
type execution struct {
	decisions *decisions
	present   presence // nil: not known, the server will tell
	cursor    int
	// overwritten holds the keys of which this group has overwritten a concurrent version: its later changes of the same
	// key overwrite its own.
	overwritten map[change.Key]bool
	outcome     Outcome
}

func newExecution(d *decisions, present presence) *execution {
	return &execution{decisions: d, present: present, overwritten: map[change.Key]bool{}}
}

// event decides what is to be carried out for one rows event. asIs means: the event as it stands.
func (x *execution) event(ev *change.RowsEvent) (ops []image.Op, asIs bool, err error) {
	asIs = x.present == nil && x.allApply(ev)
	for _, r := range ev.Rows {
		before := x.take(r.Key)
		after := before
		if keyCount(r) == 2 {
			after = x.take(r.NewKey)
		}
		x.count(before, after)
		if asIs {
			continue
		}
		if x.present != nil {
			ops = append(ops, x.locked(ev, r, before, after)...)
			continue
		}
		if before.Applies() != after.Applies() {
			return nil, false, errLockFirst
		}
		if before.Applies() {
			ops = append(ops, image.Op{Kind: ev.Kind, Before: ev.Before(r), After: ev.After(r)})
		}
	}
	return ops, asIs, nil
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

// take returns the verdict over the next key. A conflict is told once per key and group.
func (x *execution) take(key change.Key) conflict.Verdict {
	v := x.decisions.verdicts[x.cursor]
	x.cursor++
	if v == conflict.ApplyOver {
		if x.overwritten[key] {
			return conflict.Apply
		}
		x.overwritten[key] = true
	}
	return v
}

// count is where the journal will take the losing images: of a row that is not applied, and of one that is overwritten.
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
func (x *execution) locked(ev *change.RowsEvent, r change.Row, onOld, onNew conflict.Verdict) []image.Op {
	before, after := ev.Before(r), ev.After(r)
	switch {
	case ev.Kind == change.Delete:
		return x.remove(r.Key, before, onOld)
	case keyCount(r) == 1:
		return x.put(r.Key, before, after, onOld)
	case onOld.Applies() && onNew.Applies() && x.present[r.Key] && !x.present[r.NewKey]:
		x.present[r.Key], x.present[r.NewKey] = false, true
		return []image.Op{{Kind: change.Update, Before: before, After: after}}
	}
	return append(x.remove(r.Key, before, onOld), x.put(r.NewKey, nil, after, onNew)...)
}

func (x *execution) remove(key change.Key, old []byte, v conflict.Verdict) []image.Op {
	if !v.Applies() || !x.present[key] {
		return nil
	}
	x.present[key] = false
	return []image.Op{{Kind: change.Delete, Before: old}}
}

// put makes the row equal to the after image. A row that exists is found by its key alone, so the after image serves as
// before image where there is none.
func (x *execution) put(key change.Key, old, after []byte, v conflict.Verdict) []image.Op {
	if !v.Applies() {
		return nil
	}
	if !x.present[key] {
		x.present[key] = true
		return []image.Op{{Kind: change.Insert, After: after}}
	}
	if old == nil {
		old = after
	}
	return []image.Op{{Kind: change.Update, Before: old, After: after}}
}
