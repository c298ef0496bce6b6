package clone

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"

	"replicator/change"
	"replicator/fault"
	"replicator/server"
)

// attempts bound how a server is stopped for a moment: whoever waits for the lock stops all writers, so that the wait for
// one long statement is short, and the writers go on in between.
type attempts struct {
	most  int
	wait  int // seconds
	pause time.Duration
}

const (
	// releaseTimeout bounds the end of a lock whose caller has gone.
	releaseTimeout = 10 * time.Second
	// patience is how long a server waits for a session that is slow because the other server is.
	patience = 7 * 24 * time.Hour
)

// Snapshot is several sessions that see a server as of one moment. Close ends it.
type Snapshot struct {
	// Position is exactly what the sessions see, as a position in the server's binlog.
	Position change.GTIDSet

	side     Side
	sessions []*sql.Conn
}

// Freeze stops all writers of a server for the moment that it takes to begin a transaction on each of so many sessions
// (at least one) and to read the position (FLUSH TABLES WITH READ LOCK). The pool must have one connection more than that.
// A statement that runs for long on the server keeps it from stopping: after some attempts that is a fault of class Busy.
func Freeze(ctx context.Context, s Side, sessions int) (*Snapshot, error) {
	return freeze(ctx, s, sessions, attempts{most: 10, wait: 3, pause: 2 * time.Second})
}

func freeze(ctx context.Context, s Side, sessions int, a attempts) (*Snapshot, error) {
	snap := &Snapshot{side: s}
	if err := snap.open(ctx, max(sessions, 1)); err != nil {
		snap.Close()
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		err := snap.begin(ctx, a.wait)
		if err == nil {
			return snap, nil
		}
		if ctx.Err() != nil || !server.IsLockTimeout(err) || attempt == a.most {
			snap.Close()
			return nil, snap.refused(ctx, a, err)
		}
		select {
		case <-time.After(a.pause):
		case <-ctx.Done():
			snap.Close()
			return nil, ctx.Err()
		}
	}
}

// refused says why a server could not be stopped.
func (s *Snapshot) refused(ctx context.Context, a attempts, err error) error {
	if server.IsLockTimeout(err) {
		return fault.Wrap(err, fault.Busy, "look for statements that run for long on "+s.side.Name+" (SHOW PROCESSLIST), and run it again when they have ended",
			"%s could not be stopped for a moment: something holds its tables for longer than %d s (%d attempts)", s.side.Name, a.wait, a.most)
	}
	return s.side.lacking(ctx, err, s.side.Dialect.FreezePrivilege(), "stop "+s.side.Name+" for a moment")
}

// lacking is the fault of an error; where a privilege is missing, the remedy is the statement that grants it.
func (s Side) lacking(ctx context.Context, err error, privilege, doing string) error {
	if server.Classify(err) != fault.Privilege {
		return server.Fault(err, doing)
	}
	grant, unknown := server.GrantStatement(ctx, s.DB, privilege)
	if unknown != nil {
		grant = "GRANT " + privilege + " ON *.* to the account"
	}
	return fault.Wrap(err, fault.Privilege, "on "+s.Name+": "+grant, "%s", doing)
}

// open makes the sessions, before anything is stopped.
func (s *Snapshot) open(ctx context.Context, n int) error {
	for range n {
		conn, err := s.side.DB.Conn(ctx)
		if err != nil {
			return server.Fault(err, "connect to "+s.side.Name)
		}
		s.sessions = append(s.sessions, conn)
		if err := s.side.lasting(ctx, conn); err != nil {
			return err
		}
		if err := execAll(ctx, conn, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"); err != nil {
			return server.Fault(err, "prepare a session on "+s.side.Name)
		}
		// MariaDB keeps a session's claim on the tables that it has read until the end of its transaction, unless the session
		// logs nothing. An account that may not say so can still read: see letGo.
		if err := execAll(ctx, conn, "SET SESSION sql_log_bin = 0"); err != nil && server.Classify(err) != fault.Privilege {
			return server.Fault(err, "prepare a session on "+s.side.Name)
		}
	}
	return nil
}

// lasting lets a session wait for as long as the other server takes.
func (s Side) lasting(ctx context.Context, conn *sql.Conn) error {
	if err := s.Dialect.ApplySession(ctx, conn, server.Session{LockWait: lockWait, Wait: patience}); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	seconds := int(patience.Seconds())
	statements := append(s.Dialect.CopySession(), "SET NAMES utf8mb4",
		fmt.Sprintf("SET SESSION net_write_timeout = %d, net_read_timeout = %d", seconds, seconds))
	if err := execAll(ctx, conn, statements...); err != nil {
		return server.Fault(err, "prepare a session on "+s.Name)
	}
	return nil
}

// begin begins all transactions while nothing can commit.
func (s *Snapshot) begin(ctx context.Context, wait int) (err error) {
	lock, err := s.side.DB.Conn(ctx)
	if err != nil {
		return server.Fault(err, "connect to "+s.side.Name)
	}
	// The lock ends with its session, whatever happened to it.
	defer discard(lock)
	if err := execAll(ctx, lock, fmt.Sprintf("SET SESSION lock_wait_timeout = %d", wait), "FLUSH TABLES WITH READ LOCK"); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		if unlocked := execAll(ctx, lock, "UNLOCK TABLES"); err == nil && unlocked != nil {
			err = unlocked
		}
	}()
	for _, conn := range s.sessions {
		if err := execAll(ctx, conn, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
			return err
		}
	}
	s.Position, err = s.side.Dialect.Position(ctx, lock)
	return err
}

// Session is one of the sessions, for reading small tables, but not while Copy runs.
func (s *Snapshot) Session() *sql.Conn { return s.sessions[0] }

// Close ends the sessions. It can be called again.
func (s *Snapshot) Close() {
	for _, conn := range s.sessions {
		discard(conn)
	}
}

// discard ends a session instead of giving it back to the pool.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close() // it is given up in any case
}

func execAll(ctx context.Context, conn *sql.Conn, statements ...string) error {
	for _, s := range statements {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
