package applier

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"sync"

	"replicator/change"
	"replicator/conflict"
	"replicator/image"
)

// Registers knows how the rows of a table stand in the change index. Most are one register, under their own key. Two kinds
// of tables are not:
//   - In tables with columns that add up, the beginning and the end of a row stand under conflict.LifeKey, an update of its
//     other columns under conflict.RowKey, one that adds under a key of its own.
//   - In tables whose columns are merged, the beginning and the end of a row stand under its own key, an update under
//     conflict.ColumnKey of every column that it changed.
//
// It is safe for concurrent use.
type Registers struct {
	added  func(change.TableName) []string // the columns that add up
	merged func(change.TableName) bool     // whether columns are merged

	mu     sync.Mutex
	tables map[*change.Table]*registers
}

// maxRegisters bounds the definitions that are remembered.
const maxRegisters = 10_000

// registers are those of one definition's rows.
type registers struct {
	add    []int    // columns that add up
	merged []string // the names of all columns under which they stand in the index; nil: they are not merged
}

// NewRegisters makes one for what a configuration says about tables. A nil *Registers knows of no special ones.
func NewRegisters(added func(change.TableName) []string, merged func(change.TableName) bool) *Registers {
	return &Registers{added: added, merged: merged, tables: map[*change.Table]*registers{}}
}

// of returns the registers of a table's rows, nil where a row is one register.
func (c *Registers) of(t *change.Table) *registers {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found, known := c.tables[t]
	if !known {
		found = c.shape(t)
		if len(c.tables) >= maxRegisters {
			clear(c.tables)
		}
		c.tables[t] = found
	}
	return found
}

func (c *Registers) shape(t *change.Table) *registers {
	if c.merged(t.Name) {
		g := &registers{}
		for i := range t.Columns { // servers may spell a name differently
			g.merged = append(g.merged, strings.ToLower(t.Columns[i].Name))
		}
		return g
	}
	names := c.added(t.Name)
	if len(names) == 0 {
		return nil
	}
	g := &registers{}
	for i := range t.Columns {
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, t.Columns[i].Name) }) {
			g.add = append(g.add, i)
		}
	}
	return g
}

// touch is one key under which a row change stands in the change index.
type touch struct {
	key    change.Key
	row    change.Key // of the row
	how    touchKind
	column int        // of touchColumn
	of     *registers // of touchWhole and touchColumn
	ends   bool       // of touchWhole: the row ends
}

type touchKind uint8

const (
	touchPlain touchKind = iota // the row is one register

	// Where columns add up:
	touchLife  // the row begins or ends
	touchRow   // columns are set
	touchDelta // columns are added to

	// Where columns are merged:
	touchWhole  // the row begins or ends
	touchColumn // a column is set
)

func deltaKey(row change.Key) change.Key { return conflict.ColumnKey(row, "") }

// touches yields the keys of a row change: one, or more where an update changes the primary key, sets and adds, or sets
// several columns that are merged.
func (c *Registers) touches(ev *change.RowsEvent, r change.Row, yield func(touch) error) error {
	g := c.of(ev.Table)
	if g == nil || ev.Kind != change.Update || r.Key != r.NewKey {
		first := g.whole(r.Key)
		first.ends = ev.Kind != change.Insert
		if err := yield(first); err != nil || r.NewKey == r.Key {
			return err
		}
		return yield(g.whole(r.NewKey))
	}
	changed, err := changedColumns(ev, r)
	if err != nil {
		return err
	}
	if g.merged != nil {
		for _, i := range changed {
			t := touch{key: conflict.ColumnKey(r.Key, g.merged[i]), row: r.Key, how: touchColumn, column: i, of: g}
			if err := yield(t); err != nil {
				return err
			}
		}
		return nil
	}
	isAdded := func(i int) bool { return slices.Contains(g.add, i) }
	if slices.ContainsFunc(changed, func(i int) bool { return !isAdded(i) }) {
		if err := yield(touch{key: conflict.RowKey(r.Key), row: r.Key, how: touchRow}); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(changed, isAdded) {
		return yield(touch{key: deltaKey(r.Key), row: r.Key, how: touchDelta})
	}
	return nil
}

// whole touches a row as a whole.
func (g *registers) whole(row change.Key) touch {
	switch {
	case g == nil:
		return touch{key: row, row: row}
	case g.merged != nil:
		return touch{key: row, row: row, how: touchWhole, of: g}
	}
	return touch{key: conflict.LifeKey(row), row: row, how: touchLife}
}

// Keys calls yield for every key under which the event's changes stand in the change index.
func (c *Registers) Keys(ev *change.RowsEvent, yield func(change.Key) error) error {
	for _, r := range ev.Rows {
		if err := c.touches(ev, r, func(t touch) error { return yield(t.key) }); err != nil {
			return err
		}
	}
	return nil
}

// changedColumns are the columns in which an update's images differ.
func changedColumns(ev *change.RowsEvent, r change.Row) ([]int, error) {
	before, err := image.Values(ev.Table, ev.Before(r))
	if err != nil {
		return nil, err
	}
	after, err := image.Values(ev.Table, ev.After(r))
	if err != nil {
		return nil, err
	}
	var changed []int
	for i := range before {
		if !equal(&before[i], &after[i]) {
			changed = append(changed, i)
		}
	}
	return changed, nil
}

func equal(a, b *image.Value) bool {
	return a.Kind == b.Kind && a.Int == b.Int && a.Uint == b.Uint && math.Float64bits(a.Float) == math.Float64bits(b.Float) &&
		bytes.Equal(a.Bytes, b.Bytes) && bytes.Equal(a.Document, b.Document)
}

// adds reports whether a transaction changes a table with columns that add up.
func (c *Registers) adds(tx *change.Transaction) bool {
	if c == nil {
		return false
	}
	found := false
	_ = tx.Body.Each(func(ev *change.RowsEvent) error { // an unreadable body shows when it is applied
		g := c.of(ev.Table)
		found = found || g != nil && len(g.add) > 0
		return nil
	})
	return found
}

// verdict decides about one key of a change, and names the concurrent change in a conflict.
func (t touch) verdict(ix index, incoming change.Stamp) (v conflict.Verdict, rival change.Stamp, err error) {
	switch t.how {
	case touchPlain:
		known, found, err := ix.Lookup(t.key)
		return conflict.Decide(incoming, known, found), known, err
	case touchWhole, touchColumn:
		m, err := t.merge(ix, incoming)
		return m.verdict, m.rival, err
	case touchLife, touchRow, touchDelta:
	}
	life, alive, err := ix.Lookup(conflict.LifeKey(t.row))
	if err != nil {
		return 0, life, err
	}
	if t.how == touchLife {
		v = conflict.Decide(incoming, life, alive)
		if v != conflict.Apply {
			return v, life, nil
		}
		return t.overUpdates(ix, incoming, life, alive)
	}
	if v = conflict.DecideDelta(incoming, life, alive); v != conflict.Apply || t.how == touchDelta {
		return v, life, nil
	}
	known, found, err := ix.Lookup(t.key)
	return conflict.Decide(incoming, known, found), known, err
}

// overUpdates decides about the beginning or end of a row that replaces updates of its present life.
func (t touch) overUpdates(ix index, incoming, life change.Stamp, alive bool) (conflict.Verdict, change.Stamp, error) {
	var rival change.Stamp
	v := conflict.Apply
	for _, key := range []change.Key{conflict.RowKey(t.row), deltaKey(t.row)} {
		known, found, err := ix.Lookup(key)
		if err != nil {
			return 0, rival, err
		}
		counts := found && !incoming.Covers(known.Version) && known.Version != incoming.Version &&
			conflict.DecideDelta(known, life, alive) == conflict.Apply
		if counts && known.Version.Compare(rival.Version) > 0 {
			v, rival = conflict.ApplyOver, known
		}
	}
	return v, rival, nil
}

// newest is the newest change of a row that is not yet stable.
func (s *session) newest(t *change.Table, row change.Key) (change.Stamp, bool, error) {
	g := s.opt.Registers.of(t)
	if g == nil {
		return s.opt.Index.Lookup(row)
	}
	var newest change.Stamp
	var any bool
	for _, key := range g.keys(row) {
		known, found, err := s.opt.Index.Lookup(key)
		if err != nil {
			return newest, any, err
		}
		if found && (!any || known.Version.Compare(newest.Version) > 0) {
			newest, any = known, true
		}
	}
	return newest, any, nil
}

// keys are the index keys of a row's registers: of a table without any, nil registers, the row's own.
func (g *registers) keys(row change.Key) []change.Key {
	switch {
	case g == nil:
		return []change.Key{row}
	case g.merged == nil:
		return []change.Key{conflict.LifeKey(row), conflict.RowKey(row), deltaKey(row)}
	}
	keys := []change.Key{row}
	for _, name := range g.merged {
		keys = append(keys, conflict.ColumnKey(row, name))
	}
	return keys
}
