// Package resync makes a table of one server equal to another server's, while both are written to.
//
// The work is a job, a row of replicator.resync on the server that is changed. The owner of that server carries it out: it
// alone knows which rows have changes that a copy may lack. Whoever asked may go away meanwhile; another process takes over
// where the last one was.
package resync

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"replicator/change"
	"replicator/checkpoint"
)

// State is how far a job is.
type State string

// The states.
const (
	Waiting   State = "waiting" // nobody works on it yet
	Running   State = "running"
	Done      State = "done"
	Failed    State = "failed" // it needs a person
	Cancelled State = "cancelled"
)

// Ended reports whether nothing more will happen.
func (s State) Ended() bool { return s == Done || s == Failed || s == Cancelled }

// Job is one table to be made equal to another server's.
type Job struct {
	ID       uint64
	Table    change.TableName
	Source   change.ServerID // whose rows the target gets
	Where    string          // SQL: the rows that are meant; "": all
	Throttle int64           // rows a second that are compared, at most; 0: no limit
	State    State
	Note     string // what it waits for, or why it failed
	Counts
	Total          int64 // rows that there are, about; 0: not known
	Asked          time.Time
	Started, Ended time.Time // zero: not yet
	reached        []byte
	definition     string // of the table on both servers, by which the rows up to there were copied
}

// Counts are what a job has done so far.
type Counts struct {
	Compared                   int64 // rows of the source
	Inserted, Updated, Deleted int64 // rows of the target
	Newer                      int64 // rows that differed, and about which a later change decides
	Moving                     int64 // rows that differ and never stood still
}

const columns = `id, database_name, table_name, source, conditions, throttle, state, COALESCE(note, ''), reached, definition, COALESCE(total, 0),
 compared, inserted, updated, deleted, newer, moving, CAST(asked_at AS CHAR), CAST(started_at AS CHAR), CAST(ended_at AS CHAR)`

func read(ctx context.Context, q checkpoint.Querier, rest string, args ...any) ([]*Job, error) {
	rows, err := q.QueryContext(ctx, "SELECT "+columns+" FROM replicator.resync "+rest, args...)
	if err != nil {
		return nil, fmt.Errorf("read resync jobs: %w", err)
	}
	defer rows.Close()
	var jobs []*Job
	for rows.Next() {
		j := &Job{}
		var source []byte
		var asked string
		var started, ended sql.NullString
		if err := rows.Scan(&j.ID, &j.Table.Database, &j.Table.Table, &source, &j.Where, &j.Throttle, &j.State, &j.Note, &j.reached, &j.definition,
			&j.Total, &j.Compared, &j.Inserted, &j.Updated, &j.Deleted, &j.Newer, &j.Moving, &asked, &started, &ended); err != nil {
			return nil, fmt.Errorf("read resync jobs: %w", err)
		}
		copy(j.Source[:], source)
		for _, t := range []struct {
			into *time.Time
			text string
		}{{&j.Asked, asked}, {&j.Started, started.String}, {&j.Ended, ended.String}} {
			if t.text == "" {
				continue
			}
			if *t.into, err = time.Parse("2006-01-02 15:04:05.999999", t.text); err != nil {
				return nil, fmt.Errorf("read resync jobs: %w", err)
			}
		}
		jobs = append(jobs, j)
	}
	return jobs, rows.Err()
}

// one reads a job that must be there.
func one(ctx context.Context, q checkpoint.Querier, rest string, args ...any) (*Job, error) {
	jobs, err := read(ctx, q, rest, args...)
	if err == nil && len(jobs) == 0 {
		err = sql.ErrNoRows
	}
	if err != nil {
		return nil, err
	}
	return jobs[0], nil
}

// Load reads a job by its number.
func Load(ctx context.Context, q checkpoint.Querier, id uint64) (*Job, error) {
	return one(ctx, q, "WHERE id = ?", id)
}

// Pending are the oldest jobs that have not ended.
func Pending(ctx context.Context, q checkpoint.Querier, most int) ([]*Job, error) {
	return read(ctx, q, "WHERE state IN (?, ?) ORDER BY id LIMIT ?", Running, Waiting, most)
}

// Open is the job of a table that has not ended, nil when there is none.
func Open(ctx context.Context, q checkpoint.Querier, table change.TableName) (*Job, error) {
	j, err := one(ctx, q, "WHERE state IN (?, ?) AND database_name = ? AND table_name = ? ORDER BY id LIMIT 1", Running, Waiting,
		table.Database, table.Table)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return j, err
}

// List are the newest jobs, the oldest of them first.
func List(ctx context.Context, q checkpoint.Querier) ([]*Job, error) {
	jobs, err := read(ctx, q, "ORDER BY id DESC LIMIT 100")
	slices.Reverse(jobs)
	return jobs, err
}

// kept is how many jobs that have ended stay for people to look at.
const kept = 1000

// Ask adds a job, and returns it. The oldest of those that have ended go.
func Ask(ctx context.Context, q checkpoint.Querier, j Job) (*Job, error) {
	result, err := q.ExecContext(ctx, `INSERT INTO replicator.resync (database_name, table_name, source, conditions, throttle, state, asked_at)
 VALUES (?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))`, j.Table.Database, j.Table.Table, j.Source[:], j.Where, j.Throttle, Waiting)
	if err != nil {
		return nil, fmt.Errorf("ask for a resync: %w", err)
	}
	id, err := result.LastInsertId()
	if err != nil {
		return nil, fmt.Errorf("ask for a resync: %w", err)
	}
	if _, err := q.ExecContext(ctx, "DELETE FROM replicator.resync WHERE id < ? AND state NOT IN (?, ?) ORDER BY id LIMIT 100",
		id-kept, Running, Waiting); err != nil {
		return nil, fmt.Errorf("remove old resync jobs: %w", err)
	}
	return Load(ctx, q, uint64(id))
}

// Cancel ends a job that has not ended; what it has done stays.
func Cancel(ctx context.Context, q checkpoint.Querier, id uint64) error {
	_, err := q.ExecContext(ctx, "UPDATE replicator.resync SET state = ?, note = NULL, ended_at = UTC_TIMESTAMP(6) WHERE id = ? AND state IN (?, ?)",
		Cancelled, id, Running, Waiting)
	if err != nil {
		return fmt.Errorf("cancel a resync: %w", err)
	}
	return nil
}

// errEnded says that somebody has ended the job.
var errEnded = errors.New("the job has been ended")

// save writes how far the job is, and that it is worked on, unless it has been ended.
func (j *Job) save(ctx context.Context, q checkpoint.Querier, c Counts, reached []byte) error {
	result, err := q.ExecContext(ctx, `UPDATE replicator.resync SET state = ?, note = ?, reached = ?, definition = ?, total = ?, compared = ?, inserted = ?,
 updated = ?, deleted = ?, newer = ?, moving = ?, started_at = COALESCE(started_at, UTC_TIMESTAMP(6)), seen_at = UTC_TIMESTAMP(6)
 WHERE id = ? AND state IN (?, ?)`, Running, note(j.Note), reached, j.definition, j.Total, c.Compared, c.Inserted, c.Updated, c.Deleted, c.Newer, c.Moving,
		j.ID, Running, Waiting)
	if err != nil {
		return fmt.Errorf("save the progress of a resync: %w", err)
	}
	found, err := result.RowsAffected()
	if err == nil && found == 0 {
		err = errEnded
	}
	return err
}

// say writes what the job waits for. Where that fails, nothing is lost.
func (j *Job) say(ctx context.Context, q checkpoint.Querier) {
	_, _ = q.ExecContext(ctx, "UPDATE replicator.resync SET state = ?, note = ?, seen_at = UTC_TIMESTAMP(6) WHERE id = ? AND state IN (?, ?)",
		Running, note(j.Note), j.ID, Running, Waiting)
}

// end records how the job has ended.
func (j *Job) end(ctx context.Context, q checkpoint.Querier, state State) error {
	_, err := q.ExecContext(ctx, `UPDATE replicator.resync SET state = ?, note = ?, started_at = COALESCE(started_at, UTC_TIMESTAMP(6)),
 ended_at = UTC_TIMESTAMP(6) WHERE id = ? AND state IN (?, ?)`, state, note(j.Note), j.ID, Running, Waiting)
	if err != nil {
		return fmt.Errorf("record the end of a resync: %w", err)
	}
	return nil
}

// note is a text as the table takes it; NULL of none.
func note(text string) any {
	const most = 4 << 10
	if text == "" {
		return nil
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return text
}
