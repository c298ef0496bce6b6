package checkpoint

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"replicator/change"
	"replicator/fault"
)

// Keep is how many of the newest markers of each source are never trimmed, so that the fence holds for an owner that was
// paused for long: a stale owner finds its predecessor gone, or its own number taken.
const Keep = 100

// Owner is a random token of one process start. It tells whether a marker whose COMMIT was never answered is one's own.
type Owner [16]byte

// NewOwner draws a token.
func NewOwner() Owner { return Owner(change.NewServerID()) }

// State is the checkpoint of one link: how far a target has applied a source.
type State struct {
	Seq      uint64
	Position change.GTIDSet
	Clock    change.Clock
	Owner    Owner
	Applied  time.Time // when, by the target's clock
}

// Latest reads the newest marker of a source on a target. found is false when there is none.
func Latest(ctx context.Context, q Querier, flavor change.Flavor, source change.ServerID) (state State, found bool, err error) {
	var position, clock, owner []byte
	var applied string
	row := q.QueryRowContext(ctx, `SELECT seq, position, clock, owner, CAST(applied_at AS CHAR) FROM replicator.marker
 WHERE source = ? ORDER BY seq DESC LIMIT 1`, source[:])
	err = row.Scan(&state.Seq, &position, &clock, &owner, &applied)
	if errors.Is(err, sql.ErrNoRows) {
		return State{}, false, nil
	}
	if err == nil {
		state.Position, err = change.ParseGTIDSet(flavor, string(position))
	}
	if err == nil {
		state.Clock, err = change.DecodeClock(clock)
	}
	if err == nil {
		state.Applied, err = time.Parse("2006-01-02 15:04:05.999999", applied)
	}
	if err != nil {
		return State{}, false, fmt.Errorf("read the newest marker of source %s: %w", source, err)
	}
	copy(state.Owner[:], owner)
	return state, true, nil
}

// Begin plants the first marker of a source on a target, at the source's birth, unless there is one, and returns the
// newest. Every later marker proves its predecessor; this one has none.
func Begin(ctx context.Context, q Querier, owner Owner, source Identity) (State, error) {
	flavor := source.Position.Flavor()
	state, found, err := Latest(ctx, q, flavor, source.ID)
	if err != nil || found {
		return state, err
	}
	clock := change.Clock{Time: source.Clock}
	_, err = q.ExecContext(ctx, `INSERT IGNORE INTO replicator.marker (source, seq, position, clock, manifest, owner, applied_at)
 VALUES (?, 1, ?, ?, '', ?, UTC_TIMESTAMP(6))`, source.ID[:], source.Position.String(), clock.AppendBinary(nil), owner[:])
	if err != nil {
		return State{}, fmt.Errorf("plant the first marker of source %s: %w", source.ID, err)
	}
	state, found, err = Latest(ctx, q, flavor, source.ID)
	if err == nil && !found {
		err = errors.New("bug: the marker that was just planted is not there")
	}
	return state, err
}

const (
	lockLast = `SELECT 1 FROM replicator.marker WHERE source = ? AND seq = ? LOCK IN SHARE MODE`
	insert   = `INSERT INTO replicator.marker (source, seq, position, clock, manifest, owner, applied_at)
 VALUES (?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))`
)

// Writer inserts the markers of one link through one session. It is not safe for concurrent use.
type Writer struct {
	Source change.ServerID
	Owner  Owner
	lock   *sql.Stmt
	insert *sql.Stmt
}

// NewWriter prepares the statements on the session.
func NewWriter(ctx context.Context, conn *sql.Conn, source change.ServerID, owner Owner) (*Writer, error) {
	lock, err := conn.PrepareContext(ctx, lockLast)
	if err != nil {
		return nil, fmt.Errorf("prepare the marker: %w", err)
	}
	insert, err := conn.PrepareContext(ctx, insert)
	if err != nil {
		return nil, fmt.Errorf("prepare the marker: %w", err) // the session, which holds the other statement, is given up
	}
	return &Writer{Source: source, Owner: owner, lock: lock, insert: insert}, nil
}

// ErrFenced says that the marker's predecessor is not the newest one: somebody else applies to this target, or the own
// commit whose answer was lost has arrived. Read Latest to tell the two apart.
var ErrFenced = errors.New("the marker's predecessor is gone or its number is taken")

// Insert writes the markers of one commit behind number last, as the first statements of the session's open transaction, and
// returns the number of the newest. hold is a marker that is committed: last itself, or, of a group that is committed
// behind others under way, one before it. isDuplicate tells a duplicate key from other errors.
//
// Safe under invariant 6: the lock of the held marker is shared with parallel groups and lasts until the transaction ends,
// and nothing else can take the next number. A group that is not the next commits when all before it have: whoever has
// taken the number of one of these keeps that from happening. One INSERT … SELECT would say the same, but the servers put its result, manifest
// included, into a temporary table first: ten milliseconds a group.
func (w *Writer) Insert(ctx context.Context, hold, last uint64, position change.GTIDSet, clock change.Clock,
	manifest []Entry, isDuplicate func(error) bool,
) (uint64, error) {
	if err := w.Hold(ctx, hold); err != nil {
		return 0, err
	}
	pos, clk := []byte(position.String()), clock.AppendBinary(nil)
	seq := last
	insert := func(piece []byte) error {
		_, err := w.insert.ExecContext(ctx, w.Source[:], seq+1, pos, clk, piece, w.Owner[:])
		switch {
		case err != nil && isDuplicate(err):
			return ErrFenced
		case err != nil:
			return fmt.Errorf("insert marker %d: %w", seq+1, err)
		}
		seq++
		return nil
	}
	if err := EncodeManifest(manifest, insert); err != nil {
		return 0, err
	}
	if seq == last { // an empty manifest: only the position moves
		if err := insert([]byte{}); err != nil {
			return 0, err
		}
	}
	return seq, nil
}

// Hold locks marker last in the open transaction: no other process can commit a marker before it ends, except on top of
// this one. ErrFenced says that the marker is gone.
func (w *Writer) Hold(ctx context.Context, last uint64) error {
	var one int
	switch err := w.lock.QueryRowContext(ctx, w.Source[:], last).Scan(&one); {
	case errors.Is(err, sql.ErrNoRows):
		return ErrFenced
	case err != nil:
		return fmt.Errorf("lock marker %d: %w", last, err)
	}
	return nil
}

// Close releases the prepared statements.
func (w *Writer) Close() error { return errors.Join(w.lock.Close(), w.insert.Close()) }

// Fence is the fault of a link whose target is applied to by another process.
func Fence(target string) *fault.Error {
	return fault.New(fault.Fenced, "stop one of the two processes; then it is tried again within a minute, or at once by `replicator link resume`",
		"another process applies to %s: it has committed the number that this process was about to take", target)
}
