package journal

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
)

// Limits bound what an entry takes.
type Limits struct {
	MaxValue  int64 // bytes of one value; longer ones are left out, and their rows cannot be restored. 0: no limit
	MaxPacket int   // the server's max_allowed_packet
}

const (
	batchBytes = 1 << 20 // of one statement, unless one entry is longer
	headRoom   = 4 << 10 // kept free below max_allowed_packet
	leastValue = 64      // what is shorter than its hash is never left out

	maxPerson = 1 << 10 // bytes of a user or comment that are kept
)

const head = "INSERT INTO replicator.conflict (id, decided_at, database_name, table_name, row_key, key_columns, kind, policy," +
	" winner_origin, winner_time, winner_gtid, winner_user, winner_comment, winner_row," +
	" loser_origin, loser_time, loser_gtid, loser_user, loser_comment, loser_row, `columns`, restorable, bytes, state, state_at, notified) VALUES "

// An entry that exists stays as it is.
const tail = " ON DUPLICATE KEY UPDATE id = id"

// Write puts entries into the journal, inside the transaction that q has open. An id that is there already stays as it is,
// but for more columns that it has lost where columns are merged.
// Where both changes leave no row, or equal ones, nothing was lost: such an entry is born acknowledged. So is one of a resync,
// and nobody is told of it: somebody asked for it. The statements are plain
// ASCII, whatever character set the session speaks.
func Write(ctx context.Context, q checkpoint.Querier, limits Limits, entries []*Entry) error {
	most := limits.MaxPacket - headRoom
	var text []byte
	send := func() error {
		if len(text) == 0 {
			return nil
		}
		_, err := q.ExecContext(ctx, string(text)+tail)
		text = text[:0]
		if err != nil {
			return fmt.Errorf("write to the journal: %w", err)
		}
		return nil
	}
	for _, e := range entries {
		if e.merges() {
			if err := send(); err != nil {
				return err
			}
			if known, err := e.extend(ctx, q, limits); err != nil {
				return err
			} else if known {
				continue
			}
		}
		row, err := e.fit(limits.MaxValue, most-len(head))
		if err != nil {
			return err
		}
		if len(text) > 0 && len(text)+len(row) > min(batchBytes, most) {
			if err := send(); err != nil {
				return err
			}
		}
		if len(text) == 0 {
			text = append(text, head...)
		} else {
			text = append(text, ',')
		}
		text = append(text, row...)
	}
	return send()
}

// fit renders an entry in at most most bytes: where max_allowed_packet demands it, more values are left out.
func (e *Entry) fit(limit int64, most int) ([]byte, error) {
	for {
		row, err := e.tuple(int(limit))
		if err != nil || len(row) <= most {
			return row, err
		}
		switch {
		case limit == 0:
			limit = int64(len(row))
		case limit <= leastValue:
			return nil, fault.New(fault.Precondition, fmt.Sprintf("set max_allowed_packet on the target to at least %dM", len(row)>>20+1),
				"the journal's entry of a row of %s takes %d bytes, more than max_allowed_packet allows", e.Table, len(row))
		}
		limit = max(limit/4, leastValue)
	}
}

// tuple renders the entry's values.
func (e *Entry) tuple(limit int) ([]byte, error) {
	key, err := e.KeyRow.Key()
	if err != nil {
		return nil, err
	}
	stands, _ := e.Kind.Sides(e.Winner.Row, e.Loser.Row)
	differing := Differing(stands, e.Loser.Row)
	if differing == nil {
		differing = []string{}
	}
	columns, err := json.Marshal(differing)
	if err != nil {
		return nil, fmt.Errorf("bug: encode column names: %w", err)
	}
	winner, _, err := e.Winner.Row.stored(limit)
	if err != nil {
		return nil, err
	}
	loser, restorable, err := e.Loser.Row.stored(limit)
	if err != nil {
		return nil, err
	}
	if e.Loser.Row == nil { // to be deleted: what it is called must be known
		restorable = e.Winner.Row != nil && sameKey(e.Winner.Row, key)
	}
	id := e.ID()
	t := tuple{'('}
	t.bytes(id[:])
	t.moment(e.At)
	t.text(e.Table.Database)
	t.text(e.Table.Table)
	t.bytes(e.Key[:])
	t.text(string(key))
	t.text(string(e.Kind))
	t.text(e.Policy)
	t.side(&e.Winner, winner)
	t.side(&e.Loser, loser)
	t.text(string(columns))
	t.flag(restorable)
	t.number(int64(len(winner) + len(loser) + len(key)))
	if len(differing) == 0 || e.Kind == Resync {
		t.text(Acknowledged)
		t.moment(e.At)
	} else {
		t.text(Open)
		t.null()
	}
	t.flag(e.Kind == Resync)
	t[len(t)-1] = ')'
	return t, nil
}

func sameKey(r *Row, key []byte) bool {
	other, err := r.Key()
	return err == nil && string(other) == string(key)
}

// stored encodes a row; there may be none.
func (r *Row) stored(limit int) (b []byte, whole bool, err error) {
	if r == nil {
		return nil, false, nil
	}
	return r.encode(limit)
}

// tuple is a list of SQL literals, with a comma behind each.
type tuple []byte

func (t *tuple) null() { *t = append(*t, "NULL,"...) }

func (t *tuple) bytes(b []byte) {
	if b == nil {
		t.null()
		return
	}
	*t = append(hex.AppendEncode(append(*t, "X'"...), b), "',"...)
}

func (t *tuple) text(s string) {
	*t = append(*t, "_utf8mb4 "...)
	t.bytes([]byte(strings.ToValidUTF8(s, "\ufffd")))
}

func (t *tuple) number(n int64) { *t = append(strconv.AppendInt(*t, n, 10), ',') }

func (t *tuple) flag(yes bool) {
	n := int64(0)
	if yes {
		n = 1
	}
	t.number(n)
}

// moment appends a time; zero is now, by the server's clock.
func (t *tuple) moment(at time.Time) {
	if at.IsZero() {
		*t = append(*t, "UTC_TIMESTAMP(6),"...)
		return
	}
	*t = append(at.UTC().AppendFormat(*t, "'2006-01-02 15:04:05.000000'"), ',')
}

// side appends version, GTID, user, comment and row.
func (t *tuple) side(s *Side, row []byte) {
	if s.Version == (change.Version{}) {
		t.null()
		t.null()
	} else {
		t.bytes(s.Version.Origin[:])
		t.number(int64(s.Version.Time))
	}
	if s.GTID.IsZero() {
		t.null()
	} else {
		t.text(s.GTID.String())
	}
	t.person(s.User)
	t.person(s.Comment)
	t.bytes(row)
}

func (t *tuple) person(s string) {
	if s == "" {
		t.null()
		return
	}
	if len(s) > maxPerson {
		s = s[:maxPerson]
		for !utf8.ValidString(s) && len(s) > maxPerson-utf8.UTFMax {
			s = s[:len(s)-1]
		}
	}
	t.text(s)
}
