package checkpoint

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"replicator/change"
)

// Verified is what the last comparison of a table has found.
type Verified struct {
	Table change.TableName
	At    time.Time // when the comparison of the table began: what differed then has been found
	Equal bool
}

// ComparisonID names a comparison by what is compared, and how: the same command has the same.
type ComparisonID [16]byte

// Step is how far a comparison is with one table; that without a table is of the comparison as a whole.
type Step struct {
	Table  change.TableName
	Began  time.Time
	Detail []byte // JSON
}

const (
	// StepsKept is for how long a comparison can be gone on with after its last step.
	StepsKept = 24 * time.Hour
	// verifiedKept is how long results are known.
	verifiedKept = 366 * 24 * time.Hour
	// findingsKept and findingsMost bound what nobody could be told of.
	findingsKept = 30 * 24 * time.Hour
	findingsMost = 1000
)

// Rows of one statement. A step may take a few hundred kilobytes.
const (
	verificationRows = 100
	stepRows         = 10
)

// SaveVerified records results. A later one that is there already stays.
func SaveVerified(ctx context.Context, q Querier, results []Verified) error {
	for list := range slices.Chunk(results, verificationRows) {
		var args []any
		for _, r := range list {
			args = append(args, r.Table.Database, r.Table.Table, formatTime(r.At), r.Equal)
		}
		_, err := q.ExecContext(ctx, `INSERT INTO replicator.verification (kind, id, database_name, table_name, began_at, saved_at, is_equal) VALUES `+
			tuples("('result', '', ?, ?, ?, UTC_TIMESTAMP(6), ?)", len(list))+` ON DUPLICATE KEY UPDATE
 is_equal = IF(VALUES(began_at) < began_at, is_equal, VALUES(is_equal)),
 saved_at = IF(VALUES(began_at) < began_at, saved_at, VALUES(saved_at)), began_at = GREATEST(began_at, VALUES(began_at))`, args...)
		if err != nil {
			return fmt.Errorf("record what a comparison has found: %w", err)
		}
	}
	return nil
}

// LoadVerified reads the results of all tables.
func LoadVerified(ctx context.Context, q Querier) ([]Verified, error) {
	var out []Verified
	err := verifications(ctx, q, func(scan func(...any) error) error {
		var v Verified
		var at string
		if err := scan(&v.Table.Database, &v.Table.Table, &at, &v.Equal); err != nil {
			return err
		}
		var err error
		v.At, err = parseTime(at)
		out = append(out, v)
		return err
	}, "SELECT database_name, table_name, CAST(began_at AS CHAR), is_equal FROM replicator.verification WHERE kind = 'result'")
	return out, err
}

// SaveSteps records how far a comparison is. Each step holds by itself.
func SaveSteps(ctx context.Context, q Querier, id ComparisonID, steps []Step) error {
	for list := range slices.Chunk(steps, stepRows) {
		var args []any
		for _, s := range list {
			args = append(args, id[:], s.Table.Database, s.Table.Table, formatTime(s.Began), s.Detail)
		}
		_, err := q.ExecContext(ctx, `INSERT INTO replicator.verification (kind, id, database_name, table_name, began_at, saved_at, detail) VALUES `+
			tuples("('progress', ?, ?, ?, ?, UTC_TIMESTAMP(6), ?)", len(list))+` ON DUPLICATE KEY UPDATE
 began_at = VALUES(began_at), saved_at = VALUES(saved_at), detail = VALUES(detail)`, args...)
		if err != nil {
			return fmt.Errorf("record how far a comparison is: %w", err)
		}
	}
	return nil
}

// LoadSteps reads how far a comparison was, and how long ago it took its last step.
func LoadSteps(ctx context.Context, q Querier, id ComparisonID) (steps []Step, age time.Duration, err error) {
	err = verifications(ctx, q, func(scan func(...any) error) error {
		var s Step
		var began string
		var microseconds int64
		if err := scan(&s.Table.Database, &s.Table.Table, &began, &microseconds, &s.Detail); err != nil {
			return err
		}
		var err error
		s.Began, err = parseTime(began)
		if since := time.Duration(microseconds) * time.Microsecond; len(steps) == 0 || since < age {
			age = since
		}
		steps = append(steps, s)
		return err
	}, `SELECT database_name, table_name, CAST(began_at AS CHAR), TIMESTAMPDIFF(MICROSECOND, saved_at, UTC_TIMESTAMP(6)), detail
 FROM replicator.verification WHERE kind = 'progress' AND id = ?`, id[:])
	return steps, age, err
}

// DropSteps forgets how far a comparison was.
func DropSteps(ctx context.Context, q Querier, id ComparisonID) error {
	if _, err := q.ExecContext(ctx, "DELETE FROM replicator.verification WHERE kind = 'progress' AND id = ?", id[:]); err != nil {
		return fmt.Errorf("forget how far a comparison was: %w", err)
	}
	return nil
}

// SaveFinding records what a comparison has found, to be told. It is told once, however often it is recorded.
func SaveFinding(ctx context.Context, q Querier, id [8]byte, began time.Time, detail []byte) error {
	_, err := q.ExecContext(ctx, `INSERT IGNORE INTO replicator.verification (kind, id, database_name, table_name, began_at, saved_at, detail, notified)
 VALUES ('finding', ?, '', '', ?, UTC_TIMESTAMP(6), ?, 0)`, id[:], formatTime(began), detail)
	if err != nil {
		return fmt.Errorf("record what is to be told of a comparison: %w", err)
	}
	return nil
}

// SaveSchedule records when the last comparison of the schedule began.
func SaveSchedule(ctx context.Context, q Querier, began time.Time) error {
	_, err := q.ExecContext(ctx, `INSERT INTO replicator.verification (kind, id, database_name, table_name, began_at, saved_at)
 VALUES ('schedule', '', '', '', ?, UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE began_at = VALUES(began_at), saved_at = VALUES(saved_at)`, formatTime(began))
	if err != nil {
		return fmt.Errorf("record when the servers were compared: %w", err)
	}
	return nil
}

// LastSchedule reads how long ago, by the server's clock, the last comparison of the schedule began; found is false before
// the first.
func LastSchedule(ctx context.Context, q Querier) (age time.Duration, found bool, err error) {
	var microseconds int64
	err = q.QueryRowContext(ctx, "SELECT TIMESTAMPDIFF(MICROSECOND, began_at, UTC_TIMESTAMP(6)) FROM replicator.verification WHERE kind = 'schedule'").Scan(&microseconds)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("read when the servers were compared: %w", err)
	}
	return time.Duration(microseconds) * time.Microsecond, true, nil
}

// TrimVerification removes what no comparison goes on with any more, results that are very old, and findings that everybody
// has been told, or that wait for too long.
func TrimVerification(ctx context.Context, q Querier) error {
	old := func(kind, also string, age time.Duration) error {
		_, err := q.ExecContext(ctx, "DELETE FROM replicator.verification WHERE kind = ? AND saved_at < UTC_TIMESTAMP(6) - INTERVAL ? SECOND"+also+" LIMIT 10000",
			kind, int64(age/time.Second))
		return err
	}
	err := errors.Join(old("progress", "", StepsKept), old("result", "", verifiedKept), old("finding", "", findingsKept),
		old("finding", " AND notified = 1", time.Hour))
	var newest string
	if err == nil {
		err = q.QueryRowContext(ctx, `SELECT CAST(saved_at AS CHAR) FROM replicator.verification WHERE kind = 'finding'
 ORDER BY saved_at DESC LIMIT 1 OFFSET ?`, findingsMost).Scan(&newest)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
	}
	if err == nil {
		_, err = q.ExecContext(ctx, "DELETE FROM replicator.verification WHERE kind = 'finding' AND saved_at <= ? LIMIT 10000", newest)
	}
	if err != nil {
		return fmt.Errorf("trim what is known of comparisons: %w", err)
	}
	return nil
}

// verifications reads rows of a query.
func verifications(ctx context.Context, q Querier, read func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read what is known of comparisons: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := read(rows.Scan); err != nil {
			return fmt.Errorf("read what is known of comparisons: %w", err)
		}
	}
	return rows.Err()
}

func tuples(one string, n int) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }

const timeFormat = "2006-01-02 15:04:05.999999"

func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000") }

func parseTime(text string) (time.Time, error) { return time.Parse(timeFormat, text) }
