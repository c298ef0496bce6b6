package applier

import (
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/image"
)

func TestClaims(t *testing.T) {
	alone := func(tokens ...uint64) (list []claim) {
		for _, x := range tokens {
			list = append(list, claim{token: image.Token(x)})
		}
		return list
	}
	shared := func(tokens ...uint64) []claim {
		list := alone(tokens...)
		for i := range list {
			list[i].shared = true
		}
		return list
	}
	c := newClaims(newShapes(nil, nil))
	c.hold(append(alone(1, 2), shared(9)...), 1, 1)
	c.hold(append(alone(3), shared(9)...), 2, 1)
	require.Zero(t, c.behind(alone(4, 5), 1))
	require.EqualValues(t, 1, c.behind(alone(4, 2), 1))
	require.EqualValues(t, 2, c.behind(alone(1, 3), 1), "the newest of all")
	require.Zero(t, c.behind(shared(9), 1), "several may refer to one row")
	require.EqualValues(t, 2, c.behind(alone(9), 1), "but none while it is written")
	require.EqualValues(t, 2, c.behind(shared(3), 1))
	require.Zero(t, c.behind(alone(1, 2), 2), "the first has been committed")
	require.EqualValues(t, 2, c.behind(alone(9), 2))
	c.release()
	require.Zero(t, c.behind(alone(1, 2, 3, 9), 1))
}

func TestClaimsAreBounded(t *testing.T) {
	c := newClaims(newShapes(nil, nil))
	next := uint64(0)
	for number := uint64(1); number <= 100; number++ {
		list := make([]claim, 10_000)
		for i := range list {
			next++
			list[i].token = image.Token(next)
		}
		oldest := max(4, number) - 3
		c.hold(list, number, oldest)
		require.LessOrEqual(t, len(c.held), maxClaims)
		require.Equal(t, number, c.behind(list[:1], oldest))
	}
}

func TestWidth(t *testing.T) {
	w := newWidth(4)
	require.Equal(t, 4, w.now)
	commit := func(n int) {
		for range n {
			w.committed()
		}
	}
	w.failed()
	require.Equal(t, 2, w.now)
	w.failed()
	w.failed()
	require.Equal(t, 1, w.now, "one is always carried out")
	commit(raiseFirst)
	require.Equal(t, 1, w.now, "after several failures it takes longer")
	commit(7 * raiseFirst)
	require.Equal(t, 2, w.now)
	commit(100 * raiseFirst)
	require.Equal(t, 4, w.now)
	for range 100 {
		w.failed()
	}
	commit(raiseMost)
	require.Equal(t, 2, w.now, "there is always another try")
	w.limit(1)
	require.Equal(t, 1, w.now)
	commit(2 * raiseMost)
	require.Equal(t, 1, w.now)
}
