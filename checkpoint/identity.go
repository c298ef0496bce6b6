package checkpoint

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"replicator/change"
	"replicator/fault"
)

// Identity is who a server is in its mesh, and its birth: where every reader of its binlog begins, with which clock.
type Identity struct {
	ID       change.ServerID
	Mesh     string
	Position change.GTIDSet
	Clock    change.Time
	// Settings is what the fold depends on besides the log, in a canonical text. All processes must agree on it.
	Settings string
	// ServerUUID is the server_uuid (MariaDB: server_uid) of the instance that was given the identity. A copied data
	// directory shows by another UUID with the same ID, or the same UUID twice.
	ServerUUID string
}

// LoadIdentity reads a server's identity; found is false when the server has none yet, also when it has no replicator
// schema at all.
func LoadIdentity(ctx context.Context, q Querier, flavor change.Flavor) (identity Identity, found bool, err error) {
	var exists int
	const find = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = 'identity'"
	if err := q.QueryRowContext(ctx, find, Schema).Scan(&exists); err != nil {
		return Identity{}, false, fmt.Errorf("look for the replicator schema: %w", err)
	}
	if exists == 0 {
		return Identity{}, false, nil
	}
	var id, position []byte
	row := q.QueryRowContext(ctx, "SELECT id, mesh, position, clock, settings, server_uuid FROM replicator.identity WHERE singleton = 1")
	err = row.Scan(&id, &identity.Mesh, &position, &identity.Clock, &identity.Settings, &identity.ServerUUID)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Identity{}, false, nil
	case err != nil:
		return Identity{}, false, fmt.Errorf("read replicator.identity: %w", err)
	case len(id) != len(identity.ID):
		return Identity{}, false, fault.New(fault.Identity, "restore the row from a backup, or give the server a new identity with `replicator init --new-identity`",
			"replicator.identity holds an id of %d bytes, want 16", len(id))
	}
	copy(identity.ID[:], id)
	identity.Position, err = change.ParseGTIDSet(flavor, string(position))
	if err != nil {
		return Identity{}, false, fmt.Errorf("read replicator.identity: %w", err)
	}
	return identity, true, nil
}

// GiveBirth records a server's identity and birth, unless another process was faster, and returns what is recorded. ErrReborn
// says that the server is being cloned: it is born when that has ended.
func GiveBirth(ctx context.Context, q Querier, flavor change.Flavor, newborn Identity) (Identity, error) {
	_, err := q.ExecContext(ctx, `INSERT IGNORE INTO replicator.identity
 (singleton, id, mesh, position, clock, settings, server_uuid, born_at) SELECT 1, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6) FROM DUAL
 WHERE NOT EXISTS (SELECT 1 FROM replicator.clone WHERE ended_at IS NULL)`,
		newborn.ID[:], newborn.Mesh, newborn.Position.String(), int64(newborn.Clock), newborn.Settings, newborn.ServerUUID)
	if err != nil {
		return Identity{}, fmt.Errorf("record the birth of the server: %w", err)
	}
	recorded, found, err := LoadIdentity(ctx, q, flavor)
	if err == nil && !found {
		err = ErrReborn
	}
	return recorded, err
}
