package checkpoint

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"replicator/change"
)

const (
	// trimBytes is how large the manifests are that one transaction removes, unless a single one is larger. Each removed row is
	// logged whole, and other commits wait while a transaction is written to the binlog.
	trimBytes = 256 << 10
	// trimLook is how many markers are measured at a time: for that the server reads their manifests.
	trimLook = 128
	// trimAfter is how many markers more than Keep there are before any is removed.
	trimAfter = 64
	// trimTimeout bounds each statement and its transaction.
	trimTimeout = 10 * time.Second
)

// TrimMarkers removes the markers of every source that are older than its newest Keep, the oldest first, in short
// transactions. It calls pause between two of them and ends with its error.
//
// Links do not do it beside their groups: the markers behind a large backlog hold megabytes of manifests, whose removal
// would hold up whichever group it met.
func TrimMarkers(ctx context.Context, db *sql.DB, pause func() error) error {
	sources, err := overdue(ctx, db)
	if err != nil {
		return fmt.Errorf("look for old markers: %w", err)
	}
	for _, s := range sources {
		for more := true; more; {
			old, err := measure(ctx, db, s)
			if err != nil {
				return fmt.Errorf("measure old markers: %w", err)
			}
			more = len(old) == trimLook
			for len(old) > 0 {
				n := batch(old)
				if err := remove(ctx, db, s.id, old[n-1].seq); err != nil {
					return fmt.Errorf("trim markers: %w", err)
				}
				old = old[n:]
				if err := pause(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// trimmed is a source with markers to be removed.
type trimmed struct {
	id   change.ServerID
	upTo uint64 // the newest of them
}

func overdue(ctx context.Context, db *sql.DB) (all []trimmed, err error) {
	ctx, cancel := context.WithTimeout(ctx, trimTimeout)
	defer cancel()
	rows, err := db.QueryContext(ctx, "SELECT source, MIN(seq), MAX(seq) FROM replicator.marker GROUP BY source")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id []byte
		var oldest, newest uint64
		if err := rows.Scan(&id, &oldest, &newest); err != nil {
			return nil, err
		}
		if newest-oldest < Keep+trimAfter {
			continue
		}
		s := trimmed{upTo: newest - Keep}
		copy(s.id[:], id)
		all = append(all, s)
	}
	return all, rows.Err()
}

// oldMarker is a marker that may go.
type oldMarker struct {
	seq   uint64
	bytes int
}

func measure(ctx context.Context, db *sql.DB, s trimmed) (all []oldMarker, err error) {
	ctx, cancel := context.WithTimeout(ctx, trimTimeout)
	defer cancel()
	rows, err := db.QueryContext(ctx, "SELECT seq, LENGTH(manifest) FROM replicator.marker WHERE source = ? AND seq <= ? ORDER BY seq LIMIT ?",
		s.id[:], s.upTo, trimLook)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m oldMarker
		if err := rows.Scan(&m.seq, &m.bytes); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, rows.Err()
}

// batch returns how many of these markers one transaction removes.
func batch(old []oldMarker) int {
	n, bytes := 1, old[0].bytes
	for n < len(old) && bytes+old[n].bytes <= trimBytes {
		bytes += old[n].bytes
		n++
	}
	return n
}

// remove deletes the markers of a source up to a number. Under READ COMMITTED it locks no gap in which another source's
// next marker belongs.
func remove(ctx context.Context, db *sql.DB, source change.ServerID, upTo uint64) error {
	ctx, cancel := context.WithTimeout(ctx, trimTimeout)
	defer cancel()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	if _, err := tx.ExecContext(ctx, "DELETE FROM replicator.marker WHERE source = ? AND seq <= ?", source[:], upTo); err != nil {
		return err
	}
	return tx.Commit()
}
