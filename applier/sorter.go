package applier

import (
	"context"

	"replicator/change"
	"replicator/dml"
	"replicator/image"
)

// sorter keeps row changes that wait for others to share a statement with, in levels: two of one level have
// nothing in common (row, value of a unique key) and may be carried out in any order, whatever transactions of the group
// they are of; one that has something in common with another is of a higher level than it. What the target holds at the end
// is what it would hold had they been carried out one by one, or some statement fails.
type sorter struct {
	shapes *shapes
	levels []level
	last   map[image.Token]int // number of the last level that has it
	bytes  int

	row    dml.Statement
	claims []claim
}

// level is statements in the order in which they were begun.
type level struct {
	statements []*statement
	open       map[statementKind]*statement // the last of each kind, which takes more rows
}

type statementKind struct {
	plan *dml.Plan
	kind change.RowKind
}

// sorterMost is how many bytes of statements wait.
const sorterMost = 8 << 20

func newSorter(s *shapes) *sorter { return &sorter{shapes: s, last: map[image.Token]int{}} }

// takes reports whether the rows of a table can be carried out in another order than that of their changes.
func (o *sorter) takes(ctx context.Context, t *change.Table) (bool, error) {
	s, err := o.shapes.of(ctx, t)
	if err != nil {
		return false, err
	}
	return !s.foreign && !s.hidden, nil
}

// place returns the level of a row change.
func (o *sorter) place(ctx context.Context, ev *change.RowsEvent, r change.Row) (*level, error) {
	s, err := o.shapes.of(ctx, ev.Table)
	if err != nil {
		return nil, err
	}
	if o.claims, err = s.claims(o.claims[:0], ev, r); err != nil {
		return nil, err
	}
	n := 0
	for _, c := range o.claims {
		if last, held := o.last[c.token]; held {
			n = max(n, last+1)
		}
	}
	for _, c := range o.claims {
		o.last[c.token] = n
	}
	if n == len(o.levels) {
		o.levels = append(o.levels, level{open: map[statementKind]*statement{}})
	}
	return &o.levels[n], nil
}

// add adds what o.row says to a level. most is how long a statement may be.
func (o *sorter) add(l *level, k statementKind, most int) {
	r := &o.row
	o.bytes += len(r.Text) + r.ArgBytes()
	s := l.open[k]
	if s != nil && r.Separator != "" && s.takes(r, most) {
		s.append(r)
		return
	}
	s = newStatement(k, r)
	l.statements = append(l.statements, s)
	if r.Separator != "" {
		l.open[k] = s
	}
}

// each hands out the statements in order, and forgets everything.
func (o *sorter) each(do func(s *statement) error) error {
	levels := o.levels
	o.reset()
	for i := range levels {
		for _, s := range levels[i].statements {
			if err := do(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *sorter) reset() {
	o.levels, o.bytes = nil, 0
	clear(o.last)
}
