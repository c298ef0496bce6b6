package mesh

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"replicator/fault"
	"replicator/server"
)

// personEvery is how often something that needs a person is tried again by itself.
const personEvery = 60 * time.Second

// settled is how long something must have run for its backoff to begin anew: a link that is cut every few seconds, and works
// in between, is not to wait longer from one cut to the next.
const settled = time.Second

// trouble is the fault that something is held up by, for people to see, and the way to have it tried again at once.
type trouble struct {
	mu      sync.Mutex
	fault   *Fault
	state   LinkState
	retries int64
	resume  chan struct{}
}

func newTrouble() *trouble { return &trouble{state: Starting, resume: make(chan struct{}, 1)} }

// set notes that an attempt has failed.
func (t *trouble) set(err error) *fault.Error {
	f := t.show(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retries++
	return f
}

// show notes what holds it up.
func (t *trouble) show(err error) *fault.Error {
	f := asFault(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = Stopped
	if f.Class.Transient() {
		t.state = Retrying
	}
	since := Timestamp(time.Now())
	if t.fault != nil && t.fault.Class == string(f.Class) {
		since = t.fault.Since
	}
	t.fault = &Fault{Class: string(f.Class), Message: f.Text(), Remedy: f.Remedy, Since: since}
	return f
}

func (t *trouble) clear(s LinkState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fault, t.state = nil, s
}

func (t *trouble) get() (*Fault, LinkState, int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fault, t.state, t.retries
}

// again has what is held up tried at once.
func (t *trouble) again() {
	select {
	case t.resume <- struct{}{}:
	default:
	}
}

// asFault gives every error a class and a remedy.
func asFault(err error) *fault.Error {
	if f, ok := fault.As(err); ok {
		return f
	}
	return server.Fault(err, "go on")
}

// supervise runs f again and again until the context ends: what time can heal with a growing pause, what needs a person
// every minute or when told. report hears of every failure.
func supervise(ctx context.Context, t *trouble, report func(*fault.Error, time.Duration), f func(context.Context) error) {
	bo := newBackOff()
	for {
		began := time.Now()
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("bug: it ended without an error")
		}
		if time.Since(began) > settled {
			bo.Reset()
		}
		pause := personEvery
		cause := t.set(err)
		if cause.Class.Transient() {
			pause = bo.NextBackOff()
		}
		report(cause, pause)
		select {
		case <-ctx.Done():
			return
		case <-t.resume:
			bo.Reset()
		case <-time.After(pause):
		}
	}
}

func newBackOff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(3*time.Second), backoff.WithMaxElapsedTime(0))
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
