package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/conflict"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/journal"
	"replicator/server"
)

// clash is an incoming change that cannot be applied beside rows of other keys. It is settled by a write that is published
// like any application's, so that all servers agree without talking to each other; then the group is decided again.
type clash struct {
	kind    clashKind
	tx      *change.Transaction
	table   *change.Table
	key     change.Key
	before  []byte    // of a value that stands, and of a row that stays whole: names the row
	after   []byte    // of a unique or parent clash: the row that has no place; of a row that comes back: what it will be
	parents []located // of a child clash: the rows that are to be removed
	unseen  bool      // of a child clash: nothing that refers to them may stay
	kept    bool      // of a child clash: the rows themselves stay
	// rivals are the rows that hold a value of a unique clash once the transaction has done what comes before the change:
	// what it changes by itself, as when values are swapped, is in nobody's way.
	rivals []change.Key
}

type clashKind uint8

const (
	clashUnique clashKind = iota + 1 // another row has a value of a secondary unique key
	clashParent                      // the row that it refers to is missing
	clashChild                       // rows that its origin had not seen refer to it
	clashStand                       // it would overwrite a value of the target's own that stands by policy
	clashWhole                       // columns are merged, and a deletion meets changes of some of them
)

func (c *clash) Error() string {
	return fmt.Sprintf("transaction %s meets rows that its origin had not seen", c.tx.GTID)
}

var (
	// errNothingToSettle says that a clash was gone when it was looked at again.
	errNothingToSettle = errors.New("nothing is in the way any more")
	// errUnchecked says that the parent of a row may still be on its way: until then the row stands without it.
	errUnchecked = errors.New("the row's parent has not arrived yet")
	// errAwaits says that what is in the way may be explained by changes that are on their way.
	errAwaits = errors.New("changes that this one was made on top of have not arrived yet")
)

// settlement is the published write that settles a clash.
type settlement struct {
	session *session
	clash   *clash
	buried  []checkpoint.TombstoneRow
	writes  []write
	entries []*journal.Entry
}

type write struct {
	plan   *dml.Plan
	change dml.Change
	again  bool // the row is written again as it is: what refers to it is not concerned
}

// settle commits the write that makes room for the change, or removes it. The rows in question are locked first and the
// barrier waited for, so that what is removed is what everybody knows.
//
// Safe under invariants 4 and 5.
func (l *Link) settle(ctx context.Context, c *clash) error {
	s := l.session
	if err := s.begin(ctx, true); err != nil {
		return err
	}
	if err := s.marker.Hold(ctx, l.seq); err != nil { // nobody who was fenced off publishes anything
		return err
	}
	if err := s.speak(ctx, namesPortable); err != nil {
		return err
	}
	w := &settlement{session: s, clash: c}
	var err error
	switch c.kind {
	case clashUnique:
		err = w.unique(ctx, l)
	case clashParent:
		err = w.parent(ctx, l)
	case clashChild:
		err = w.child(ctx, l)
	case clashStand:
		err = w.stand(ctx, l)
	case clashWhole:
		err = w.whole(ctx, l)
	}
	if err == nil && len(w.buried)+len(w.writes) == 0 {
		err = errNothingToSettle
	}
	if err == nil {
		err = w.publish(ctx)
	}
	if err != nil {
		return err
	}
	return s.commit(ctx)
}

// publish writes what was decided: tombstones first, so that whoever reads the binlog knows why the rows leave.
func (w *settlement) publish(ctx context.Context) error {
	s := w.session
	if err := s.release(ctx, w.entries); err != nil {
		return err
	}
	if err := checkpoint.Bury(ctx, s.conn, w.buried); err != nil {
		return err
	}
	for _, x := range w.writes {
		statement, err := x.plan.Render(x.change)
		if err == nil {
			err = s.portable.check(ctx, !x.again)
		}
		if err == nil {
			err = s.portable.run(ctx, statement)
		}
		if err != nil {
			return fmt.Errorf("settle a conflict of table %s: %w", x.plan.Source().Name, err)
		}
	}
	if err := s.portable.flush(ctx); err != nil {
		return err
	}
	return s.opt.Journal(ctx, s.conn, w.entries)
}

// unique settles a clash on secondary unique keys: of the change and the rows that hold its values, the newest stays.
func (w *settlement) unique(ctx context.Context, l *Link) error {
	s, c := w.session, w.clash
	plan, err := s.portable.plan(ctx, c.table)
	if err != nil {
		return err
	}
	values, err := image.Values(c.table, c.after)
	if err != nil {
		return err
	}
	holders, err := s.holders(ctx, plan, values)
	holders = slices.DeleteFunc(holders, func(h located) bool { return !slices.Contains(c.rivals, h.key) })
	if err != nil || len(holders) == 0 {
		return errors.Join(err, errNothingToSettle)
	}
	mine, err := s.rows(ctx, plan, [][]image.Value{values})
	if err == nil { // what would go with them is locked before the barrier
		err = s.lockBelow(ctx, c, slices.Concat(holders, mine))
	}
	if err == nil {
		err = l.reach(ctx, l.session)
	}
	if err == nil {
		err = l.awaitOthers(c.tx.Stamp.Context)
	}
	if err != nil {
		return err
	}
	if applies, err := w.applies(); err != nil || !applies {
		return errors.Join(err, errNothingToSettle)
	}
	kind := journal.UpdateExists
	if len(holders) > 1 {
		kind = journal.MultipleUnique
	}
	rivals := make([]conflict.Change, len(holders))
	strongest := 0
	for i, h := range holders {
		if rivals[i].Stamp, rivals[i].Known, err = s.newest(plan.Source(), h.key); err != nil {
			return err
		}
		if rivals[i].Stamp.Version.Compare(rivals[strongest].Stamp.Version) > 0 {
			strongest = i
		}
	}
	incoming := c.side(values)
	if !conflict.Prevails(c.tx.Stamp.Version, rivals) {
		winner := s.opt.Recent.side(c.table.Name, rivals[strongest].Stamp.Version, holders[strongest].row())
		return w.refuse(ctx, plan, kind, mine, winner, incoming)
	}
	for _, h := range holders {
		if err := w.remove(ctx, h, kind, incoming); err != nil {
			return err
		}
	}
	return nil
}

// applies reports whether the incoming change would still be applied to its row, which is locked now. Where a row is
// several registers, a newer change of the row need not concern what this one sets.
func (w *settlement) applies() (bool, error) {
	opt := &w.session.opt
	if opt.Registers.of(w.clash.table) != nil {
		return true, nil
	}
	known, found, err := opt.Index.Lookup(w.clash.key)
	return conflict.Decide(w.clash.tx.Stamp, known, found).Applies(), err
}

// refuse removes the row of the incoming change everywhere: it lost.
func (w *settlement) refuse(ctx context.Context, plan *dml.Plan, kind journal.Kind, here []located, winner, loser journal.Side) error {
	c := w.clash
	w.entries = append(w.entries, w.entry(c.table.Name, c.key, loser.Row, kind, winner, loser))
	if len(here) > 0 {
		if err := w.overwritten(here[0], kind, winner); err != nil {
			return err
		}
		return w.take(ctx, here[0], kind, winner, loser.Version)
	}
	return w.bury(plan.Source(), c.key, loser.Row.Values, kind, loser.Version)
}

// overwritten keeps the row of the target that the incoming change would have overwritten, unless it was made on top of it.
func (w *settlement) overwritten(h located, kind journal.Kind, winner journal.Side) error {
	known, found, err := w.session.newest(h.plan.Source(), h.key)
	if err != nil || !found || w.clash.tx.Stamp.Covers(known.Version) || known.Version == w.clash.tx.Stamp.Version {
		return err
	}
	loser := w.session.opt.Recent.side(h.plan.Source().Name, known.Version, h.row())
	w.entries = append(w.entries, w.entry(h.plan.Source().Name, h.key, h.row(), kind, winner, loser))
	return nil
}

// remove takes a row of the target away for the sake of a change.
func (w *settlement) remove(ctx context.Context, h located, kind journal.Kind, winner journal.Side) error {
	loser, err := w.side(h)
	if err != nil {
		return err
	}
	w.entries = append(w.entries, w.entry(h.plan.Source().Name, h.key, h.row(), kind, winner, loser))
	return w.take(ctx, h, kind, winner, loser.Version)
}

// take removes a row and, before it, what refers to it. loser is the change that is taken back by that.
func (w *settlement) take(ctx context.Context, h located, kind journal.Kind, winner journal.Side, loser change.Version) error {
	below, err := w.session.orphans(ctx, w.clash.tx.Stamp, []located{h}, family{unseen: true})
	if err != nil {
		return err
	}
	if err := w.dispose(below.settle, winner); err != nil {
		return err
	}
	w.writes = append(w.writes, write{plan: h.plan, change: dml.Change{Kind: change.Delete, Before: h.values}})
	return w.bury(h.plan.Source(), h.key, h.values, kind, loser)
}

// dispose removes orphans, or takes their parent from them.
func (w *settlement) dispose(orphans []orphan, winner journal.Side) error {
	for _, o := range orphans {
		loser, err := w.side(o.located)
		if err != nil {
			return err
		}
		table := o.plan.Source()
		if len(o.null) > 0 {
			after := o.without()
			w.say(table.Name, o.key, journal.ChildExists, change.Version{})
			w.writes = append(w.writes, write{plan: o.plan, change: dml.Change{Kind: change.Update, Before: o.values, After: after, Only: o.null}})
			winner := winner
			winner.Row = &journal.Row{Table: table, Values: after}
			w.entries = append(w.entries, w.entry(table.Name, o.key, o.row(), journal.ChildExists, winner, loser))
			continue
		}
		w.entries = append(w.entries, w.entry(table.Name, o.key, o.row(), journal.ChildExists, winner, loser))
		w.writes = append(w.writes, write{plan: o.plan, change: dml.Change{Kind: change.Delete, Before: o.values}})
		if err := w.bury(table, o.key, o.values, journal.ChildExists, loser.Version); err != nil {
			return err
		}
	}
	return nil
}

func (w *settlement) bury(t *change.Table, key change.Key, values []image.Value, kind journal.Kind, loser change.Version) error {
	encoded, err := image.EncodeKey(t, values)
	if err != nil {
		return err
	}
	w.buried = append(w.buried, checkpoint.TombstoneRow{
		Table: t.Name, Key: key, Reason: string(kind), Row: encoded, Clock: w.clash.tx.Stamp.Version.Time,
		Loser: loser,
	})
	return nil
}

// say notes a row that the settlement changes and that stays.
func (w *settlement) say(t change.TableName, key change.Key, kind journal.Kind, original change.Version) {
	w.buried = append(w.buried, checkpoint.TombstoneRow{
		Table: t, Key: key, Reason: string(kind), Clock: w.clash.tx.Stamp.Version.Time, Original: original,
	})
}

func (w *settlement) entry(table change.TableName, key change.Key, row *journal.Row, kind journal.Kind, winner, loser journal.Side) *journal.Entry {
	return &journal.Entry{
		Table: table, Key: key, KeyRow: row, Kind: kind, Policy: w.session.opt.Policy(table), Winner: winner, Loser: loser,
	}
}

// side is the newest known change of a row of the target.
func (w *settlement) side(h located) (journal.Side, error) {
	known, _, err := w.session.newest(h.plan.Source(), h.key)
	return w.session.opt.Recent.side(h.plan.Source().Name, known.Version, h.row()), err
}

func (h located) row() *journal.Row { return &journal.Row{Table: h.plan.Source(), Values: h.values} }

// side is the incoming change with the row as it leaves it; no values: it removes the row.
func (c *clash) side(values []image.Value) journal.Side {
	side := journal.Side{Version: c.tx.Stamp.Version, GTID: c.tx.GTID}
	if values != nil {
		side.Row = &journal.Row{Table: c.table, Values: values}
	}
	sign(&side, c.tx.Log, c.name(), side.Row)
	return side
}

func (c *clash) name() change.TableName {
	if c.table != nil {
		return c.table.Name
	}
	return c.parents[0].plan.Source().Name
}

// lockBelow locks the rows that would go with others.
func (s *session) lockBelow(ctx context.Context, c *clash, rows []located) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := s.orphans(ctx, c.tx.Stamp, rows, family{unseen: true})
	return err
}

// holders reads and locks the rows, but one's own, that have a value of one of the secondary unique keys.
func (s *session) holders(ctx context.Context, plan *dml.Plan, values []image.Value, own ...change.Key) ([]located, error) {
	var all []located
	target, source := plan.Target(), plan.Source()
	for _, unique := range target.UniqueKeys {
		parts, tuple, usable, err := uniqueValues(target, source, unique, values)
		if err != nil {
			return nil, err
		}
		if !usable {
			continue
		}
		found, err := s.where(ctx, plan, parts, [][]image.Value{tuple})
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			known := slices.ContainsFunc(all, func(h located) bool { return h.key == f.key })
			if !slices.Contains(own, f.key) && !known {
				all = append(all, f)
			}
		}
	}
	return all, nil
}

// uniqueValues are the values of a row that a unique key keeps apart; usable is false where one is NULL.
func uniqueValues(target *server.Table, source *change.Table, unique server.UniqueKey, values []image.Value) (
	parts []change.KeyPart, tuple []image.Value, usable bool, err error,
) {
	for _, p := range unique.Parts {
		if p.Column < 0 {
			return nil, nil, false, fault.New(fault.Definition,
				"index a generated column in the place of the expression, or leave the table out of the replicated tables",
				"a conflict on unique key %s of table %s cannot be settled: it is over an expression", unique.Name, target.Name)
		}
		at := columns(source, []string{target.Columns[p.Column].Name})[0]
		if at < 0 || values[at].Kind == image.Null {
			return nil, nil, false, nil
		}
		parts = append(parts, change.KeyPart{Column: at, Prefix: p.Prefix})
		tuple = append(tuple, values[at])
	}
	return parts, tuple, true, nil
}

// rows reads and locks rows by their primary keys.
func (s *session) rows(ctx context.Context, plan *dml.Plan, rows [][]image.Value) ([]located, error) {
	query, err := plan.SelectRows(rows, dml.Options{Lock: true})
	if err != nil {
		return nil, err
	}
	found, err := query.Run(ctx, s.conn)
	if err != nil {
		return nil, err
	}
	return s.locate(ctx, plan, found)
}
