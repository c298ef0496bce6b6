package checkpoint

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"replicator/change"
)

// Clone says that a server gets, or got, the rows of another one. While it has not ended, the server has no identity: nobody
// applies to it, and it takes no part in the mesh.
type Clone struct {
	Source change.ServerID
	Was    change.ServerID // whose identity the server had before; zero: it had none
	ID     change.ServerID // which it has been given; zero: not yet
	// Position is the server's own when it began: what applications commit on it from there on is not in the copy.
	Position change.GTIDSet
	// Seq is greater than the number of any marker that the server ever had: a process that was paused meanwhile finds no
	// predecessor.
	Seq   uint64
	Begun time.Time
	Ended time.Time // zero: not yet
}

// ErrReborn says that a server is not the one any more that this process knows, or is about to become another one.
var ErrReborn = errors.New("the server is being cloned, or was given another identity")

// HoldIdentity makes sure that a server has an identity still, and keeps it from changing until the transaction of q ends.
// Whatever an owner writes that says what the server has applied is written behind it.
func HoldIdentity(ctx context.Context, q Querier, id change.ServerID) error {
	var one int
	err := q.QueryRowContext(ctx, "SELECT 1 FROM replicator.identity WHERE singleton = 1 AND id = ? LOCK IN SHARE MODE", id[:]).Scan(&one)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrReborn
	case err != nil:
		return fmt.Errorf("look at the server's identity: %w", err)
	}
	return nil
}

// LoadClone reads what is known of the last clone of a server; found is false when there was none.
func LoadClone(ctx context.Context, q Querier, flavor change.Flavor) (c Clone, found bool, err error) {
	var source, was, id, position []byte
	var begun string
	var ended sql.NullString
	row := q.QueryRowContext(ctx, `SELECT source, was, id, position, seq, CAST(begun_at AS CHAR), CAST(ended_at AS CHAR)
 FROM replicator.clone WHERE singleton = 1`)
	err = row.Scan(&source, &was, &id, &position, &c.Seq, &begun, &ended)
	if errors.Is(err, sql.ErrNoRows) {
		return Clone{}, false, nil
	}
	if err == nil {
		c.Position, err = change.ParseGTIDSet(flavor, string(position))
	}
	if err == nil {
		c.Begun, err = time.Parse("2006-01-02 15:04:05.999999", begun)
	}
	if err == nil && ended.Valid {
		c.Ended, err = time.Parse("2006-01-02 15:04:05.999999", ended.String)
	}
	if err != nil {
		return Clone{}, false, fmt.Errorf("read replicator.clone: %w", err)
	}
	copy(c.Source[:], source)
	copy(c.Was[:], was)
	copy(c.ID[:], id)
	return c, true, nil
}

// fenceGap is by how much the numbers of a clone's markers lie above those before.
const fenceGap = 10 * Keep

// forget removes what describes the rows that a server had, and whose it was. Journal, tombstones and results stay: they are
// about the past.
var forget = []string{
	"DELETE FROM replicator.marker", "DELETE FROM replicator.heartbeat", "DELETE FROM replicator.frontier", "DELETE FROM replicator.reading",
}

// BeginClone takes a server out of the mesh, in the open transaction of q: it has no identity and no markers afterwards, so
// that whoever still applies to it is fenced off. It fills in Was and Seq.
func BeginClone(ctx context.Context, q Querier, c *Clone) error {
	var was []byte
	err := q.QueryRowContext(ctx, "SELECT id FROM replicator.identity WHERE singleton = 1 FOR UPDATE").Scan(&was)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("begin a clone: %w", err)
	}
	copy(c.Was[:], was)
	var newest sql.NullInt64
	if err := q.QueryRowContext(ctx, "SELECT MAX(seq) FROM replicator.marker").Scan(&newest); err != nil {
		return fmt.Errorf("begin a clone: %w", err)
	}
	c.Seq = uint64(newest.Int64) + fenceGap
	statements := append([]string{"DELETE FROM replicator.identity"}, forget...)
	statements = append(statements, "UPDATE replicator.resync SET state = 'cancelled', ended_at = UTC_TIMESTAMP(6) WHERE state IN ('running', 'waiting')")
	for _, s := range statements {
		if _, err := q.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("begin a clone: %w", err)
		}
	}
	_, err = q.ExecContext(ctx, `REPLACE INTO replicator.clone (singleton, source, was, id, position, seq, begun_at, ended_at)
 VALUES (1, ?, ?, NULL, ?, ?, UTC_TIMESTAMP(6), NULL)`, c.Source[:], was, c.Position.String(), c.Seq)
	if err != nil {
		return fmt.Errorf("begin a clone: %w", err)
	}
	return nil
}

// ForgetAgain removes what an earlier end of the clone, or a process that had been paused, has written.
func ForgetAgain(ctx context.Context, q Querier) error {
	for _, s := range forget {
		if _, err := q.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("end a clone: %w", err)
		}
	}
	return nil
}

// Plant writes markers of a source as its first ones on a server: its position and clock, and the changes (as
// EncodeManifest has written them) that are not stable there yet. It is called in a transaction of its own.
func Plant(ctx context.Context, q Querier, source change.ServerID, seq uint64, position change.GTIDSet, clock change.Clock, manifest [][]byte) error {
	if len(manifest) == 0 {
		manifest = [][]byte{{}}
	}
	owner := NewOwner()
	for i, piece := range manifest {
		if _, err := q.ExecContext(ctx, insert, source[:], seq+uint64(i), position.String(), clock.AppendBinary(nil), piece, owner[:]); err != nil {
			return fmt.Errorf("plant a marker of source %s: %w", source, err)
		}
	}
	return nil
}

// EndClone gives the server its identity, in the open transaction of q: it takes part in the mesh from there on.
func EndClone(ctx context.Context, q Querier, newborn Identity) error {
	_, err := q.ExecContext(ctx, `INSERT INTO replicator.identity
 (singleton, id, mesh, position, clock, settings, server_uuid, born_at) VALUES (1, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))`,
		newborn.ID[:], newborn.Mesh, newborn.Position.String(), int64(newborn.Clock), newborn.Settings, newborn.ServerUUID)
	if err == nil {
		_, err = q.ExecContext(ctx, "UPDATE replicator.clone SET id = ?, ended_at = UTC_TIMESTAMP(6) WHERE singleton = 1", newborn.ID[:])
	}
	if err != nil {
		return fmt.Errorf("end a clone: %w", err)
	}
	return nil
}

// NewestMarkers are the newest markers of the given sources on a server, without owners and times; one that has none is left out.
func NewestMarkers(ctx context.Context, q Querier, sources []Identity) (map[change.ServerID]State, error) {
	all := map[change.ServerID]State{}
	for _, s := range sources {
		state, found, err := Latest(ctx, q, s.Position.Flavor(), s.ID)
		if err != nil {
			return nil, err
		}
		if found {
			all[s.ID] = state
		}
	}
	return all, nil
}
