package checkpoint

import (
	"crypto/rand"
	"reflect"
	"testing"

	"replicator/change"
)

func join(entries []change.ManifestEntry) (all []byte, pieces int) {
	for piece := range EncodeManifest(entries) {
		all = append(all, piece...)
		pieces++
	}
	return all, pieces
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
		all, pieces := join(want)
		if keys == 100_000 && pieces < 9 {
			t.Errorf("%d bytes came in %d pieces", len(all), pieces)
		}
		got, err := DecodeManifest(all)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("with %d keys: got another manifest back", keys)
		}
	}
	if all, pieces := join(nil); pieces != 0 || len(all) != 0 {
		t.Errorf("an empty manifest has %d pieces", pieces)
	}
}

func TestManifestCutShortIsRefused(t *testing.T) {
	all, _ := join(sampleManifest(2))
	whole, err := DecodeManifest(all)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(all); n++ {
		// A cut between two entries cannot be seen here: the rows of one transaction arrive whole or not at all.
		if got, err := DecodeManifest(all[:n]); err == nil && len(got) >= len(whole) {
			t.Errorf("cut at %d of %d bytes: read %d entries", n, len(all), len(got))
		}
	}
}

func FuzzDecodeManifest(f *testing.F) {
	all, _ := join(sampleManifest(2))
	f.Add(all)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := DecodeManifest(b)
		if err != nil || len(b) == 0 {
			return
		}
		again, _ := join(entries)
		back, err := DecodeManifest(again)
		if err != nil {
			t.Fatalf("what was decoded cannot be read again: %v", err)
		}
		if len(entries) > 0 && !reflect.DeepEqual(entries, back) {
			t.Fatal("a second round gives another manifest")
		}
	})
}
