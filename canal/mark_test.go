package canal_test

import (
	"testing"
	"time"

	"replicator/change"
	"replicator/checkpoint"
)

func now() change.Time { return change.TimeOf(time.Now()) }

// mark commits a replicated transaction as the applier does: marker rows first, then what it applied.
func (s *source) mark(t *testing.T, source change.ServerID, seq uint64, clock change.Clock, manifest []change.ManifestEntry,
	db string, applied ...string,
) {
	t.Helper()
	ctx := t.Context()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	owner := checkpoint.NewOwner()
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := conn.ExecContext(ctx, query, args...); err != nil {
			t.Fatalf("%.100s: %v", query, err)
		}
	}
	exec("INSERT IGNORE INTO replicator.marker (source, seq, position, clock, manifest, owner, applied_at) "+
		"VALUES (?, ?, '', ?, '', ?, UTC_TIMESTAMP(6))", source[:], seq, clock.AppendBinary(nil), owner[:])
	w, err := checkpoint.NewWriter(ctx, conn, source, owner)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	exec("BEGIN")
	if _, err = w.Insert(ctx, seq, seq, change.NewGTIDSet(s.flavor), clock, entries(manifest),
		func(error) bool { return false }); err != nil {
		t.Fatal(err)
	}
	for _, statement := range applied {
		exec(statement)
	}
	exec("COMMIT")
}

func (s *source) beat(t *testing.T, applied change.Context) {
	t.Helper()
	if err := checkpoint.Beat(t.Context(), s.db, applied); err != nil {
		t.Fatal(err)
	}
}

// entries makes a manifest to be written.
func entries(manifest []change.ManifestEntry) []checkpoint.Entry {
	out := make([]checkpoint.Entry, 0, len(manifest))
	for _, e := range manifest {
		out = append(out, checkpoint.Entry{
			GTID: e.GTID, Stamp: e.Stamp, Count: len(e.Keys), Keys: func(yield func(change.Key) error) error {
				for _, k := range e.Keys {
					if err := yield(k); err != nil {
						return err
					}
				}
				return nil
			},
		})
	}
	return out
}
