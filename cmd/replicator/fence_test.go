package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"replicator/change"
	"replicator/mesh"
	"replicator/sandbox"
	"replicator/server"
)

// A process is frozen while another takes its place, four times. What it wakes up with must not be committed: the counters
// on the target would fall back. One of the two stops, and says why (invariant 6). Both counters rise in one transaction,
// and nobody ever sees them apart (invariant 3).
func TestFrozenProcessCommitsNothing(t *testing.T) {
	east, west := prepared(t), prepared(t)
	writing, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var acknowledged int64
	load.Go(func() { acknowledged = increment(t, writing, east.DB()) })
	seen := make(chan int64, 1)
	load.Go(func() { watch(t, writing, west.DB(), seen) })
	defer func() {
		stop()
		load.Wait()
	}()

	type running struct {
		path    string
		process *exec.Cmd
	}
	begin := func() running {
		path := meshOf(t, east, west)
		process, _ := startProcess(t, path)
		return running{path, process}
	}
	fenced := func(r running) bool {
		_, out, _ := command(t, "status", "--config", r.path)
		return strings.Contains(out, "class:   fenced")
	}
	first := begin()
	for range 4 {
		awaitProgress(t, seen)
		if err := first.process.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		second := begin()
		awaitThat(t, "the successor to commit", func() bool { return appliedBy(t, second.path) > 3 })
		if err := first.process.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		// Which of the two goes on depends on whether the first one's session lived.
		awaitThat(t, "one of the two to find itself fenced", func() bool { return fenced(first) || fenced(second) })
		if !fenced(first) {
			first, second = second, first
		}
		if err := first.process.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = first.process.Wait() // it was killed
		first = second
	}
	awaitProgress(t, seen)
	stop()
	load.Wait()
	awaitThat(t, "the last increment to arrive", func() bool { return counter(t, west.DB()) >= acknowledged })
	if n := counter(t, west.DB()); n != acknowledged || n == 0 {
		t.Errorf("the counters stand at %d after %d acknowledged increments", n, acknowledged)
	}
	if err := first.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.process.Wait(); err != nil {
		t.Errorf("SIGTERM ends the process with %v", err)
	}
}

// prepared is a server with the replicator's account and two counters.
func prepared(t *testing.T) *sandbox.Server {
	t.Helper()
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB118})
	statements := server.Grants(change.MariaDB, server.GrantRequest{User: "replicator", Password: "secret"})
	for _, q := range append(statements, "CREATE DATABASE shop", "CREATE TABLE shop.counter (id INT PRIMARY KEY, n BIGINT)",
		"INSERT INTO shop.counter VALUES (1, 0), (2, 0)") {
		if _, err := s.DB().ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	return s
}

// meshOf writes the configuration of a process of its own.
func meshOf(t *testing.T, east, west *sandbox.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "replicator.yaml")
	text := fmt.Sprintf(`mesh: shop
servers:
  east: {endpoints: ["%s"], user: replicator, password: secret}
  west: {endpoints: ["%s"], user: replicator, password: secret}
links: [{from: east, to: west}]
http: {listen: "%s"}
lease: {ttl: 2s}
state_dir: %s
`, east.Addr(), west.Addr(), sandbox.AddressTest(t), t.TempDir())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func increment(t *testing.T, ctx context.Context, db *sql.DB) (acknowledged int64) {
	t.Helper()
	for ctx.Err() == nil {
		_, err := db.ExecContext(t.Context(), "BEGIN; UPDATE shop.counter SET n = n + 1 WHERE id = 1; "+
			"UPDATE shop.counter SET n = n + 1 WHERE id = 2; COMMIT")
		if err != nil {
			t.Errorf("increment: %v", err)
			return acknowledged
		}
		acknowledged++
	}
	return acknowledged
}

// watch reads the counters of the target, which must never fall.
func watch(t *testing.T, ctx context.Context, db *sql.DB, seen chan int64) {
	t.Helper()
	var highest int64
	for ctx.Err() == nil {
		n := counter(t, db)
		if n < highest {
			t.Errorf("the counters fell from %d to %d", highest, n)
			return
		}
		highest = n
		select {
		case <-seen: // replace what nobody has looked at
		default:
		}
		seen <- n
	}
}

func awaitProgress(t *testing.T, seen chan int64) {
	t.Helper()
	first := <-seen
	awaitThat(t, "the counters to rise", func() bool { return <-seen > first+20 })
}

// appliedBy is how many transactions a process has applied.
func appliedBy(t *testing.T, path string) (n int64) {
	t.Helper()
	_, out, _ := command(t, "status", "--json", "--config", path)
	var s mesh.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil || len(s.Links) == 0 || s.Links[0].Transactions == nil {
		return 0
	}
	return *s.Links[0].Transactions
}

// counter is what both counters stand at.
func counter(t *testing.T, db *sql.DB) (n int64) {
	t.Helper()
	var other int64
	row := db.QueryRowContext(t.Context(), "SELECT MIN(n), MAX(n) FROM shop.counter")
	if err := row.Scan(&n, &other); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("read the counters: %v", err)
	}
	if n != other {
		t.Errorf("the counters stand at %d and %d: part of a transaction is visible", n, other)
	}
	return n
}
