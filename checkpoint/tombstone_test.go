package checkpoint_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/checkpoint"
	"replicator/sandbox"
)

// TestTrimTombstones removes the oldest first, batch by batch, and keeps what is not old.
func TestTrimTombstones(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
			conn, err := s.DB().Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, checkpoint.Migrate(t.Context(), conn))
			// One tombstone for each hour that has gone.
			const rows = 2*checkpoint.TombstoneBatch + 20
			_, err = conn.ExecContext(t.Context(), `INSERT INTO replicator.tombstone
 (database_name, table_name, row_key, reason, key_columns, clock, written_at)
 WITH RECURSIVE n AS (SELECT 0 AS seq UNION ALL SELECT seq + 1 FROM n WHERE seq < 45)
 SELECT 'app', 't', '', 'update_exists', NULL, a.seq * 45 + b.seq, UTC_TIMESTAMP(6) - INTERVAL a.seq * 45 + b.seq HOUR
 FROM n a, n b WHERE b.seq < 45 AND a.seq * 45 + b.seq < ?`, rows)
			require.NoError(t, err)

			left := func() (n, oldest int) {
				require.NoError(t, conn.QueryRowContext(t.Context(), "SELECT COUNT(*), MAX(clock) FROM replicator.tombstone").Scan(&n, &oldest))
				return n, oldest
			}
			before, _ := left()
			require.Equal(t, rows, before)
			const keep = 10*time.Hour + 30*time.Minute
			for _, want := range []struct{ removed, left, oldest int }{
				{checkpoint.TombstoneBatch, rows - 1000, rows - 1001}, {checkpoint.TombstoneBatch, 20, 19}, {9, 11, 10}, {0, 11, 10},
			} {
				removed, err := checkpoint.TrimTombstones(t.Context(), conn, keep)
				require.NoError(t, err)
				n, oldest := left()
				require.Equal(t, want, struct{ removed, left, oldest int }{int(removed), n, oldest})
			}
		})
	}
}
