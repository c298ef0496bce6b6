package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"replicator/journal"
)

// headID is the conflict of a party's head.
var headID journal.ID

// notice is one row of replicator.notice: a party and a conflict.
type notice struct {
	message string
	sent    bool
}

// noticesOf returns what the parties of some conflicts have been told, or are being told.
func noticesOf(ctx context.Context, db *sql.DB, ids []journal.ID) (map[journal.ID]map[string]notice, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	rows, err := db.QueryContext(ctx, "SELECT id, party, sent_at IS NOT NULL, COALESCE(message, '') FROM replicator.notice WHERE id IN ("+
		marks(len(ids))+")", idArgs(ids)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[journal.ID]map[string]notice{}
	for rows.Next() {
		var raw, party []byte
		var n notice
		if err := rows.Scan(&raw, &party, &n.sent, &n.message); err != nil {
			return nil, err
		}
		var id journal.ID
		copy(id[:], raw)
		if out[id] == nil {
			out[id] = map[string]notice{}
		}
		out[id][string(party)] = n
	}
	return out, rows.Err()
}

// head is the row that says who may write to a party.
type head struct {
	exists  bool
	owner   []byte
	message string
	sentAt  string // "" while the message is under way
	claimed time.Duration
	sent    time.Duration // ages, by the server's clock
}

func (h head) underWay() bool { return h.exists && h.sentAt == "" }

func (h head) same(o head) bool {
	return h.exists == o.exists && h.message == o.message && h.sentAt == o.sentAt && bytes.Equal(h.owner, o.owner)
}

// execer is a pool or a connection.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// querier is a pool or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readHead(ctx context.Context, q querier, p party, lock string) (head, error) {
	var h head
	var sentAt, message sql.NullString
	var claimed, sent sql.NullInt64
	err := q.QueryRowContext(ctx, `SELECT claimed_by, message, CAST(sent_at AS CHAR),
 TIMESTAMPDIFF(MICROSECOND, claimed_at, UTC_TIMESTAMP(6)), TIMESTAMPDIFF(MICROSECOND, sent_at, UTC_TIMESTAMP(6))
 FROM replicator.notice WHERE id = ? AND party = ?`+lock, headID[:], []byte(p.key)).Scan(&h.owner, &message, &sentAt, &claimed, &sent)
	if errors.Is(err, sql.ErrNoRows) {
		return head{}, nil
	}
	h.exists, h.message, h.sentAt = true, message.String, sentAt.String
	// A clock that was set back must not stretch a wait.
	h.claimed = max(0, time.Duration(claimed.Int64)*time.Microsecond)
	h.sent = max(0, time.Duration(sent.Int64)*time.Microsecond)
	return h, err
}

// hold is a head that this process has taken.
type hold struct {
	peer   *peer
	before head
}

// errTaken says that a head is no longer this process's.
var errTaken = errors.New("another process has taken over")

// take has this process write to a party: it takes the head on every server that can be reached. Without a message, it
// returns how long to wait. A message that was left behind unfinished is returned as it was, with the conflicts in it.
func (r *round) take(ctx context.Context, p party, first journal.ID) (*message, time.Duration, error) {
	d := r.desk
	heads := map[*peer]head{}
	var wait time.Duration
	for _, x := range r.reachable() {
		if d.party(p.key).unrecordedOn(x) {
			continue
		}
		h, err := within(ctx, func(ctx context.Context) (head, error) { return readHead(ctx, x.DB, p, "") })
		if err != nil {
			d.fell(ctx, x, err)
			continue
		}
		heads[x] = h
		wait = max(wait, d.wait(p, h))
	}
	if wait > 0 || len(heads) == 0 {
		return nil, max(wait, d.pace.Poll), nil
	}
	m := &message{party: p, digest: newDigest(p.details()), claims: map[*peer]bool{}}
	left, known := d.leftBehind(ctx, p, heads)
	if !known {
		return nil, d.pace.Poll, nil
	}
	m.plan(d.options.Config.Mesh, heads, left, first, r.complete && len(heads) == len(r.peers))
	for _, x := range sortedPeers(heads) {
		err := d.takeOn(ctx, x, m, heads[x])
		if err != nil {
			d.release(ctx, m)
			if errors.Is(err, errTaken) {
				return nil, jitter(d.pace.Poll), nil
			}
			d.fell(ctx, x, err)
			return nil, d.pace.Poll, nil
		}
		m.holds = append(m.holds, hold{x, heads[x]})
	}
	return m, 0, d.unfinished(ctx, m)
}

func (w *waiting) unrecordedOn(p *peer) bool {
	return slices.ContainsFunc(w.unrecorded, func(m *message) bool { return m.holdsOn(p) })
}

// wait is how long a head keeps this process from writing to a party.
func (d *Desk) wait(p party, h head) time.Duration {
	switch {
	case h.underWay() && !bytes.Equal(h.owner, d.options.Owner[:]):
		return d.pace.Lease - h.claimed
	case h.exists && !h.underWay() && !p.isHook():
		return d.pace.Every - h.sent
	}
	return 0
}

// leftBehind names the messages that have conflicts, and have not arrived as far as their servers know. known is false when
// a server cannot be asked any more.
func (d *Desk) leftBehind(ctx context.Context, p party, heads map[*peer]head) (left map[string]bool, known bool) {
	left = map[string]bool{}
	for x, h := range heads {
		if !h.underWay() {
			continue
		}
		names, err := within(ctx, func(ctx context.Context) ([]string, error) { return namesOf(ctx, x.DB, p) })
		if err != nil {
			d.fell(ctx, x, err)
			return nil, false
		}
		for _, n := range names {
			left[n] = true
		}
	}
	return left, true
}

// plan names the message. The name of a message that was left behind stays, so that a mail server or reader which got it
// already knows it again; unless some of its conflicts are out of reach: they are told later, and under its name.
func (m *message) plan(mesh string, heads map[*peer]head, left map[string]bool, first journal.ID, complete bool) {
	m.delivered = map[string]bool{}
	for _, h := range heads {
		if h.exists && !h.underWay() {
			m.delivered[h.message] = true
			delete(left, h.message)
		}
	}
	names := slices.Sorted(maps.Keys(left))
	switch {
	case len(names) == 0:
		m.id = messageID(mesh, m.party.key, first[:])
	case len(names) == 1 && complete:
		m.id = names[0]
	default:
		m.id = messageID(mesh, m.party.key, []byte("again "+names[0]))
	}
	for m.delivered[m.id] { // it would be taken for what arrived before
		m.id = messageID(mesh, m.party.key, []byte("again "+m.id))
	}
	m.names = []string{m.id}
}

// messageID names a message by what is in it: no two messages share a first conflict and a party.
func messageID(mesh, party string, first []byte) string {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(mesh), []byte(party), first} {
		h.Write(part)
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (d *Desk) takeOn(ctx context.Context, x *peer, m *message, seen head) error {
	return transact(ctx, x.DB, func(ctx context.Context, tx *sql.Tx) error {
		now, err := readHead(ctx, tx, m.party, " FOR UPDATE")
		if err != nil {
			return err
		}
		if !now.same(seen) {
			return errTaken
		}
		query := `UPDATE replicator.notice SET claimed_by = ?, claimed_at = UTC_TIMESTAMP(6), sent_at = NULL, message = ? WHERE id = ? AND party = ?`
		if !now.exists {
			query = `INSERT IGNORE INTO replicator.notice (claimed_by, claimed_at, message, id, party) VALUES (?, UTC_TIMESTAMP(6), ?, ?, ?)`
		}
		return found(tx.ExecContext(ctx, query, d.options.Owner[:], m.id, headID[:], []byte(m.party.key)))
	})
}

// found turns a statement that did not find its rows into errTaken.
func found(result sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		err = errTaken
	}
	return err
}

// unfinished collects what was left behind on the servers: every conflict of the party that is claimed and not sent, since
// nobody else may be at it. What belongs to a message that has arrived is only recorded.
func (d *Desk) unfinished(ctx context.Context, m *message) error {
	for _, h := range m.holds {
		if h.before.underWay() && m.delivered[h.before.message] {
			err := exec(ctx, h.peer.DB, "UPDATE replicator.notice SET sent_at = UTC_TIMESTAMP(6) WHERE party = ? AND sent_at IS NULL AND message = ? AND id <> ?",
				[]byte(m.party.key), h.before.message, headID[:])
			if err != nil {
				return err
			}
		}
		ids, err := within(ctx, func(ctx context.Context) ([]journal.ID, error) { return claimedOf(ctx, h.peer.DB, m.party) })
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			continue
		}
		names, err := within(ctx, func(ctx context.Context) ([]string, error) { return namesOf(ctx, h.peer.DB, m.party) })
		if err != nil {
			return err
		}
		m.resumed, m.claims[h.peer] = true, true
		m.ids, m.names = append(m.ids, ids...), append(m.names, names...)
	}
	slices.Sort(m.names)
	m.names = slices.Compact(m.names)
	return nil
}

// namesOf names the messages in which a server's unsent conflicts were to be told.
func namesOf(ctx context.Context, db *sql.DB, p party) ([]string, error) {
	return column[string](ctx, db, "SELECT DISTINCT message FROM replicator.notice WHERE party = ? AND sent_at IS NULL AND id <> ?",
		[]byte(p.key), headID[:])
}

func claimedOf(ctx context.Context, db *sql.DB, p party) ([]journal.ID, error) {
	raw, err := column[[]byte](ctx, db, "SELECT id FROM replicator.notice WHERE party = ? AND sent_at IS NULL AND id <> ? ORDER BY id LIMIT ?",
		[]byte(p.key), headID[:], 2*mailEntries)
	ids := make([]journal.ID, len(raw))
	for i, b := range raw {
		copy(ids[i][:], b)
	}
	return ids, err
}

// column reads the one column of a query.
func column[T any](ctx context.Context, db *sql.DB, query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// claim records that a message tells its party of some conflicts, whose home is one server. It returns those that nobody
// else has told.
func (d *Desk) claim(ctx context.Context, m *message, home *peer, ids []journal.ID) ([]journal.ID, error) {
	var claimed []journal.ID
	err := transact(ctx, home.DB, func(ctx context.Context, tx *sql.Tx) error {
		err := found(tx.ExecContext(ctx, `UPDATE replicator.notice SET claimed_at = UTC_TIMESTAMP(6)
 WHERE id = ? AND party = ? AND claimed_by = ? AND message = ? AND sent_at IS NULL`,
			headID[:], []byte(m.party.key), d.options.Owner[:], m.id))
		if err != nil {
			return err
		}
		// The head's row is locked: nobody else can claim for this party here.
		known := map[journal.ID]bool{}
		args := append([]any{[]byte(m.party.key)}, idArgs(ids)...)
		rows, err := tx.QueryContext(ctx, "SELECT id FROM replicator.notice WHERE party = ? AND id IN ("+marks(len(ids))+")", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var raw []byte
			if err := rows.Scan(&raw); err != nil {
				return err
			}
			known[journal.ID(raw)] = true
		}
		if err := rows.Err(); err != nil {
			return err
		}
		claimed = slices.DeleteFunc(slices.Clone(ids), func(id journal.ID) bool { return known[id] })
		return d.insertClaims(ctx, tx, m, claimed)
	})
	if len(claimed) > 0 {
		m.claims[home] = true
	}
	return claimed, err
}

func (d *Desk) insertClaims(ctx context.Context, tx *sql.Tx, m *message, ids []journal.ID) error {
	if len(ids) == 0 {
		return nil
	}
	var query bytes.Buffer
	query.WriteString("INSERT INTO replicator.notice (id, party, claimed_by, claimed_at, message) VALUES ")
	args := make([]any, 0, 4*len(ids))
	for i, id := range ids {
		if i > 0 {
			query.WriteByte(',')
		}
		query.WriteString("(?, ?, ?, UTC_TIMESTAMP(6), ?)")
		args = append(args, id[:], []byte(m.party.key), d.options.Owner[:], m.id)
	}
	_, err := tx.ExecContext(ctx, query.String(), args...)
	return err
}

// renewOn says that a message is still on its way.
func (d *Desk) renewOn(ctx context.Context, db execer, m *message) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return found(db.ExecContext(ctx, `UPDATE replicator.notice SET claimed_at = UTC_TIMESTAMP(6)
 WHERE id = ? AND party = ? AND claimed_by = ? AND message = ? AND sent_at IS NULL`,
		headID[:], []byte(m.party.key), d.options.Owner[:], m.id))
}

// keep renews a message while it is leaving, however slow the mail server is, until the returned function is called.
func (d *Desk) keep(ctx context.Context, m *message) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(d.pace.Lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, h := range m.holds {
				// One that fails shows when the message is recorded.
				_ = d.renewOn(ctx, h.peer.DB, m)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// release gives heads back as they were, where nothing has been claimed.
func (d *Desk) release(ctx context.Context, m *message) {
	for _, h := range m.holds {
		query, args := "DELETE FROM replicator.notice", []any{}
		switch {
		case h.before.underWay():
			continue // it stays what it is: a message left behind, now by this process
		case h.before.exists:
			query = "UPDATE replicator.notice SET sent_at = ?, message = ?"
			args = append(args, h.before.sentAt, h.before.message)
		}
		args = append(args, headID[:], []byte(m.party.key), d.options.Owner[:], m.id)
		err := exec(ctx, h.peer.DB, query+" WHERE id = ? AND party = ? AND claimed_by = ? AND message = ? AND sent_at IS NULL", args...)
		if err != nil {
			d.fell(ctx, h.peer, err)
		}
	}
	m.holds = nil
}

// forget removes what was told so long ago that no journal has the conflict any more.
func forget(ctx context.Context, db *sql.DB, keep time.Duration) error {
	parties, err := within(ctx, func(ctx context.Context) ([][]byte, error) {
		return column[[]byte](ctx, db, "SELECT DISTINCT party FROM replicator.notice")
	})
	for _, p := range parties {
		err = errors.Join(err, exec(ctx, db, "DELETE FROM replicator.notice WHERE party = ? AND sent_at < UTC_TIMESTAMP(6) - INTERVAL ? SECOND ORDER BY sent_at LIMIT 10000",
			p, int64(keep/time.Second)))
	}
	return err
}

// within bounds one access to a server.
func within[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return f(ctx)
}

func transact(ctx context.Context, db *sql.DB, f func(context.Context, *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	if err := f(ctx, tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func sortedPeers(heads map[*peer]head) []*peer {
	return slices.SortedFunc(maps.Keys(heads), comparePeers)
}

func comparePeers(a, b *peer) int { return cmp.Or(a.ID.Compare(b.ID), cmp.Compare(a.Name, b.Name)) }
