package notify

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"replicator/change"
	"replicator/journal"
)

// entry is something to be told: a conflict as the journal has it, without its rows, or a finding.
type entry struct {
	finding       *Finding // nil of a conflict; else nothing but id and at is set besides
	seq           uint64
	id            journal.ID
	at            time.Time
	table         change.TableName
	key           string // JSON, cut when it is long
	kind          journal.Kind
	policy        string
	winner, loser side
	equal         bool // the rows do not differ
	state         string
	restorable    bool
}

// side is one of the changes that met.
type side struct {
	origin        change.ServerID // zero: not known
	time          change.Time
	gtid          string
	user, comment string
}

// lostNothing reports whether an entry only counts: both changes left the same row.
func (e *entry) lostNothing() bool { return e.equal && e.state == journal.Acknowledged }

// Long texts are cut where they are read: an entry takes a few kilobytes at most.
const entryColumns = "seq, id, decided_at, database_name, table_name, LEFT(key_columns, 2000), kind, policy," +
	" winner_origin, winner_time, winner_gtid, LEFT(winner_user, 250), LEFT(winner_comment, 500)," +
	" loser_origin, loser_time, loser_gtid, LEFT(loser_user, 250), LEFT(loser_comment, 500), `columns` = '[]', state, restorable"

type scanner interface{ Scan(dest ...any) error }

func scanEntry(s scanner) (*entry, error) {
	var e entry
	var id, at, kind, winnerOrigin, loserOrigin []byte
	var winnerTime, loserTime sql.NullInt64
	var texts [6]sql.NullString
	err := s.Scan(&e.seq, &id, &at, &e.table.Database, &e.table.Table, &e.key, &kind, &e.policy,
		&winnerOrigin, &winnerTime, &texts[0], &texts[1], &texts[2],
		&loserOrigin, &loserTime, &texts[3], &texts[4], &texts[5], &e.equal, &e.state, &e.restorable)
	if err != nil {
		return nil, fmt.Errorf("read replicator.conflict: %w", err)
	}
	copy(e.id[:], id)
	if e.at, err = time.Parse("2006-01-02 15:04:05.999999", string(at)); err != nil {
		return nil, fmt.Errorf("read replicator.conflict: %w", err)
	}
	e.kind = journal.Kind(kind)
	e.winner = side{time: change.Time(winnerTime.Int64), gtid: texts[0].String, user: texts[1].String, comment: texts[2].String}
	e.loser = side{time: change.Time(loserTime.Int64), gtid: texts[3].String, user: texts[4].String, comment: texts[5].String}
	copy(e.winner.origin[:], winnerOrigin)
	copy(e.loser.origin[:], loserOrigin)
	return &e, nil
}

// newestUntold returns the greatest seq of an entry that has not been told, 0 when there is none.
func newestUntold(ctx context.Context, db *sql.DB) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var seq uint64
	err := db.QueryRowContext(ctx, "SELECT seq FROM replicator.conflict WHERE notified = 0 ORDER BY seq DESC LIMIT 1").Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return seq, err
}

// untold returns the next entries that have not been told, in the order of seq.
func untold(ctx context.Context, db *sql.DB, after uint64) ([]*entry, error) {
	return readEntries(ctx, db, "notified = 0 AND seq > ? ORDER BY seq LIMIT ?", after, batchSize)
}

// entriesOf returns those of the conflicts that a server's journal has.
func entriesOf(ctx context.Context, db *sql.DB, ids []journal.ID) ([]*entry, error) {
	return readEntries(ctx, db, "id IN ("+marks(len(ids))+")", idArgs(ids)...)
}

func readEntries(ctx context.Context, db *sql.DB, where string, args ...any) ([]*entry, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	rows, err := db.QueryContext(ctx, "SELECT "+entryColumns+" FROM replicator.conflict WHERE "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*entry
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

// rowsOf reads the rows of a conflict as its two changes leave them; nil: there is none. found is false when a server's
// journal does not have the conflict.
func rowsOf(ctx context.Context, db *sql.DB, id journal.ID) (winner, loser *journal.Row, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var won, lost []byte
	err = db.QueryRowContext(ctx, "SELECT winner_row, loser_row FROM replicator.conflict WHERE id = ?", id[:]).Scan(&won, &lost)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, false, nil
	}
	if err != nil {
		return nil, nil, false, err
	}
	if winner, err = journal.DecodeRow(won); err == nil {
		loser, err = journal.DecodeRow(lost)
	}
	return winner, loser, err == nil, err
}

// markNotified marks entries of a journal as told.
func markNotified(ctx context.Context, db *sql.DB, seqs []uint64) error {
	for len(seqs) > 0 {
		n := min(len(seqs), batchSize)
		args := make([]any, n)
		for i, seq := range seqs[:n] {
			args[i] = seq
		}
		if err := exec(ctx, db, "UPDATE replicator.conflict SET notified = 1 WHERE seq IN ("+marks(n)+")", args...); err != nil {
			return fmt.Errorf("mark conflicts as told: %w", err)
		}
		seqs = seqs[n:]
	}
	return nil
}

func exec(ctx context.Context, db *sql.DB, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	_, err := db.ExecContext(ctx, query, args...)
	return err
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

func idArgs(ids []journal.ID) []any {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id[:]
	}
	return args
}
