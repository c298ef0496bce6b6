package applier

import (
	"testing"

	"replicator/change"
)

func TestRecentRemembersTheNewest(t *testing.T) {
	r := NewRecent()
	version := func(n int) change.Version { return change.Version{Time: change.Time(n)} }
	const all = 5*recentTransactions + 3
	for n := 1; n <= all; n++ {
		r.NoteEntry(&change.ManifestEntry{Stamp: change.Stamp{Version: version(n)}, GTID: change.GTID{Number: uint64(n)}})
	}
	for n := all - recentTransactions + 1; n <= all; n++ {
		if gtid := r.gtids.get(version(n)); gtid.Number != uint64(n) {
			t.Fatalf("transaction %d of %d is forgotten", n, all)
		}
	}
	if n := len(r.gtids.newer) + len(r.gtids.older); n > 2*recentTransactions {
		t.Errorf("it remembers %d transactions", n)
	}
}

func TestRecentKeepsWhatTellsMore(t *testing.T) {
	r := NewRecent()
	entry := &change.ManifestEntry{Stamp: change.Stamp{Version: change.Version{Time: 1}}}
	r.NoteEntry(entry)
	r.Note(&change.Transaction{Stamp: entry.Stamp, Settles: "update_exists"})
	r.NoteEntry(entry)
	if r.settled(entry.Stamp.Version) != "update_exists" {
		t.Error("a manifest has replaced the whole transaction")
	}
}

func BenchmarkRecent(b *testing.B) {
	r := NewRecent()
	entry := &change.ManifestEntry{}
	for b.Loop() {
		entry.Stamp.Version.Time++
		r.NoteEntry(entry)
	}
}
