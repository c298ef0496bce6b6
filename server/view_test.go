package server_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/sandbox"
	"replicator/server"
)

// TestViews: a view has everything that a position covers, and what it has is covered by the position that Seen gives
// afterwards. Each writer counts in a row of its own, and the binlog's position tells how far it was at the least.
func TestViews(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		db := open(t, settings("s", s)).DB()
		info, err := server.Probe(t.Context(), db)
		require.NoError(t, err)
		d := server.NewDialect(info)
		exec(t, db, "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, n BIGINT)")
		at, err := d.Position(t.Context(), db)
		require.NoError(t, err)
		began := count(t, at)
		const writers = 4
		for id := range writers {
			exec(t, db, fmt.Sprintf("INSERT INTO app.t VALUES (%d, 0)", id))
		}
		ctx, stop := context.WithCancel(t.Context())
		var writing sync.WaitGroup
		for id := range writers {
			writing.Go(func() {
				for ctx.Err() == nil {
					if _, err := s.DB().Exec("UPDATE app.t SET n = n + 1 WHERE id = ?", id); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		views := 0
		for until := time.Now().Add(3 * time.Second); time.Now().Before(until); views++ {
			if views%50 == 25 {
				exec(t, s.DB(), "FLUSH BINARY LOGS")
			}
			after, err := d.Position(t.Context(), db)
			require.NoError(t, err)
			require.NoError(t, d.View(t.Context(), conn, after))
			rows := sum(t, conn)
			_, err = conn.ExecContext(t.Context(), "COMMIT")
			require.NoError(t, err)
			seen, err := d.Seen(t.Context(), conn)
			require.NoError(t, err)
			if least, most := count(t, after)-began-writers, count(t, seen)-began-writers; rows < least || rows > most {
				t.Fatalf("view %d: %d transactions are seen, between %d and %d must be", views, rows, least, most)
			}
		}
		stop()
		writing.Wait()
		t.Logf("%d views", views)
	})
}

func sum(t *testing.T, conn *sql.Conn) (n int64) {
	t.Helper()
	require.NoError(t, conn.QueryRowContext(t.Context(), "SELECT SUM(n) FROM app.t").Scan(&n))
	return n
}

// count is the number of transactions in a position of one server.
func count(t *testing.T, position change.GTIDSet) (n int64) {
	t.Helper()
	text := position.String()
	if position.Flavor() == change.MariaDB {
		_, err := fmt.Sscanf(text[lastByte(text, '-')+1:], "%d", &n)
		require.NoError(t, err, text)
		return n
	}
	var first int64
	numbers := text[lastByte(text, ':')+1:]
	if k, _ := fmt.Sscanf(numbers, "%d-%d", &first, &n); k == 1 {
		n = first
	}
	return n
}

func lastByte(text string, b byte) int {
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] == b {
			return i
		}
	}
	return -1
}
