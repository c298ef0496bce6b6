package checkpoint

import (
	"crypto/rand"
	"reflect"
	"slices"
	"testing"

	"replicator/change"
)

// written makes entries to be written of entries that were read.
func written(entries []change.ManifestEntry) []Entry {
	var out []Entry
	for _, e := range entries {
		out = append(out, Entry{GTID: e.GTID, Stamp: e.Stamp, Count: len(e.Keys), Keys: func(yield func(change.Key) error) error {
			for _, k := range e.Keys {
				if err := yield(k); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	return out
}

func encode(tb testing.TB, entries []change.ManifestEntry) (pieces [][]byte) {
	tb.Helper()
	err := EncodeManifest(written(entries), func(piece []byte) error {
		pieces = append(pieces, slices.Clone(piece))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return pieces
}

// whole joins the parts of entries.
func whole(parts []change.ManifestEntry) []change.ManifestEntry {
	var entries []change.ManifestEntry
	for _, p := range parts {
		if n := len(entries); n > 0 && entries[n-1].GTID == p.GTID && len(p.Keys) > 0 && entries[n-1].Stamp.Version == p.Stamp.Version {
			entries[n-1].Keys = append(slices.Clone(entries[n-1].Keys), p.Keys...)
			continue
		}
		entries = append(entries, p)
	}
	return entries
}

func sampleManifest(keys int) []change.ManifestEntry {
	a, b := change.NewServerID(), change.NewServerID()
	ctx := change.Context{}.With(b, 77)
	entries := []change.ManifestEntry{
		{GTID: change.GTID{UUID: a, Number: 5}, Stamp: change.Stamp{Version: change.Version{Time: 1e15, Origin: a}, Context: ctx}},
		{GTID: change.GTID{UUID: a, Number: 6}, Stamp: change.Stamp{Version: change.Version{Time: 1e15 + 3, Origin: a}, Context: ctx}},
		{GTID: change.GTID{UUID: a, Tag: "tag", Number: 1}, Stamp: change.Stamp{Version: change.Version{Time: 1e15 + 4, Origin: a}, Context: ctx.With(b, 99)}},
		{GTID: change.GTID{Domain: 3, Server: 9, Number: 12}, Stamp: change.Stamp{Version: change.Version{Time: 5, Origin: b}}},
	}
	for i := range entries {
		for range keys * i {
			var k change.Key
			_, _ = rand.Read(k[:])
			entries[i].Keys = append(entries[i].Keys, k)
		}
	}
	return entries
}

func TestManifestRoundTrip(t *testing.T) {
	for _, keys := range []int{0, 1, 2, 100_000} {
		want := sampleManifest(keys)
		pieces := encode(t, want)
		if keys == 100_000 && len(pieces) < 9 {
			t.Errorf("%d keys came in %d pieces", 6*keys, len(pieces))
		}
		got, err := DecodeManifest(pieces...)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(whole(got), want) {
			t.Errorf("with %d keys: got another manifest back", keys)
		}
	}
	if pieces := encode(t, nil); len(pieces) != 0 {
		t.Errorf("an empty manifest has %d pieces", len(pieces))
	}
}

func TestManifestCountsItsKeys(t *testing.T) {
	entries := written(sampleManifest(2))
	entries[2].Count++
	if err := EncodeManifest(entries, func([]byte) error { return nil }); err == nil {
		t.Error("a manifest with a wrong count was written")
	}
}

func TestManifestCutShortIsRefused(t *testing.T) {
	all := encode(t, sampleManifest(2))[0]
	complete, err := DecodeManifest(all)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(all); n++ {
		// A cut between two entries cannot be seen here: the rows of one transaction arrive whole or not at all.
		if got, err := DecodeManifest(all[:n]); err == nil && len(got) >= len(complete) {
			t.Errorf("cut at %d of %d bytes: read %d entries", n, len(all), len(got))
		}
	}
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add(encode(f, sampleManifest(2))[0])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := DecodeManifest(b)
		if err != nil {
			return
		}
		back, err := DecodeManifest(encode(t, entries)...)
		if err != nil {
			t.Fatalf("what was decoded cannot be read again: %v", err)
		}
		if len(entries) > 0 && !reflect.DeepEqual(entries, back) {
			t.Fatal("a second round gives another manifest")
		}
	})
}
