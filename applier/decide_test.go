package applier

import (
	"slices"
	"testing"

	"replicator/change"
	"replicator/conflict"
)

// known is an index that says what it was told.
type known map[change.Key]change.Stamp

func (k known) Lookup(key change.Key) (change.Stamp, bool, error) {
	s, ok := k[key]
	return s, ok, nil
}

var (
	here, there = change.ServerID{1}, change.ServerID{2}
	rowA, rowB  = change.Key{0xa}, change.Key{0xb}
)

func stampOf(origin change.ServerID, at change.Time, context change.Context) change.Stamp {
	return change.Stamp{Version: change.Version{Time: at, Origin: origin}, Context: context}
}

// oneRow is a transaction with one changed row, whose images are the bytes "old" and "new".
func oneRow(kind change.RowKind, at change.Time, before, after change.Key) *change.Transaction {
	row := change.Row{Before: change.Span{Offset: 0, Length: 3}, After: change.Span{Offset: 3, Length: 3}, Key: before, NewKey: after}
	switch kind {
	case change.Insert:
		row.Before = change.Span{}
	case change.Delete:
		row.After = change.Span{}
	case change.Update:
	}
	return &change.Transaction{
		Kind: change.Local, Stamp: stampOf(there, at, nil), Rows: 1,
		Body: change.Events{{Table: &change.Table{}, Kind: kind, Data: []byte("oldnew"), Rows: []change.Row{row}}},
	}
}

func TestLockedRowsAreCarriedOutAsTheyStand(t *testing.T) {
	type want struct {
		ops  []string // kind before after
		lost int64
	}
	cases := []struct {
		name          string
		kind          change.RowKind
		before, after change.Key
		present       presence
		index         known
		want          want
	}{
		{"insert of an absent row", change.Insert, rowA, rowA, presence{}, nil, want{ops: []string{"insert - new"}}},
		{"insert over a row", change.Insert, rowA, rowA, presence{rowA: exists}, nil, want{ops: []string{"update new new"}}},
		{"update of a row", change.Update, rowA, rowA, presence{rowA: exists}, nil, want{ops: []string{"update old new"}}},
		{"update of an absent row", change.Update, rowA, rowA, presence{}, nil, want{ops: []string{"insert - new"}}},
		{"delete of a row", change.Delete, rowA, rowA, presence{rowA: exists}, nil, want{ops: []string{"delete old -"}}},
		{"delete of an absent row", change.Delete, rowA, rowA, presence{}, nil, want{}},
		{
			"update that lost", change.Update, rowA, rowA,
			presence{rowA: exists},
			known{rowA: stampOf(here, 100, nil)},
			want{lost: 1},
		},
		{"changed key", change.Update, rowA, rowB, presence{rowA: exists}, nil, want{ops: []string{"update old new"}}},
		{
			"changed key onto a row", change.Update, rowA, rowB,
			presence{rowA: exists, rowB: exists},
			nil,
			want{ops: []string{"delete old -", "update new new"}},
		},
		{"changed key of an absent row", change.Update, rowA, rowB, presence{}, nil, want{ops: []string{"insert - new"}}},
		{
			"changed key whose old row lost", change.Update, rowA, rowB,
			presence{rowA: exists},
			known{rowA: stampOf(here, 100, nil)},
			want{ops: []string{"insert - new"}, lost: 1},
		},
		{
			"changed key whose new row lost", change.Update, rowA, rowB,
			presence{rowA: exists, rowB: exists},
			known{rowB: stampOf(here, 100, nil)},
			want{ops: []string{"delete old -"}, lost: 1},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tx := oneRow(c.kind, 50, c.before, c.after)
			ops, outcome := carryOut(t, c.index, c.present, tx)
			if !slices.Equal(ops, c.want.ops) {
				t.Errorf("carried out %q, want %q", ops, c.want.ops)
			}
			if outcome.Lost != c.want.lost || outcome.Rows != 1 {
				t.Errorf("outcome %+v, want %d lost of 1", outcome, c.want.lost)
			}
		})
	}
}

// carryOut decides transactions and returns the operations in words.
func carryOut(t *testing.T, ix known, present presence, txs ...*change.Transaction) ([]string, Outcome) {
	t.Helper()
	d, err := enlist(txs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.judge(ix); err != nil {
		t.Fatal(err)
	}
	x := newExecution(d, nil, present, nil)
	var words []string
	show := func(img []byte) string {
		if img == nil {
			return "-"
		}
		return string(img)
	}
	for _, tx := range txs {
		err := tx.Body.Each(func(ev *change.RowsEvent) error {
			ops, asIs, err := x.event(t.Context(), ev)
			if asIs {
				words = append(words, "as is")
			}
			for _, op := range ops {
				words = append(words, op.Kind.String()+" "+show(op.Before)+" "+show(op.After))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return words, x.outcome
}

func TestPresenceFollowsTheGroup(t *testing.T) {
	ops, _ := carryOut(t, nil, presence{}, oneRow(change.Insert, 1, rowA, rowA), oneRow(change.Delete, 2, rowA, rowA),
		oneRow(change.Delete, 3, rowA, rowA), oneRow(change.Update, 4, rowA, rowA), oneRow(change.Insert, 5, rowA, rowA))
	want := []string{"insert - new", "delete old -", "insert - new", "update new new"}
	if !slices.Equal(ops, want) {
		t.Errorf("carried out %q, want %q", ops, want)
	}
}

func TestConcurrentOverwriteIsCountedOncePerGroup(t *testing.T) {
	ix := known{rowA: stampOf(here, 10, nil)}
	ops, outcome := carryOut(t, ix, nil, oneRow(change.Update, 11, rowA, rowA), oneRow(change.Update, 12, rowA, rowA))
	if !slices.Equal(ops, []string{"as is", "as is"}) || outcome.Overwritten != 1 {
		t.Errorf("carried out %q with %+v, want both as they are and one overwritten", ops, outcome)
	}
}

// Where columns are merged, every change of a group that begins a row leaves alone what is newer in its columns.
func TestRowsOfOneGroupMergeAlike(t *testing.T) {
	table := &change.Table{Columns: []change.Column{{Name: "a"}, {Name: "b"}}}
	registers := NewRegisters(func(change.TableName) []string { return nil }, func(change.TableName) bool { return true })
	var txs []*change.Transaction
	for _, at := range []change.Time{50, 60} {
		tx := oneRow(change.Insert, at, rowA, rowA)
		tx.Body.(change.Events)[0].Table = table
		txs = append(txs, tx)
	}
	d, err := enlist(txs, registers)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.judge(known{conflict.ColumnKey(rowA, "a"): stampOf(here, 100, nil)}); err != nil {
		t.Fatal(err)
	}
	x := newExecution(d, registers, presence{rowA: exists}, nil)
	for i, tx := range txs {
		x.tx = tx
		ops, _, err := x.event(t.Context(), tx.Body.(change.Events)[0])
		if err != nil || len(ops) != 1 || ops[0].Kind != change.Update || !slices.Equal(ops[0].Only, []int{1}) {
			t.Errorf("change %d: %+v %v, want an update of column b alone", i, ops, err)
		}
	}
	if x.outcome.Overwritten > 1 {
		t.Errorf("%d rows overwritten", x.outcome.Overwritten)
	}
}

func TestSupersededIsNoConflict(t *testing.T) {
	ix := known{rowA: stampOf(here, 100, change.Context{}.With(there, 60))}
	ops, outcome := carryOut(t, ix, nil, oneRow(change.Update, 50, rowA, rowA))
	if len(ops) != 0 || outcome.Superseded != 1 || outcome.Lost != 0 {
		t.Errorf("carried out %q with %+v, want nothing and one superseded", ops, outcome)
	}
}

func TestMixedKeyVerdictsNeedLocks(t *testing.T) {
	d, err := enlist([]*change.Transaction{oneRow(change.Update, 50, rowA, rowB)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.judge(known{rowB: stampOf(here, 100, nil)}); err != nil {
		t.Fatal(err)
	}
	if n := d.manifest[0].Count; n != 2 {
		t.Fatalf("a changed key has %d keys in the manifest, want 2", n)
	}
	tx := oneRow(change.Update, 50, rowA, rowB)
	err = tx.Body.Each(func(ev *change.RowsEvent) error {
		_, _, err := newExecution(d, nil, nil, nil).event(t.Context(), ev)
		return err
	})
	if err != errLockFirst { //nolint:errorlint // the very value
		t.Errorf("got %v, want errLockFirst", err)
	}
}

func TestJudgeNoticesAChangedVerdict(t *testing.T) {
	d, err := enlist([]*change.Transaction{oneRow(change.Update, 50, rowA, rowA)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ix := known{}
	if _, err := d.judge(ix); err != nil {
		t.Fatal(err)
	}
	ix[rowA] = stampOf(here, 40, nil)
	if changed, _ := d.judge(ix); !changed || d.verdicts[0] != conflict.ApplyOver {
		t.Errorf("changed=%v verdict=%v: what an older concurrent entry loses belongs in the journal", changed, d.verdicts[0])
	}
	if changed, _ := d.judge(ix); changed || d.rivals[0].Version.Time != 40 {
		t.Errorf("changed=%v rivals=%v: the same verdict again is no change", changed, d.rivals)
	}
	ix[rowA] = stampOf(here, 60, nil)
	if changed, _ := d.judge(ix); !changed {
		t.Error("a newer entry did not change the verdict")
	}
}

// BenchmarkDecide lists and judges a group of transactions of one row each, twice as every group is.
func BenchmarkDecide(b *testing.B) {
	const size = 1000
	txs := make([]*change.Transaction, size)
	for i := range txs {
		key := change.Key{byte(i), byte(i >> 8), 1}
		txs[i] = oneRow(change.Update, change.Time(100+i), key, key)
	}
	ix := known{}
	b.ReportAllocs()
	for b.Loop() {
		d, err := enlist(txs, nil)
		if err != nil {
			b.Fatal(err)
		}
		for range 2 {
			if _, err := d.judge(ix); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(size*b.N), "ns/tx")
}
