package mesh

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"replicator/fault"
)

// A link that is cut off again and again, and works in between, is tried again as soon as after the first cut.
func TestPausesDoNotGrowOverWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var pauses []time.Duration
		report := func(_ *fault.Error, pause time.Duration) {
			if pauses = append(pauses, pause); len(pauses) == 10 {
				cancel()
			}
		}
		supervise(ctx, newTrouble(), report, func(ctx context.Context) error {
			if err := wait(ctx, 1500*time.Millisecond); err != nil {
				return err
			}
			return fault.New(fault.Network, "wait", "the connection is cut")
		})
		for i, p := range pauses {
			if p > 200*time.Millisecond {
				t.Errorf("the pause after cut %d is %s", i+1, p)
			}
		}
	})
}

// What fails at once is tried less and less often.
func TestPausesGrowWithoutWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var last time.Duration
		runs := 0
		report := func(_ *fault.Error, pause time.Duration) {
			if last = pause; runs == 15 {
				cancel()
			}
		}
		supervise(ctx, newTrouble(), report, func(context.Context) error {
			runs++
			return fault.New(fault.Network, "wait", "refused")
		})
		if last < time.Second || last > 5*time.Second {
			t.Errorf("the pause after %d failures is %s", runs, last)
		}
	})
}

// What holds up a link's server shows on the link, and is no attempt of it.
func TestServersRetriesAreNotTheLinks(t *testing.T) {
	x, l := &member{trouble: newTrouble()}, &link{trouble: newTrouble()}
	_ = x.trouble.set(fault.New(fault.Network, "wait", "refused"))
	for range 5 {
		l.hold(x)
	}
	f, state, retries := l.trouble.get()
	if f == nil || state != Retrying || retries != 0 {
		t.Errorf("fault %v, state %s, %d retries", f, state, retries)
	}
	_ = l.trouble.set(fault.New(fault.Network, "wait", "refused"))
	if _, _, retries := l.trouble.get(); retries != 1 {
		t.Errorf("%d retries after one attempt", retries)
	}
}
