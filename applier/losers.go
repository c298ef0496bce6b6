package applier

import (
	"context"
	"maps"
	"slices"

	"replicator/change"
	"replicator/conflict"
	"replicator/dml"
	"replicator/image"
	"replicator/journal"
	"replicator/server"
)

// losers collects what a group's decisions take from somebody: the journal's entries of the target transaction. All rows
// of the group are locked.
type losers struct {
	session *session
	entries map[change.Key]*journal.Entry // of a key, the last: what came before it was overwritten by its own origin
	order   []change.Key
	done    []*journal.Entry            // those that nothing later can replace
	read    map[change.Key]*journal.Row // rows of the target as they were before the group
}

func newLosers(s *session) *losers {
	return &losers{session: s, entries: map[change.Key]*journal.Entry{}, read: map[change.Key]*journal.Row{}}
}

// note takes one decision, before it is carried out.
func (l *losers) note(ctx context.Context, c rowChange, f fate, row state) error {
	by, taken, err := l.taken(ctx, c, f, row)
	switch {
	case err != nil:
		return err
	case taken:
		f.rival = by
	case !l.concerns(c, f, row):
		return nil
	}
	table, opt := c.ev.Table.Name, &l.session.opt
	if f.verdict == conflict.Apply && c.ev.Table.Settles != "" {
		var known bool
		if f.rival, known, err = l.session.newest(c.ev.Table, c.key); err != nil || !known {
			return err // what it removes was there before what it settles
		}
		if lost, said := c.tx.Losers[c.key]; said && lost != f.rival.Version {
			return nil // what it takes back is on its way, and will lose
		}
	}
	theirVersion := l.original(c, f.rival.Version)
	if restated, err := l.restated(c, f, theirVersion); err != nil || restated {
		return err
	}
	here, err := l.target(ctx, c, row)
	if err != nil {
		return err
	}
	mine, err := l.incoming(c)
	if err != nil {
		return err
	}
	settled := opt.Recent.settled(f.rival.Version)
	if here == nil && c.after == nil && (c.tx.Settles != "" || settled != "") {
		return nil // several servers settled the same conflict
	}
	if same(mine.Row, here) { // nothing is lost
		return nil
	}
	theirs := opt.Recent.side(table, f.rival.Version, here)
	theirs.Version = theirVersion
	e := &journal.Entry{
		Table: table, Key: c.key, KeyRow: mine.Row, Kind: c.kind(row&exists != 0, f.rival.Version != change.Version{}),
		Policy: opt.Policy(table), Winner: mine, Loser: theirs,
	}
	if _, again := c.tx.Originals[c.key]; settled != "" && !again {
		e.Kind = journal.Kind(settled)
	}
	if !f.verdict.Applies() {
		e.Winner, e.Loser = theirs, mine
	}
	if e.KeyRow == nil {
		if e.KeyRow, err = decoded(c.ev.Table, c.image); err != nil {
			return err
		}
	}
	if l.merges(c) {
		l.done = append(l.done, e)
		return nil
	}
	l.keep(e)
	return nil
}

// merges reports whether the columns of a change's table are merged. Then a row that is stated again holds values of many
// changes, and none of them stands for it; and what an origin loses of a row is not all that it wrote there before.
func (l *losers) merges(c rowChange) bool {
	g := l.session.opt.Registers.of(c.ev.Table)
	return g != nil && g.merged != nil
}

// original is the version of the change whose value a change of the target gives the row.
func (l *losers) original(c rowChange, v change.Version) change.Version {
	if l.merges(c) {
		return v
	}
	return l.session.opt.Recent.original(v, c.key)
}

// columns takes the decision about the columns of a row that is there, in a table whose columns are merged. An entry's two
// rows differ in what was lost alone: both have what the row will be otherwise.
func (l *losers) columns(ctx context.Context, c rowChange, fates []columnFate, row state) error {
	if !slices.ContainsFunc(fates, func(f columnFate) bool { return f.verdict.Conflict() }) {
		return nil
	}
	mine, err := l.incoming(c)
	if err != nil {
		return err
	}
	here, err := l.target(ctx, c, row)
	if err != nil {
		return err
	}
	if here == nil { // this group has written it
		here = mine.Row
	}
	stands := slices.Clone(here.Values)
	for _, i := range applied(fates) {
		stands[i] = mine.Row.Values[i]
	}
	automatic, err := l.session.automatic(ctx, c.ev.Table)
	if err != nil {
		return err
	}
	table, opt := c.ev.Table.Name, &l.session.opt
	var lost []*journal.Entry
	for _, f := range fates {
		if !f.verdict.Conflict() || automatic[f.column] {
			continue
		}
		winner, loser := mine, opt.Recent.side(table, f.rival.Version, here)
		from := here
		if !f.verdict.Applies() {
			winner, loser, from = loser, winner, mine.Row
		}
		at := slices.IndexFunc(lost, func(e *journal.Entry) bool { return e.Loser.Version == loser.Version })
		if at < 0 {
			winner.Row = &journal.Row{Table: c.ev.Table, Values: stands}
			loser.Row = &journal.Row{Table: c.ev.Table, Values: slices.Clone(stands)}
			at, lost = len(lost), append(lost, &journal.Entry{
				Table: table, Key: c.key, KeyRow: mine.Row, Kind: c.kind(true, true), Policy: opt.Policy(table), Winner: winner, Loser: loser,
			})
		}
		lost[at].Loser.Row.Values[f.column] = from.Values[f.column]
	}
	for _, e := range lost {
		if !same(e.Winner.Row, e.Loser.Row) {
			l.done = append(l.done, e)
		}
	}
	return nil
}

// restated reports whether what loses now will stand in the end: by the policy its origin states it again. Where that is
// the target itself, the error is the *clash that has it done first.
func (l *losers) restated(c rowChange, f fate, rival change.Version) (bool, error) {
	opt := &l.session.opt
	mine := stated(c.tx, c.key)
	switch {
	case !f.verdict.Conflict() || c.ev.Table.Settles != "":
		return false, nil
	case f.verdict == conflict.Lose:
		return opt.Prefers(c.ev.Table.Name, mine, rival), nil
	case !opt.Prefers(c.ev.Table.Name, rival, mine):
		return false, nil
	case rival.Origin == opt.Self:
		return false, &clash{kind: clashStand, tx: c.tx, table: c.ev.Table, key: c.key, before: c.image}
	}
	return true, nil
}

// concerns reports whether a decision belongs into the journal: a conflict, a row whose presence or absence no known
// change explains (the servers differed), or a row that is removed to settle a conflict.
func (l *losers) concerns(c rowChange, f fate, row state) bool {
	there := row&exists != 0
	switch {
	case f.verdict.Conflict():
		return true
	case f.verdict != conflict.Apply || row&touched != 0:
		return false
	case c.ev.Table.Settles != "":
		return there && len(l.session.opt.Index.Lacks(c.tx.Stamp.Context)) == 0
	}
	_, lostBefore := l.entries[c.key] // then this change was made on top of what lost
	arrives := c.ev.Kind == change.Insert || c.moved
	// What is still on its way explains everything.
	return there == arrives && !lostBefore && len(l.session.opt.Index.Lacks(c.tx.Stamp.Context)) == 0
}

// taken finds the deletion of a parent that has taken along the row that an update misses, be it of the target or of another
// server: neither was made on the other, and the row comes back. Where a server does not log what its foreign keys do, the
// index has no change of the row for that. If what the update was made on is still on its way, the row may not have been here
// at all; but there will be no second occasion to tell that it was. Where the parent is there again, its deletion is forgotten.
func (l *losers) taken(ctx context.Context, c rowChange, f fate, row state) (by change.Stamp, taken bool, err error) {
	s := l.session
	_, lostBefore := l.entries[c.key]
	if f.verdict != conflict.Apply || row&(exists|touched) != 0 || lostBefore || s.opt.CascadesLogged ||
		c.ev.Kind != change.Update || c.old == nil || c.ev.Table.Settles != "" {
		return by, false, nil
	}
	cascades := func(fk server.ForeignKey) bool { return fk.OnDelete == "CASCADE" }
	target, err := s.portable.tables(ctx, c.ev.Table.Name)
	if err != nil || target == nil || !slices.ContainsFunc(target.ForeignKeys, cascades) {
		return by, false, err
	}
	plan, err := s.portable.plan(ctx, c.ev.Table)
	if err != nil {
		return by, false, err
	}
	values, err := image.Values(c.ev.Table, c.old)
	if err != nil {
		return by, false, err
	}
	missing, err := s.missingParents(ctx, plan, values)
	if err != nil {
		return by, false, err
	}
	mine := c.tx.Stamp
	for _, fk := range slices.DeleteFunc(missing, func(fk server.ForeignKey) bool { return !cascades(fk) }) {
		deletion, _, err := s.departed(ctx, fk, c.ev.Table, values)
		if err != nil {
			return by, false, err
		}
		if theirs := deletion.Stamp; deletion.Known && !mine.Covers(theirs.Version) && !theirs.Covers(mine.Version) {
			return theirs, true, nil
		}
	}
	return by, false, nil
}

// same reports whether two rows that exist hold the same values.
func same(a, b *journal.Row) bool {
	return a != nil && b != nil && len(journal.Differing(a, b)) == 0
}

// keep notes an entry. What lost of the same key and origin before in this group was overwritten by that origin itself.
func (l *losers) keep(e *journal.Entry) {
	old, ok := l.entries[e.Key]
	switch {
	case !ok:
		l.order = append(l.order, e.Key)
	case old.Loser.Version.Origin != e.Loser.Version.Origin && old.Loser.Version.Origin != e.Winner.Version.Origin:
		l.done = append(l.done, old)
	}
	l.entries[e.Key] = e
}

// list returns all entries.
func (l *losers) list() []*journal.Entry {
	all := l.done
	for _, key := range l.order {
		all = append(all, l.entries[key])
	}
	return all
}

// target returns the row that the target has.
func (l *losers) target(ctx context.Context, c rowChange, row state) (*journal.Row, error) {
	if row&exists == 0 {
		return nil, nil
	}
	if r, ok := l.read[c.key]; ok {
		return r, nil
	}
	found, err := l.session.read(ctx, c.ev.Table, []change.Key{c.key}, [][]byte{c.image})
	return found[c.key], err
}

// prepare reads the rows that the transactions' conflicts are about, many at a time.
func (l *losers) prepare(ctx context.Context, txs []*change.Transaction, d *decisions, present presence) error {
	if len(d.rivals) == 0 {
		return nil
	}
	wanted := map[*change.Table]*batch{}
	i := 0
	for _, tx := range txs {
		err := tx.Body.Each(func(ev *change.RowsEvent) error {
			for _, r := range ev.Rows {
				err := l.session.opt.Registers.touches(ev, r, func(t touch) error {
					_, disputed := d.rivals[i]
					i++
					if _, known := l.read[t.row]; !disputed || known || !present.has(t.row) {
						return nil
					}
					img := ev.Before(r)
					if img == nil || t.row != r.Key {
						img = ev.After(r)
					}
					l.read[t.row] = nil
					if wanted[ev.Table] == nil {
						wanted[ev.Table] = &batch{}
					}
					wanted[ev.Table].add(t.row, img)
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for table, b := range wanted {
		for len(b.keys) > 0 {
			n := min(len(b.keys), lockBatch)
			found, err := l.session.read(ctx, table, b.keys[:n], b.images[:n])
			if err != nil {
				return err
			}
			maps.Copy(l.read, found)
			b.keys, b.images = b.keys[n:], b.images[n:]
		}
	}
	return nil
}

// batch is rows that are asked for together.
type batch struct {
	keys   []change.Key
	images [][]byte
}

func (b *batch) add(k change.Key, img []byte) {
	b.keys, b.images = append(b.keys, k), append(b.images, img)
}

// incoming is the side of the change that the link brings.
func (l *losers) incoming(c rowChange) (journal.Side, error) {
	side := journal.Side{Version: stated(c.tx, c.key), GTID: c.tx.GTID}
	if l.merges(c) {
		side.Version = c.tx.Stamp.Version
	}
	named, err := decoded(c.ev.Table, c.image)
	if err != nil {
		return side, err
	}
	if c.after != nil {
		if side.Row, err = decoded(c.ev.Table, c.after); err != nil {
			return side, err
		}
	}
	sign(&side, c.tx.Log, c.ev.Table.Name, named)
	return side, nil
}

// decoded is an image as a row of the journal.
func decoded(t *change.Table, img []byte) (*journal.Row, error) {
	if t.Settles != "" {
		table, values, err := image.DecodeKey(t.Name, img)
		return &journal.Row{Table: table, Values: values}, err
	}
	values, err := image.Values(t, img)
	return &journal.Row{Table: t, Values: values}, err
}

// read reads rows of the target that are locked.
func (s *session) read(ctx context.Context, t *change.Table, keys []change.Key, images [][]byte) (map[change.Key]*journal.Row, error) {
	if err := s.speak(ctx, namesPortable); err != nil {
		return nil, err
	}
	plan, rows, err := s.named(ctx, t, images)
	if err != nil {
		return nil, err
	}
	// Within REPEATABLE READ only a locking read sees the row as it is now.
	query, err := plan.SelectRows(rows, dml.Options{Lock: true})
	if err != nil {
		return nil, err
	}
	found, err := query.Run(ctx, s.conn)
	if err != nil {
		return nil, err
	}
	all := make(map[change.Key]*journal.Row, len(found))
	for _, f := range found {
		all[keys[f.Index]] = &journal.Row{Table: plan.Source(), Values: f.Values}
	}
	return all, nil
}

// named decodes images that name rows by their keys, for the plan of their table. Tombstones have the key alone: it is
// put into a row of the target's definition.
func (s *session) named(ctx context.Context, t *change.Table, images [][]byte) (*dml.Plan, [][]image.Value, error) {
	if t.Settles != "" {
		return s.portable.buried(ctx, t, images)
	}
	plan, err := s.portable.plan(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	rows := make([][]image.Value, len(images))
	for i, img := range images {
		if rows[i], err = image.Values(t, img); err != nil {
			return nil, nil, err
		}
	}
	return plan, rows, nil
}
