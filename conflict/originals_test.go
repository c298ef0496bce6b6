package conflict_test

import (
	"testing"

	"replicator/change"
	"replicator/conflict"
)

var (
	here  = serverID(0)
	there = serverID(1)
)

func at(t change.Time, origin change.ServerID) change.Stamp {
	return change.Stamp{Version: change.Version{Time: t, Origin: origin}}
}

func TestOriginalIsKnownUntilItsRestatementIsStable(t *testing.T) {
	s := conflict.NewState(here, conflict.FullMesh(here, there), conflict.Limits{})
	first, again := at(10, here).Version, at(20, here)
	if err := s.Local(again, []change.Key{keyOf(1)}); err != nil {
		t.Fatal(err)
	}
	s.Reasserted(keyOf(1), again.Version, first)
	if got := s.Original(keyOf(1), again.Version); got != first {
		t.Errorf("original of the restatement: %v, want %v", got, first)
	}
	later := at(30, here).Version
	if got := s.Original(keyOf(1), later); got != later {
		t.Errorf("original of a later change: %v, want itself", got)
	}
	s.Applied(there, change.Clock{Time: 40, Context: change.Context{}.With(here, 20)})
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if got := s.Original(keyOf(1), again.Version); got != again.Version {
		t.Errorf("original after the restatement is stable: %v, want it forgotten", got)
	}
}

func TestLifeTakesThePlaceOfUpdates(t *testing.T) {
	for name, limits := range map[string]conflict.Limits{
		"in memory": {Lives: true},
		"spilled":   {Lives: true, Entries: 1, Store: mapStore{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := conflict.NewState(here, conflict.FullMesh(here, there), limits)
			row, life := conflict.RowKey(keyOf(1)), conflict.LifeKey(keyOf(1))
			feed := func(stamp change.Stamp, key change.Key) {
				t.Helper()
				if err := s.Local(stamp, []change.Key{key}); err != nil {
					t.Fatal(err)
				}
			}
			feed(at(30, there), row)
			feed(at(5, here), conflict.RowKey(keyOf(2)))
			feed(at(10, here), life)
			if found, known, err := s.Lookup(row); err != nil || known && found.Version.Time != 10 {
				t.Errorf("the update of the former life is still there: %v, %v", found, err)
			}
			feed(at(20, here), row)
			if found, known, err := s.Lookup(row); err != nil || !known || found.Version.Time != 20 {
				t.Errorf("update of the present life: %v, %v, %v", found, known, err)
			}
			if found, known, err := s.Lookup(life); err != nil || !known || found.Version.Time != 10 {
				t.Errorf("life: %v, %v, %v", found, known, err)
			}
		})
	}
}
