package checkpoint_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/sandbox"
)

// TestTrimMarkers removes the old markers of every source, few of large ones at a time, and keeps those of a source that has
// few.
func TestTrimMarkers(t *testing.T) {
	const markers, large, pieces = 400, 1 << 20, 5
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			conn, err := s.DB().Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, checkpoint.Migrate(t.Context(), conn))
			plant := func(source change.ServerID, count int, manifest func(seq int) string) {
				for seq := 1; seq <= count; seq++ {
					_, err := conn.ExecContext(t.Context(), `INSERT INTO replicator.marker (source, seq, position, clock, manifest, owner, applied_at)
 VALUES (?, ?, '', '', ?, '', UTC_TIMESTAMP(6))`, source[:], seq, manifest(seq))
					require.NoError(t, err)
				}
			}
			small := func(int) string { return "small" }
			one, two, few := change.ServerID{1}, change.ServerID{2}, change.ServerID{3}
			plant(one, markers, func(seq int) string {
				if seq > 50 && seq <= 50+pieces {
					return strings.Repeat("x", large)
				}
				return "small"
			})
			plant(two, markers, small)
			plant(few, checkpoint.Keep+10, small)
			state := func() (bytes, left int) {
				require.NoError(t, s.DB().QueryRowContext(t.Context(), "SELECT COALESCE(SUM(LENGTH(manifest)), 0), COUNT(*) FROM replicator.marker").Scan(&bytes, &left))
				return bytes, left
			}
			// Somebody is just writing the next marker of each source, on top of the newest.
			other, err := s.DB().BeginTx(t.Context(), nil)
			require.NoError(t, err)
			defer func() { _ = other.Rollback() }() // after the end it does nothing
			for _, source := range []change.ServerID{one, two} {
				_, err := other.ExecContext(t.Context(), `INSERT INTO replicator.marker SELECT source, seq + 1, position, clock, manifest, owner, applied_at
 FROM replicator.marker WHERE source = ? AND seq = ? LOCK IN SHARE MODE`, source[:], markers)
				require.NoError(t, err)
			}

			stop := errors.New("stop")
			require.ErrorIs(t, checkpoint.TrimMarkers(t.Context(), s.DB(), func() error { return stop }), stop)
			before, left := state()
			require.Equal(t, 2*markers+checkpoint.Keep+10-50, left, "the small ones before the first large one")
			require.NoError(t, checkpoint.TrimMarkers(t.Context(), s.DB(), func() error {
				bytes, _ := state()
				require.LessOrEqual(t, before-bytes, large, "at once")
				before = bytes
				return nil
			}))
			require.NoError(t, other.Rollback())
			for source, want := range map[change.ServerID]int{one: checkpoint.Keep, two: checkpoint.Keep, few: checkpoint.Keep + 10} {
				var n, newest int
				require.NoError(t, s.DB().QueryRowContext(t.Context(), "SELECT COUNT(*), MAX(seq) FROM replicator.marker WHERE source = ?", source[:]).Scan(&n, &newest))
				require.Equal(t, want, n)
				require.Equal(t, map[bool]int{true: want, false: markers}[source == few], newest)
			}
			require.NoError(t, checkpoint.TrimMarkers(t.Context(), s.DB(), func() error { return errors.New("there is nothing to remove") }))
		})
	}
}
