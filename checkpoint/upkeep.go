package checkpoint

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"replicator/change"
)

// Beat writes what this server has applied of every origin as an ordinary local row: readers of its binlog fold it into
// its clock. One row, changed once a second.
func Beat(ctx context.Context, q Querier, applied change.Context) error {
	_, err := q.ExecContext(ctx, `INSERT INTO replicator.heartbeat (singleton, context, beat_at) VALUES (1, ?, UTC_TIMESTAMP(6))
 ON DUPLICATE KEY UPDATE context = VALUES(context), beat_at = VALUES(beat_at)`, applied.AppendBinary(nil))
	if err != nil {
		return fmt.Errorf("write the heartbeat: %w", err)
	}
	return nil
}

// SaveFrontier records the own position before which every change is stable, with the own clock there.
func SaveFrontier(ctx context.Context, q Querier, position change.GTIDSet, clock change.Clock) error {
	_, err := q.ExecContext(ctx, `INSERT INTO replicator.frontier (singleton, position, clock) VALUES (1, ?, ?)
 ON DUPLICATE KEY UPDATE position = VALUES(position), clock = VALUES(clock)`, position.String(), clock.AppendBinary(nil))
	if err != nil {
		return fmt.Errorf("save the frontier: %w", err)
	}
	return nil
}

// LoadFrontier reads where to begin rebuilding the change index; a server without one begins at its birth.
func LoadFrontier(ctx context.Context, q Querier, identity Identity) (change.GTIDSet, change.Clock, error) {
	row := q.QueryRowContext(ctx, "SELECT position, clock FROM replicator.frontier WHERE singleton = 1")
	position, clock, found, err := loadPlace(row, identity.Position.Flavor(), "the frontier")
	if err == nil && !found {
		return identity.Position.Clone(), change.Clock{Time: identity.Clock}, nil
	}
	return position, clock, err
}

// loadPlace reads a place of the server's own binlog, with the fold there.
func loadPlace(row *sql.Row, flavor change.Flavor, what string) (p change.GTIDSet, c change.Clock, found bool, err error) {
	var position, clock []byte
	err = row.Scan(&position, &clock)
	if errors.Is(err, sql.ErrNoRows) {
		return p, c, false, nil
	}
	if err == nil {
		p, err = change.ParseGTIDSet(flavor, string(position))
	}
	if err == nil {
		c, err = change.DecodeClock(clock)
	}
	if err != nil {
		return change.GTIDSet{}, change.Clock{}, false, fmt.Errorf("read %s: %w", what, err)
	}
	return p, c, true, nil
}

// Now reads a server's clock.
func Now(ctx context.Context, q Querier) (time.Time, error) {
	var text string
	if err := q.QueryRowContext(ctx, "SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)").Scan(&text); err != nil {
		return time.Time{}, fmt.Errorf("read the server's clock: %w", err)
	}
	return time.Parse("2006-01-02 15:04:05.999999", text)
}

// NewestTime is the greatest time that the markers of a server tell of any server of the mesh, 0 when there are none.
func NewestTime(ctx context.Context, q Querier) (change.Time, error) {
	rows, err := q.QueryContext(ctx, `SELECT m.clock FROM replicator.marker m
 JOIN (SELECT source, MAX(seq) AS seq FROM replicator.marker GROUP BY source) newest USING (source, seq)`)
	if err != nil {
		return 0, fmt.Errorf("read the newest markers: %w", err)
	}
	defer rows.Close()
	var newest change.Time
	for rows.Next() {
		var raw []byte
		if err := rows.Scan(&raw); err != nil {
			return 0, fmt.Errorf("read the newest markers: %w", err)
		}
		clock, err := change.DecodeClock(raw)
		if err != nil {
			return 0, fmt.Errorf("read the newest markers: %w", err)
		}
		newest = max(newest, clock.Time)
		for _, e := range clock.Context {
			newest = max(newest, e.Time)
		}
	}
	return newest, rows.Err()
}

// Heartbeat is the last word of a server's owner.
type Heartbeat struct {
	At      time.Time     // by the server's clock
	Age     time.Duration // by the server's clock
	Applied change.Context
}

// LastBeat reads the heartbeat of a server; found is false before the first.
func LastBeat(ctx context.Context, q Querier) (beat Heartbeat, found bool, err error) {
	var at string
	var seconds float64
	var applied []byte
	row := q.QueryRowContext(ctx, `SELECT CAST(beat_at AS CHAR), TIMESTAMPDIFF(MICROSECOND, beat_at, UTC_TIMESTAMP(6)) / 1e6, context
 FROM replicator.heartbeat WHERE singleton = 1`)
	err = row.Scan(&at, &seconds, &applied)
	if errors.Is(err, sql.ErrNoRows) {
		return Heartbeat{}, false, nil
	}
	if err == nil {
		beat.At, err = time.Parse("2006-01-02 15:04:05.999999", at)
	}
	if err == nil {
		beat.Applied, _, err = change.DecodeContext(applied)
	}
	if err != nil {
		return Heartbeat{}, false, fmt.Errorf("read the heartbeat: %w", err)
	}
	beat.Age = time.Duration(seconds * float64(time.Second))
	return beat, true, nil
}
