package applier

import (
	"context"
	"sync"

	"replicator/change"
)

// Watermark is how far the owner's tailer has read a target's binlog and fed the change index. Groups wait for it at
// their barrier.
type Watermark struct {
	mu      sync.Mutex
	reached change.FilePosition
	waiting []waiter
}

type waiter struct {
	until change.FilePosition
	done  chan struct{}
}

// Reached reports that everything before p is in the index. Positions that go back are a restarted tailer's: what was
// reached before stays reached, because the index is not emptied.
func (w *Watermark) Reached(p change.FilePosition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Compare(w.reached) <= 0 {
		return
	}
	w.reached = p
	kept := w.waiting[:0]
	for _, x := range w.waiting {
		if x.until.Compare(p) <= 0 {
			close(x.done)
		} else {
			kept = append(kept, x)
		}
	}
	w.waiting = kept
}

// Wait returns when everything before p is in the index, or with the context's error.
func (w *Watermark) Wait(ctx context.Context, p change.FilePosition) error {
	w.mu.Lock()
	if p.Compare(w.reached) <= 0 {
		w.mu.Unlock()
		return nil
	}
	x := waiter{until: p, done: make(chan struct{})}
	w.waiting = append(w.waiting, x)
	w.mu.Unlock()
	select {
	case <-x.done:
		return nil
	case <-ctx.Done():
		w.forget(x)
		return context.Cause(ctx)
	}
}

func (w *Watermark) forget(x waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.waiting {
		if w.waiting[i].done == x.done {
			w.waiting[i] = w.waiting[len(w.waiting)-1]
			w.waiting = w.waiting[:len(w.waiting)-1]
			return
		}
	}
}

// Position returns what has been reached.
func (w *Watermark) Position() change.FilePosition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reached
}
