package sandbox

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// CreateAccount makes an account that may log in from anywhere, with grants such as "REPLICATION SLAVE ON *.*". It leaves
// no trace in the binlog.
func (s *Server) CreateAccount(ctx context.Context, user, password string, grants ...string) error {
	name := quote(user) + "@'%'"
	statements := []string{"CREATE USER " + name + " IDENTIFIED BY " + quote(password)}
	for _, g := range grants {
		statements = append(statements, "GRANT "+g+" TO "+name)
	}
	if err := s.unlogged(ctx, statements...); err != nil {
		return fmt.Errorf("create account %s on %s: %w", user, s.name, err)
	}
	return nil
}

// unlogged runs statements as root without writing them to the binlog.
func (s *Server) unlogged(ctx context.Context, statements ...string) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := run(ctx, conn, append([]string{"SET SESSION sql_log_bin = 0"}, statements...)...); err != nil {
		return err
	}
	return run(ctx, conn, "SET SESSION sql_log_bin = 1") // the connection goes back to the pool
}

// executor is a *sql.DB or *sql.Conn.
type executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func run(ctx context.Context, e executor, statements ...string) error {
	for _, text := range statements {
		if _, err := e.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}
