package server

import (
	"context"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
)

// RenewIdentity gives a server a new identity, with a birth here and now: for a server whose data was copied from another
// one of the mesh, together with that one's identity. It keeps the markers, which say truly what the copied rows contain,
// and drops what only described the old identity's binlog.
func (s *Server) RenewIdentity(ctx context.Context) (old, renewed change.ServerID, err error) {
	info, err := Probe(ctx, s.pool)
	if err != nil {
		return old, renewed, err
	}
	identity, born, err := checkpoint.LoadIdentity(ctx, s.pool, info.Flavor)
	switch {
	case err != nil:
		return old, renewed, Fault(err, "read the identity of "+s.Name)
	case !born:
		return old, renewed, fault.New(fault.Identity, "nothing: run gives it one", "%s has no identity yet", s.Name)
	}
	position, err := NewDialect(info).Position(ctx, s.pool)
	if err != nil {
		return old, renewed, err
	}
	newest, err := checkpoint.NewestTime(ctx, s.pool)
	if err != nil {
		return old, renewed, Fault(err, "read the newest time that "+s.Name+" knows")
	}
	old, renewed = identity.ID, change.NewServerID()
	if err := s.writeIdentity(ctx, renewed, position, max(newest, identity.Clock), info.UUID); err != nil {
		return old, renewed, Fault(err, "give "+s.Name+" a new identity")
	}
	return old, renewed, nil
}

func (s *Server) writeIdentity(ctx context.Context, id change.ServerID, p change.GTIDSet, clock change.Time, uuid string) error {
	tx, err := s.pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	const update = `UPDATE replicator.identity SET id = ?, position = ?, clock = ?, server_uuid = ?, born_at = UTC_TIMESTAMP(6)
 WHERE singleton = 1`
	if _, err := tx.ExecContext(ctx, update, id[:], p.String(), int64(clock), uuid); err != nil {
		return err
	}
	for _, statement := range []string{"DELETE FROM replicator.frontier", "DELETE FROM replicator.heartbeat"} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	// Places of the old identity's binlog; an older version of the schema has none.
	if _, err := tx.ExecContext(ctx, "DELETE FROM replicator.reading"); err != nil && !IsMissingTable(err) {
		return err
	}
	return tx.Commit()
}
