package applier

import (
	"errors"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/conflict"
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
	index    index // that was asked last
	manifest []checkpoint.Entry
	touched  []touches            // by entry of the manifest
	verdicts []conflict.Verdict   // one per key of the manifest
	rivals   map[int]change.Stamp // by number of the key: the concurrent change that a verdict is about
}

// Outcome counts what a group's decisions did with its row changes.
type Outcome struct {
	Rows        int64 // row changes of the source transactions
	Lost        int64 // not applied: a concurrent version was newer
	Superseded  int64 // not applied: a version made on top of it had arrived before
	Overwritten int64 // applied over a concurrent older version
}

// enlist makes a manifest of a group. The keys of transactions in memory are collected, in one list; those of a spooled one
// are read from its spool whenever they are needed.
func enlist(txs []*change.Transaction, registers *Registers) (*decisions, error) {
	d := &decisions{manifest: make([]checkpoint.Entry, len(txs)), touched: make([]touches, len(txs))}
	rows := int64(0)
	for _, tx := range txs {
		if !tx.Spooled {
			rows += tx.Rows
		}
	}
	list := make([]touch, 0, rows)
	collect := func(t touch) error {
		list = append(list, t)
		return nil
	}
	total := 0
	for i, tx := range txs {
		of, entry, first := &d.touched[i], &d.manifest[i], len(list)
		of.spool, of.registers = tx.Body, registers
		entry.GTID, entry.Stamp = tx.GTID, tx.Stamp
		entry.Keys = of.keys
		yield := collect
		if tx.Spooled {
			yield = func(touch) error {
				entry.Count++
				return nil
			}
		}
		if err := of.each(yield); err != nil {
			return nil, err
		}
		if !tx.Spooled {
			of.spool, of.list = nil, list[first:]
			entry.Count = len(of.list)
		}
		total += entry.Count
	}
	d.verdicts = make([]conflict.Verdict, total)
	return d, nil
}

// touches are the keys that one transaction touches.
type touches struct {
	list      []touch
	spool     change.Body // nil: they are in list
	registers *Registers
}

func (o *touches) each(yield func(touch) error) error {
	if o.spool != nil {
		return o.spool.Each(func(ev *change.RowsEvent) error {
			for _, r := range ev.Rows {
				if err := o.registers.touches(ev, r, yield); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range o.list {
		if err := yield(o.list[i]); err != nil {
			return err
		}
	}
	return nil
}

func (o *touches) keys(yield func(change.Key) error) error {
	return o.each(func(t touch) error { return yield(t.key) })
}

// judge looks every key up and notes the verdicts. It reports whether any of them has changed.
func (d *decisions) judge(ix index) (changed bool, err error) {
	i := 0
	d.index, d.rivals = ix, nil
	lives := lives{index: ix}
	var stamp change.Stamp
	one := func(t touch) error {
		verdict, rival, err := t.verdict(&lives, stamp)
		if err != nil {
			return err
		}
		if t.how == touchLife && verdict == conflict.ApplyOver {
			lives.begin(t.row, stamp)
		}
		if verdict.Conflict() {
			if d.rivals == nil {
				d.rivals = map[int]change.Stamp{}
			}
			d.rivals[i] = rival
		}
		if verdict != d.verdicts[i] {
			changed = true
		}
		d.verdicts[i] = verdict
		i++
		return nil
	}
	for n := range d.manifest {
		stamp = d.manifest[n].Stamp
		if err := d.touched[n].each(one); err != nil {
			return false, err
		}
	}
	return changed, nil
}

// lives is an index with the rows that the group at hand has begun or ended over concurrent changes, in tables with columns
// that add up: an update behind that is decided against the life that the group has given its row. Elsewhere it does not
// matter what a group has done before: its later changes have greater versions.
type lives struct {
	index
	begun map[change.Key]change.Stamp
}

func (l *lives) begin(row change.Key, stamp change.Stamp) {
	if l.begun == nil {
		l.begun = map[change.Key]change.Stamp{}
	}
	l.begun[conflict.LifeKey(row)], l.begun[conflict.RowKey(row)] = stamp, stamp
}

// Lookup is the group's own change of a key, or else the index's.
func (l *lives) Lookup(key change.Key) (change.Stamp, bool, error) {
	if stamp, own := l.begun[key]; own {
		return stamp, true, nil
	}
	return l.index.Lookup(key)
}

// leaveOut takes the keys of changes that are not applied out of the manifest, in tables whose rows are several registers:
// there a key can stand in the place of others, whatever their versions. Elsewhere a key that lost does no harm.
func (d *decisions) leaveOut() error {
	i := 0
	for n := range d.manifest {
		first, count, lost := i, 0, false
		err := d.touched[n].each(func(t touch) error {
			if t.how == touchPlain || d.verdicts[i].Applies() {
				count++
			} else {
				lost = true
			}
			i++
			return nil
		})
		if err != nil {
			return err
		}
		if !lost {
			continue
		}
		touched := &d.touched[n]
		d.manifest[n].Count = count
		d.manifest[n].Keys = func(yield func(change.Key) error) error {
			i := first
			return touched.each(func(t touch) error {
				i++
				if t.how != touchPlain && !d.verdicts[i-1].Applies() {
					return nil
				}
				return yield(t.key)
			})
		}
	}
	return nil
}
