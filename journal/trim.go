package journal

import (
	"context"
	"fmt"
	"time"

	"replicator/checkpoint"
)

// TrimBatch is how many entries one call of Trim deletes at most: it holds their locks until its statement ends.
const TrimBatch = 500

// Trim deletes one batch of a server's entries, the oldest first: those older than keep, and while there are more than
// maxRows, others, first those that are not open. It returns how many it deleted; fewer than TrimBatch means that nothing
// is left to delete. keep and maxRows are no limits when they are 0.
func Trim(ctx context.Context, q checkpoint.Querier, keep time.Duration, maxRows int64) (deleted int64, err error) {
	if keep > 0 {
		// Entries are in the order of time but for the clock's jumps, so that what is read is what is deleted.
		deleted, err = del(ctx, q, "DELETE FROM replicator.conflict WHERE decided_at < UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND ORDER BY decided_at, seq LIMIT ?",
			keep.Microseconds(), TrimBatch)
		if err != nil || deleted == TrimBatch || maxRows == 0 {
			return deleted, err
		}
	}
	if maxRows == 0 {
		return deleted, nil
	}
	excess, err := excess(ctx, q, maxRows, TrimBatch-deleted)
	if err != nil || excess <= 0 {
		return deleted, err
	}
	for _, condition := range []string{"state = 'acknowledged'", "state = 'restored'", "state = 'open'"} {
		if excess <= 0 {
			break
		}
		n, err := del(ctx, q, "DELETE FROM replicator.conflict WHERE "+condition+" ORDER BY seq LIMIT ?", excess)
		deleted, excess = deleted+n, excess-n
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// excess is how many entries there are above maxRows, most at the most. The greatest and the least number say cheaply that
// there are none.
func excess(ctx context.Context, q checkpoint.Querier, maxRows, most int64) (n int64, err error) {
	err = q.QueryRowContext(ctx, "SELECT COALESCE(MAX(seq) - MIN(seq) + 1, 0) FROM replicator.conflict").Scan(&n)
	if err == nil && n > maxRows {
		err = q.QueryRowContext(ctx, "SELECT COUNT(*) FROM (SELECT 1 FROM replicator.conflict LIMIT ?) AS few", maxRows+most).Scan(&n)
	}
	if err != nil {
		return 0, fmt.Errorf("count the journal's entries: %w", err)
	}
	return n - maxRows, nil
}

func del(ctx context.Context, q checkpoint.Querier, statement string, args ...any) (int64, error) {
	result, err := q.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, fmt.Errorf("trim the journal: %w", err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("trim the journal: %w", err)
	}
	return n, nil
}
