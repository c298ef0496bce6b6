package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// ReplicateFrom makes the server a native replica of another of its family, by GTID, with a number of parallel workers (0:
// one thread does all), and starts it. Benchmarks compare with it. What the source has logged since its start is applied.
func (s *Server) ReplicateFrom(ctx context.Context, source *Server, workers int) error {
	if s.flavor.MariaDB() != source.flavor.MariaDB() {
		return fmt.Errorf("replicate %s from %s: different families: %w", s.name, source.name, errors.ErrUnsupported)
	}
	user, password := "native"+rand.Text()[:10], rand.Text()
	if err := source.CreateAccount(ctx, user, password, "REPLICATION SLAVE ON *.*"); err != nil {
		return err
	}
	statements := []string{
		fmt.Sprintf("SET GLOBAL replica_parallel_workers = %d", max(workers, 1)),
		fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER=%s, SOURCE_PASSWORD=%s, "+
			"SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1", source.Port(), quote(user), quote(password)),
		"START REPLICA",
	}
	if s.flavor.MariaDB() {
		statements = []string{
			fmt.Sprintf("SET GLOBAL slave_parallel_threads = %d", workers),
			"SET GLOBAL slave_parallel_mode = 'optimistic'",
			fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER=%s, MASTER_PASSWORD=%s, "+
				"MASTER_SSL_VERIFY_SERVER_CERT=0, MASTER_USE_GTID=slave_pos", source.Port(), quote(user), quote(password)),
			"START SLAVE",
		}
	}
	if err := run(ctx, s.db, statements...); err != nil {
		return fmt.Errorf("replicate %s from %s: %w", s.name, source.name, err)
	}
	return nil
}

// StopReplication ends ReplicateFrom and forgets the source.
func (s *Server) StopReplication(ctx context.Context) error {
	statements := []string{"STOP REPLICA", "RESET REPLICA ALL"}
	if s.flavor.MariaDB() {
		statements = []string{"STOP SLAVE", "RESET SLAVE ALL"}
	}
	if err := run(ctx, s.db, statements...); err != nil {
		return fmt.Errorf("stop replication of %s: %w", s.name, err)
	}
	return nil
}

// AwaitReplica waits until a native replica has applied everything that the source has logged so far.
func (s *Server) AwaitReplica(ctx context.Context, source *Server) error {
	position, wait := "SELECT @@global.gtid_executed", "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 1)"
	if s.flavor.MariaDB() {
		position, wait = "SELECT @@global.gtid_binlog_pos", "SELECT MASTER_GTID_WAIT(?, 1)"
	}
	var at string
	if err := source.db.QueryRowContext(ctx, position).Scan(&at); err != nil {
		return fmt.Errorf("await replica %s of %s: %w", s.name, source.name, err)
	}
	for {
		var late int
		if err := s.db.QueryRowContext(ctx, wait, at).Scan(&late); err != nil {
			return fmt.Errorf("await replica %s of %s: %w", s.name, source.name, err)
		}
		if late == 0 {
			return nil
		}
		if err := s.replicaError(ctx); err != nil {
			return fmt.Errorf("await replica %s of %s: %w", s.name, source.name, err)
		}
	}
}

// replicaError is why the replica has stopped, if it has.
func (s *Server) replicaError(ctx context.Context) error {
	statement := "SHOW REPLICA STATUS"
	if s.flavor.MariaDB() {
		statement = "SHOW SLAVE STATUS"
	}
	rows, err := s.db.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		values, targets := make([][]byte, len(names)), make([]any, len(names))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		for i, name := range names {
			if (name == "Last_IO_Error" || name == "Last_SQL_Error") && len(values[i]) > 0 {
				return errors.New(string(values[i]))
			}
		}
	}
	return rows.Err()
}
