package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"replicator/checkpoint"
)

// SetState records on every server that has the conflict that it is acknowledged, or that these columns of its losing row
// are restored (none: all that there is). What has been restored stays restored, and columns are added to those that were
// restored before. The failures are the servers that could not be told; told are those that have the conflict.
func SetState(ctx context.Context, servers []Server, id ID, state string, columns ...string) (told []string, failed []Failure) {
	answers, failed := ask(ctx, servers, func(ctx context.Context, s Server) (bool, error) {
		tx, err := s.DB.BeginTx(ctx, nil)
		if err != nil {
			return false, err
		}
		defer func() { _ = tx.Rollback() }() // after the commit it does nothing
		has, err := setState(ctx, tx, id, state, columns)
		if err != nil {
			return false, err
		}
		return has, tx.Commit()
	})
	for i, has := range answers {
		if has {
			told = append(told, servers[i].Name)
		}
	}
	return told, failed
}

// Acknowledge marks a record (of Show) as acknowledged, everywhere. One that has been restored stays so, and the servers
// that have not heard of that hear of it now.
func Acknowledge(ctx context.Context, servers []Server, r *Record) (told []string, failed []Failure) {
	if r.State == Restored {
		return SetState(ctx, servers, r.ID, Restored, r.Restored...)
	}
	r.State = Acknowledged
	return SetState(ctx, servers, r.ID, Acknowledged)
}

// setState changes one copy, inside a transaction; has reports whether there is one.
func setState(ctx context.Context, q checkpoint.Querier, id ID, state string, columns []string) (has bool, err error) {
	before := Open
	if state == Restored {
		before = Acknowledged
	}
	_, err = q.ExecContext(ctx, "UPDATE replicator.conflict SET state = ?, state_at = UTC_TIMESTAMP(6) WHERE id = ? AND state IN (?, ?)",
		state, id[:], Open, before)
	if err != nil {
		return false, fmt.Errorf("record that conflict %s is %s: %w", id, state, err)
	}
	var row []byte
	switch err := q.QueryRowContext(ctx, "SELECT loser_row FROM replicator.conflict WHERE id = ? FOR UPDATE", id[:]).Scan(&row); {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for conflict %s: %w", id, err)
	case row == nil || len(columns) == 0:
		return true, nil
	}
	if row, err = addRestored(row, columns); err != nil {
		return true, fmt.Errorf("conflict %s: %w", id, err)
	}
	if _, err := q.ExecContext(ctx, "UPDATE replicator.conflict SET loser_row = ? WHERE id = ?", row, id[:]); err != nil {
		return true, fmt.Errorf("record which columns of conflict %s are restored: %w", id, err)
	}
	return true, nil
}

// Counts are the conflicts of a mesh, each once however many servers have it.
type Counts struct {
	Open, Total int64
	Exact       bool // false: worked out from a sample, because there are very many
}

// sampleRows is about how many ids are read of one server.
const sampleRows = 50_000

// Count counts conflicts. It reads at most about sampleRows ids of each server: above that, those below some bound, which
// are a fair sample, since ids are hashes. The failures are the servers that could not be asked.
func Count(ctx context.Context, servers []Server) (Counts, []Failure) {
	sizes, failed := ask(ctx, servers, func(ctx context.Context, s Server) (n int64, err error) {
		const query = "SELECT COALESCE(MAX(seq) - MIN(seq) + 1, 0) FROM replicator.conflict"
		return n, s.DB.QueryRowContext(ctx, query).Scan(&n)
	})
	parts := int64(1)
	for _, n := range sizes {
		for n/parts > sampleRows && parts < 1<<15 {
			parts *= 2
		}
	}
	if parts > 1 { // seq has gaps: look again before the count is an estimate
		parts = exactParts(ctx, servers, parts)
	}
	last := ID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if parts > 1 {
		last[0], last[1] = byte((1<<16/parts-1)>>8), byte(1<<16/parts-1)
	}
	lists, more := ask(ctx, servers, func(ctx context.Context, s Server) (map[ID]string, error) {
		return readStates(ctx, s, "id <= ?", last[:])
	})
	merged := mergeStates(lists)
	c := Counts{Total: int64(len(merged)) * parts, Exact: parts == 1}
	for _, state := range merged {
		if state == Open {
			c.Open += parts
		}
	}
	return c, mergeFailures(failed, more)
}

// exactParts is 1 when no server has more than sampleRows conflicts after all.
func exactParts(ctx context.Context, servers []Server, parts int64) int64 {
	counts, _ := ask(ctx, servers, func(ctx context.Context, s Server) (n int64, err error) {
		const query = "SELECT COUNT(*) FROM (SELECT 1 FROM replicator.conflict LIMIT ?) AS few"
		return n, s.DB.QueryRowContext(ctx, query, sampleRows+1).Scan(&n)
	})
	for _, n := range counts {
		if n > sampleRows {
			return parts
		}
	}
	return 1
}

// mergeStates gives each conflict the furthest state that any server has.
func mergeStates(lists []map[ID]string) map[ID]string {
	merged := map[ID]string{}
	for _, list := range lists {
		for id, state := range list {
			if old, ok := merged[id]; !ok || stateRank(state) > stateRank(old) {
				merged[id] = state
			}
		}
	}
	return merged
}

func readStates(ctx context.Context, s Server, condition string, args ...any) (map[ID]string, error) {
	rows, err := s.DB.QueryContext(ctx, "SELECT id, state FROM replicator.conflict WHERE "+condition, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := map[ID]string{}
	for rows.Next() {
		var id []byte
		var state string
		if err := rows.Scan(&id, &state); err != nil {
			return nil, err
		}
		list[ID(id)] = state
	}
	return list, rows.Err()
}
