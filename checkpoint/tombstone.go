package checkpoint

import (
	"context"
	"fmt"
	"time"

	"replicator/change"
)

// Bury writes tombstones in the open transaction of q, which must carry no marker, before anything else: readers of the
// binlog take each for a delete of its row, and give the transaction a version above its clock.
func Bury(ctx context.Context, q Querier, rows []TombstoneRow) error {
	for _, r := range rows {
		var origin, at any
		of := r.Original
		if len(r.Row) > 0 {
			of = r.Loser
		}
		if of != (change.Version{}) {
			origin, at = of.Origin[:], int64(of.Time)
		}
		_, err := q.ExecContext(ctx, `INSERT INTO replicator.tombstone
 (database_name, table_name, row_key, reason, key_columns, clock, origin, time, written_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))`,
			r.Table.Database, r.Table.Table, r.Key[:], r.Reason, r.Row, int64(r.Clock), origin, at)
		if err != nil {
			return fmt.Errorf("write a tombstone of %s: %w", r.Table, err)
		}
	}
	return nil
}

// TombstoneBatch is how many tombstones one call of TrimTombstones removes at most: it holds their locks until its statement
// ends.
const TombstoneBatch = 1000

// TrimTombstones removes one batch of the tombstones that are older than keep, the oldest first, and returns how many it
// removed; fewer than TombstoneBatch means that none is left to remove. Readers take a tombstone from the binlog: in the
// table it only serves people.
func TrimTombstones(ctx context.Context, q Querier, keep time.Duration) (removed int64, err error) {
	result, err := q.ExecContext(ctx, `DELETE FROM replicator.tombstone WHERE written_at < UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND
 ORDER BY written_at, id LIMIT ?`, keep.Microseconds(), TombstoneBatch)
	if err == nil {
		removed, err = result.RowsAffected()
	}
	if err != nil {
		return 0, fmt.Errorf("trim tombstones: %w", err)
	}
	return removed, nil
}
