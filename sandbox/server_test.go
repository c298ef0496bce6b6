package sandbox_test

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"replicator/sandbox"
)

// write puts row id into a table of its own, made at first use.
func write(t *testing.T, s *sandbox.Server, id int) {
	t.Helper()
	for _, text := range []string{
		"CREATE DATABASE IF NOT EXISTS test",
		"CREATE TABLE IF NOT EXISTS test.t (id INT PRIMARY KEY)",
		"INSERT INTO test.t VALUES (" + strconv.Itoa(id) + ")",
	} {
		if _, err := s.DB().ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
}

func count(t *testing.T, s *sandbox.Server) (n int) {
	t.Helper()
	must(t, s.DB().QueryRowContext(t.Context(), "SELECT COUNT(*) FROM test.t").Scan(&n))
	return n
}

// eventually tries until there is no error, for at most as long as a server may take to start on a slow machine.
func eventually(t *testing.T, try func(context.Context) error) {
	t.Helper()
	within(t, 2*time.Minute, try)
}

func within(t *testing.T, limit time.Duration, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// eachFlavor runs a test on a server of every flavor.
func eachFlavor(t *testing.T, o sandbox.Options, test func(t *testing.T, s *sandbox.Server)) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			o := o
			o.Flavor = flavor
			test(t, sandbox.StartTest(t, o))
		})
	}
}

func TestServerIsAsReplicationNeedsIt(t *testing.T) {
	eachFlavor(t, sandbox.Options{}, func(t *testing.T, s *sandbox.Server) {
		names := []string{"log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata", "sync_binlog", "port"}
		want := []string{"1", "ROW", "FULL", "FULL", "0", strconv.Itoa(s.Port())}
		if s.Flavor().MariaDB() {
			names, want = append(names, "log_slave_updates", "gtid_strict_mode"), append(want, "1", "1")
		} else {
			names, want = append(names, "log_replica_updates", "gtid_mode", "enforce_gtid_consistency"), append(want, "1", "ON", "ON")
		}
		for i, name := range names {
			var got string
			must(t, s.DB().QueryRowContext(t.Context(), "SELECT @@global."+name).Scan(&got))
			if got != want[i] {
				t.Errorf("%s = %s, want %s", name, got, want[i])
			}
		}
		position := "@@global.gtid_executed"
		if s.Flavor().MariaDB() {
			position = "@@global.gtid_binlog_pos"
		}
		var got string
		must(t, s.DB().QueryRowContext(t.Context(), "SELECT "+position).Scan(&got))
		if got != "" {
			t.Errorf("a new server has transactions in its binlog: %s", got)
		}
	})
}

func TestServersAreDistinct(t *testing.T) {
	a := sandbox.StartTest(t, sandbox.Options{Name: "a", Durable: true, Args: []string{"--max-connections=77"}})
	b := sandbox.StartTest(t, sandbox.Options{Name: "b"})
	identity := func(s *sandbox.Server) (id, uuid, sync, connections string) {
		must(t, s.DB().QueryRowContext(t.Context(), "SELECT @@server_id, @@server_uuid, @@sync_binlog, @@max_connections").
			Scan(&id, &uuid, &sync, &connections))
		return id, uuid, sync, connections
	}
	idA, uuidA, syncA, connA := identity(a)
	idB, uuidB, syncB, connB := identity(b)
	if idA == idB || uuidA == uuidB {
		t.Errorf("two servers with ids %s, %s and uuids %s, %s", idA, idB, uuidA, uuidB)
	}
	if syncA != "1" || syncB != "0" {
		t.Errorf("sync_binlog %s durable, %s not", syncA, syncB)
	}
	if connA != "77" || connB == "77" {
		t.Errorf("max_connections %s, %s: options reach the wrong server", connA, connB)
	}
}

func TestRestartKeepsDataAndPort(t *testing.T) {
	eachFlavor(t, sandbox.Options{Durable: true}, func(t *testing.T, s *sandbox.Server) {
		addr := s.Addr()
		write(t, s, 1)
		must(t, s.Kill())
		if err := s.DB().PingContext(t.Context()); err == nil {
			t.Fatal("a killed server answers")
		}
		must(t, s.Restart(t.Context()))
		write(t, s, 2)
		must(t, s.Stop())
		must(t, s.Restart(t.Context()))
		if n := count(t, s); n != 2 || s.Addr() != addr {
			t.Fatalf("%d rows at %s, want 2 at %s", n, s.Addr(), addr)
		}
	})
}

func TestPauseIsSilent(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB118})
	must(t, s.Pause())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.DB().PingContext(ctx); err == nil {
		t.Fatal("a paused server answers")
	}
	must(t, s.Resume())
	eventually(t, func(ctx context.Context) error { return s.DB().PingContext(ctx) })
}

func TestFailedStartShowsLog(t *testing.T) {
	_, err := sandbox.Start(t.Context(), sandbox.Options{Flavor: sandbox.MariaDB118, Args: []string{"--no-such-option"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Fatalf("start with a wrong option: %v, want the server's own words", err)
	}
}

func TestTakenPortIsGivenUp(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB1011})
	_, err := sandbox.Start(t.Context(), sandbox.Options{Flavor: sandbox.MariaDB1011, Args: []string{"--port=" + strconv.Itoa(s.Port())}})
	if err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Fatalf("start on a taken port: %v", err)
	}
}

func TestAccount(t *testing.T) {
	eachFlavor(t, sandbox.Options{}, func(t *testing.T, s *sandbox.Server) {
		password := `it's a \ secret`
		must(t, s.CreateAccount(t.Context(), "reader", password, "SELECT ON *.*"))
		c := mysql.NewConfig()
		c.User, c.Passwd, c.Net, c.Addr = "reader", password, "tcp", s.Addr()
		db, err := sql.Open("mysql", c.FormatDSN())
		must(t, err)
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), "SELECT COUNT(*) FROM mysql.user"); err != nil {
			t.Errorf("a granted statement: %v", err)
		}
		if _, err := db.ExecContext(t.Context(), "CREATE DATABASE d"); err == nil {
			t.Error("a statement was allowed that was not granted")
		}
		var events int
		rows, err := s.DB().QueryContext(t.Context(), "SHOW BINLOG EVENTS")
		must(t, err)
		defer rows.Close()
		for rows.Next() {
			events++
		}
		must(t, rows.Err())
		if events > 5 { // what a new binlog begins with
			t.Errorf("%d events in the binlog: accounts are written to it", events)
		}
	})
}

func TestNoServerWithoutPassword(t *testing.T) {
	eachFlavor(t, sandbox.Options{}, func(t *testing.T, s *sandbox.Server) {
		c := mysql.NewConfig()
		c.User, c.Net, c.Addr = "root", "tcp", s.Addr()
		db, err := sql.Open("mysql", c.FormatDSN())
		must(t, err)
		defer db.Close()
		if err := db.PingContext(t.Context()); err == nil {
			t.Fatal("root logs in without a password")
		}
	})
}

// The child of TestServersDieWithTheirProcess starts a server, writes its address to a file, and waits to be killed.
func TestMain(m *testing.M) {
	if file := os.Getenv("SANDBOX_TEST_CHILD"); file != "" {
		s, err := sandbox.Start(context.Background(), sandbox.Options{Flavor: sandbox.MariaDB118})
		if err != nil {
			os.Exit(1)
		}
		if err := os.WriteFile(file+".new", []byte(s.Addr()), 0o600); err != nil {
			os.Exit(1)
		}
		if err := os.Rename(file+".new", file); err != nil {
			os.Exit(1)
		}
		select {}
	}
	os.Exit(m.Run())
}

func TestServersDieWithTheirProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "addr")
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), "SANDBOX_TEST_CHILD="+file)
	child.Stderr = os.Stderr
	must(t, child.Start())
	var addr []byte
	eventually(t, func(context.Context) (err error) {
		addr, err = os.ReadFile(file)
		return err
	})
	pid := serverProcess(t, string(addr))
	must(t, child.Process.Kill())
	_ = child.Wait() // it was killed
	eventually(t, func(context.Context) error {
		if err := syscall.Kill(pid, 0); err == nil {
			return os.ErrExist
		}
		return nil
	})
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "replicator-"+strconv.Itoa(os.Getuid()), "run-*"))
	must(t, err)
	sandbox.Sweep()
	for _, dir := range left {
		text, err := os.ReadFile(filepath.Join(dir, "lock"))
		if err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(child.Process.Pid) {
			t.Errorf("%s is left behind", dir)
		}
	}
}

// serverProcess finds the process that was started with the address's port.
func serverProcess(t *testing.T, addr string) int {
	t.Helper()
	option := "--port=" + addr[strings.LastIndex(addr, ":")+1:]
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), option+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			must(t, err)
			return pid
		}
	}
	t.Fatal("no process with ", option)
	return 0
}
