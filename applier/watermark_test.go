package applier

import (
	"context"
	"errors"
	"testing"

	"replicator/change"
)

func TestWatermark(t *testing.T) {
	at := func(file string, offset uint64) change.FilePosition {
		return change.FilePosition{File: file, Offset: offset}
	}
	var w Watermark
	w.Reached(at("b.000009", 500))
	if err := w.Wait(t.Context(), at("b.000009", 500)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Wait(context.Background(), at("b.000010", 4)) }()
	w.Reached(at("b.000009", 900))
	w.Reached(at("b.000009", 100)) // a restarted tailer takes nothing back
	select {
	case err := <-done:
		t.Fatalf("Wait returned %v before its position", err)
	default:
	}
	w.Reached(at("b.000010", 4))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Wait(ctx, at("b.000011", 4)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled Wait returned %v", err)
	}
	if len(w.waiting) != 0 {
		t.Error("a cancelled Wait was not forgotten")
	}
}
