package canal_test

import (
	"slices"
	"testing"
	"time"

	"replicator/change"
	"replicator/checkpoint"
)

// TestTombstonesCountOnce: a tombstone is a delete of its row when it is written, and nothing when it is trimmed.
func TestTombstonesCountOnce(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		start := s.start(t)
		row := checkpoint.TombstoneRow{
			Table: change.TableName{Database: db, Table: "t"}, Key: change.Key{7}, Reason: "update_exists", Row: []byte{1},
			Clock: now() + change.Time(time.Hour.Microseconds()),
		}
		if err := checkpoint.Bury(t.Context(), s.db, []checkpoint.TombstoneRow{row}); err != nil {
			t.Fatal(err)
		}
		n, err := checkpoint.TrimTombstones(t.Context(), s.db, time.Hour)
		if err != nil || n != 0 {
			t.Fatalf("%d tombstones of the last hour are removed: %v", n, err)
		}
		if n, err = checkpoint.TrimTombstones(t.Context(), s.db, 0); err != nil || n != 1 {
			t.Fatalf("%d tombstones are removed, want 1: %v", n, err)
		}
		txs := s.mustRead(t, s.options(t, db), start)
		if len(txs) != 2 {
			t.Fatalf("got %d transactions, want 2", len(txs))
		}
		buried, trimmed := txs[0], txs[1]
		if buried.Kind != change.Local || buried.Stamp.Version.Time <= row.Clock {
			t.Errorf("the tombstone is read as %s at %s, want a local change after %s", buried.Kind, buried.Stamp.Version, row.Clock)
		}
		if got := deletedKeys(t, buried); !slices.Equal(got, []change.Key{row.Key}) {
			t.Errorf("the tombstone is read as a delete of %v, want %v", got, row.Key)
		}
		if trimmed.Kind != change.Passive || len(deletedKeys(t, trimmed)) != 0 || trimmed.Settles != "" {
			t.Errorf("the trimming is read as %s of %v, settles %q", trimmed.Kind, deletedKeys(t, trimmed), trimmed.Settles)
		}
	})
}

// deletedKeys lists the keys of the rows that a transaction deletes; any other change fails the test.
func deletedKeys(t *testing.T, tx *change.Transaction) (keys []change.Key) {
	t.Helper()
	if tx.Body == nil {
		return nil
	}
	err := tx.Body.Each(func(ev *change.RowsEvent) error {
		for _, r := range ev.Rows {
			if ev.Kind != change.Delete {
				t.Errorf("%s in %s", ev.Kind, ev.Table.Name)
			}
			keys = append(keys, r.Key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
