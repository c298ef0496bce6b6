package canal

import (
	"context"
	"errors"
	"sync"
)

// queue hands items from one goroutine to another in batches. It is bounded by weight: put blocks while the queue holds
// limit or more, so one item above the limit still passes.
type queue[T any] struct {
	limit int64

	mu     sync.Mutex
	items  []T
	weight int64
	err    error // why nothing more comes

	filled  chan struct{} // holds one token while take may have something to do
	drained chan struct{} // holds one token while put may go on
	closed  chan struct{}
	once    sync.Once
}

var errClosed = errors.New("the reader is closed")

func newQueue[T any](limit int64) *queue[T] {
	return &queue[T]{
		limit: limit, filled: make(chan struct{}, 1), drained: make(chan struct{}, 1), closed: make(chan struct{}),
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put appends an item. There is one goroutine that puts.
func (q *queue[T]) put(item T, weight int64) error {
	for {
		q.mu.Lock()
		if q.weight < q.limit {
			q.items = append(q.items, item)
			q.weight += weight
			first := len(q.items) == 1
			q.mu.Unlock()
			if first {
				signal(q.filled)
			}
			return nil
		}
		q.mu.Unlock()
		select {
		case <-q.drained:
		case <-q.closed:
			return errClosed
		}
	}
}

// fail says that nothing more comes. What was put before is still taken.
func (q *queue[T]) fail(err error) {
	q.mu.Lock()
	if q.err == nil {
		q.err = err
	}
	q.mu.Unlock()
	signal(q.filled)
}

// take waits for items and returns all there are; spare is reused for the next ones. A token in wake, which may be nil,
// makes it return none. There is one goroutine that takes.
func (q *queue[T]) take(ctx context.Context, spare []T, wake <-chan struct{}) ([]T, error) {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			items := q.items
			q.items, q.weight = spare[:0], 0
			q.mu.Unlock()
			signal(q.drained)
			return items, nil
		}
		err := q.err
		q.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-q.filled:
		case <-wake:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// waiting reports whether take would return at once.
func (q *queue[T]) waiting() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) > 0
}

// close lets a blocked put return. It may be called more than once.
func (q *queue[T]) close() { q.once.Do(func() { close(q.closed) }) }
