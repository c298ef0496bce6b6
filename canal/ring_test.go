package canal

import (
	"errors"
	"testing"

	"replicator/change"
)

func numbered(n uint64) *change.Transaction {
	return &change.Transaction{GTID: change.GTID{UUID: [16]byte{1}, Number: n}}
}

func covering(numbers ...uint64) change.GTIDSet {
	s := change.NewGTIDSet(change.MySQL)
	for _, n := range numbers {
		s.Add(numbered(n).GTID)
	}
	return s
}

func TestRingKeepsTheNewest(t *testing.T) {
	var r ring
	r.reset(covering(1, 2))
	for n := uint64(3); n <= 100; n++ {
		r.push(numbered(n), 100, 1000)
		if r.memory > 1000 || r.len() == 0 {
			t.Fatalf("behind %d the ring holds %d bytes in %d transactions", n, r.memory, r.len())
		}
		if got := r.at(r.end() - 1).GTID.Number; got != n {
			t.Fatalf("the newest is %d, want %d", got, n)
		}
	}
	if r.len() != 10 || r.first+uint64(r.len()) != r.end() || len(r.entries) > 40 {
		t.Errorf("%d transactions in %d places", r.len(), len(r.entries))
	}
	r.push(numbered(101), 5000, 1000)
	if r.len() != 1 {
		t.Errorf("%d transactions stay beside one that is larger than the ring", r.len())
	}
	if r.base.Contains(numbered(101).GTID) || !r.base.Contains(numbered(100).GTID) {
		t.Errorf("the base is %s", r.base)
	}
}

func TestRingFindsAPosition(t *testing.T) {
	var r ring
	r.reset(covering(1, 2, 3))
	for n := uint64(4); n <= 8; n++ {
		r.push(numbered(n), 100, 1000)
	}
	for _, c := range []struct {
		position change.GTIDSet
		next     uint64 // 0: no way in
	}{
		{covering(1, 2), 0},
		{covering(1, 2, 3), 4},
		{covering(1, 2, 3, 4, 5), 6},
		{covering(1, 2, 3, 5), 4}, // a position with a gap: nothing is passed over
		{covering(1, 2, 4, 5), 0},
	} {
		number, ok := r.find(c.position)
		if ok != (c.next != 0) || ok && r.at(number).GTID.Number != c.next {
			t.Errorf("behind %s the ring goes on at number %d (%v), want %d", c.position, number, ok, c.next)
		}
	}
	if number, ok := r.find(covering(1, 2, 3, 4, 5, 6, 7, 8, 9)); !ok || number != r.end() {
		t.Errorf("a position ahead of the ring waits at %d (%v), want its end", number, ok)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue[int](10)
	put := make(chan error, 1)
	for i := range 2 {
		if err := q.put(i, 5); err != nil {
			t.Fatal(err)
		}
	}
	go func() { put <- q.put(9, 5) }()
	select {
	case err := <-put:
		t.Fatalf("a full queue took one more: %v", err)
	default:
	}
	got, err := q.take(t.Context(), nil, nil)
	if err != nil || len(got) != 2 {
		t.Fatalf("took %v, %v", got, err)
	}
	if err := <-put; err != nil {
		t.Fatal(err)
	}
	q.fail(errEnough)
	if got, err = q.take(t.Context(), got, nil); err != nil || len(got) != 1 || got[0] != 9 {
		t.Fatalf("what was put before the failure: %v, %v", got, err)
	}
	if _, err = q.take(t.Context(), nil, nil); !errors.Is(err, errEnough) {
		t.Fatalf("behind it: %v", err)
	}
	_ = q.put(1, 100)
	go func() { put <- q.put(2, 100) }()
	q.close()
	if err := <-put; !errors.Is(err, errClosed) {
		t.Errorf("a closed queue: %v", err)
	}
}
