package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"replicator/checkpoint"
	"replicator/fault"
)

// Where columns are merged, one change can lose some of its columns to one change and others to another one. Both are the
// loss of the same change, and so one entry: what comes later is added to it.

// merges reports whether an entry may add to one that is there.
func (e *Entry) merges() bool { return e.Policy == policyMerge && e.Loser.Row != nil }

// extend adds an entry to one that is there; known is false when there is none.
func (e *Entry) extend(ctx context.Context, q checkpoint.Querier, limits Limits) (known bool, err error) {
	id := e.ID()
	var winner, loser []byte
	var state string
	err = q.QueryRowContext(ctx, "SELECT winner_row, loser_row, state FROM replicator.conflict WHERE id = ? FOR UPDATE", id[:]).
		Scan(&winner, &loser, &state)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for conflict %s in the journal: %w", id, err)
	case winner == nil || loser == nil: // it was lost whole
		return true, nil
	case e.Winner.Row == nil:
		return true, e.bury(ctx, q, limits, loser)
	}
	for limit := int(limits.MaxValue); ; limit = max(limit/4, leastValue) {
		statement, err := e.extension(winner, loser, state, limit)
		if err != nil || statement == "" {
			return true, err
		}
		if len(statement) <= limits.MaxPacket-headRoom {
			if _, err = q.ExecContext(ctx, statement); err != nil {
				err = fmt.Errorf("add to conflict %s in the journal: %w", id, err)
			}
			return true, err
		}
		if limit == 0 {
			limit = len(statement)
		}
		if limit <= leastValue {
			return true, fault.New(fault.Precondition, fmt.Sprintf("set max_allowed_packet on the target to at least %dM", len(statement)>>20+1),
				"the journal's entry of a row of %s takes %d bytes, more than max_allowed_packet allows", e.Table, len(statement))
		}
	}
}

// overBuried makes an entry about single columns one about the whole row.
const overBuried = " ON DUPLICATE KEY UPDATE kind = VALUES(kind), winner_origin = VALUES(winner_origin), winner_time = VALUES(winner_time)," +
	" winner_gtid = VALUES(winner_gtid), winner_user = VALUES(winner_user), winner_comment = VALUES(winner_comment)," +
	" winner_row = VALUES(winner_row), loser_row = VALUES(loser_row), `columns` = VALUES(`columns`)," +
	" restorable = VALUES(restorable), bytes = VALUES(bytes), state = VALUES(state), state_at = VALUES(state_at)"

// bury writes that the rest of what lost single columns before is lost as well: its row was deleted. The entry has it
// already: when it was made, what stood of the change stood in its rows. What is in those columns now can be somebody
// else's. The entry is open again, whatever was restored: that row is gone.
func (e *Entry) bury(ctx context.Context, q checkpoint.Querier, limits Limits, loser []byte) error {
	lost, err := DecodeRow(loser)
	if err != nil {
		return fmt.Errorf("conflict %s: %w", e.ID(), err)
	}
	whole := *e
	whole.Loser.Row = lost
	row, err := whole.fit(limits.MaxValue, limits.MaxPacket-headRoom-len(head)-len(overBuried))
	if err != nil {
		return err
	}
	if _, err := q.ExecContext(ctx, head+string(row)+overBuried); err != nil {
		return fmt.Errorf("add to conflict %s in the journal: %w", e.ID(), err)
	}
	return nil
}

// extension is the statement that adds to the rows of an entry what is lost besides; "" when nothing is. What was
// acknowledged is open again, for nobody has seen all of it; what was restored is restored in part.
func (e *Entry) extension(winner, loser []byte, state string, limit int) (string, error) {
	var rows [2]*Row
	var stored storedRow
	for i, b := range [][]byte{winner, loser} {
		var err error
		if rows[i], err = DecodeRow(b); err == nil {
			err = json.Unmarshal(b, &stored) // of the loser in the end
		}
		if err != nil {
			return "", fmt.Errorf("conflict %s: %w", e.ID(), err)
		}
	}
	before := Differing(rows[0], rows[1])
	more := without(Differing(e.Winner.Row, e.Loser.Row), before)
	if len(more) == 0 {
		return "", nil
	}
	restored := stored.Restored
	switch {
	case state == Restored && len(restored) == 0:
		restored = before
	case state == Acknowledged:
		state = Open
	}
	rows[0].take(e.Winner.Row, more)
	rows[1].take(e.Loser.Row, more)
	won, _, err := rows[0].encode(limit)
	if err != nil {
		return "", err
	}
	lost, restorable, err := rows[1].encode(limit)
	if err == nil && len(restored) > 0 {
		lost, err = addRestored(lost, restored)
	}
	if err != nil {
		return "", err
	}
	columns, err := json.Marshal(Differing(rows[0], rows[1]))
	if err != nil {
		return "", fmt.Errorf("bug: encode column names: %w", err)
	}
	id := e.ID()
	t := tuple("UPDATE replicator.conflict SET winner_row = ")
	t.bytes(won)
	t = append(t, " loser_row = "...)
	t.bytes(lost)
	t = append(t, " `columns` = "...)
	t.text(string(columns))
	t = append(t, " restorable = "...)
	t.flag(restorable)
	t = append(t, " bytes = LENGTH(key_columns) + "...)
	t.number(int64(len(won) + len(lost)))
	t = append(t, " state = "...)
	t.text(state)
	t = append(t[:len(t)-1], " WHERE id = "...)
	t.bytes(id[:])
	return string(t[:len(t)-1]), nil
}

// take takes the values of some columns from another row of the table.
func (r *Row) take(from *Row, names []string) {
	for _, name := range names {
		at, i := r.column(name), from.column(name)
		if at < 0 || i < 0 {
			continue // the table has been changed meanwhile
		}
		r.Values[at] = from.Values[i]
		delete(r.Omitted, at)
		if o, omits := from.Omitted[i]; omits {
			if r.Omitted == nil {
				r.Omitted = map[int]Omission{}
			}
			r.Omitted[at] = o
		}
	}
}
