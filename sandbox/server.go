// Package sandbox starts real MySQL and MariaDB servers in seconds, for the demo and for tests: as child processes of this
// one, or, with REPLICATOR_SANDBOX=containers, as containers. A server program is taken from the machine, from a private
// folder (REPLICATOR_SERVERS, by default .servers at the module's root), or fetched there from Debian without root; where
// none of that is possible, from Docker.
package sandbox

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"replicator/fault"
)

const (
	startTimeout = 90 * time.Second
	stopGrace    = 60 * time.Second
	pollInterval = 25 * time.Millisecond
)

// Options say what to start.
type Options struct {
	Flavor     Flavor   // default MySQL97
	Name       string   // shows in folder names and messages; default the flavor
	Args       []string // further server options; they override the sandbox's own
	Durable    bool     // sync_binlog=1 and innodb_flush_log_at_trx_commit=1, for tests that kill servers
	BufferPool string   // innodb_buffer_pool_size; default "128M"
	Container  bool     // a container whatever REPLICATOR_SANDBOX says
	OwnClock   bool     // SetClock can be used; processes only
}

// Server is a running server. Its methods may be called from several goroutines, but only one of Stop, Kill, Restart and
// Close at a time.
type Server struct {
	name     string
	flavor   Flavor
	host     host
	port     *port
	password string
	db       *sql.DB
	close    func() error
}

// host is where a server runs: a process or a container. start is called again after stop or kill.
type host interface {
	start(ctx context.Context) error
	ended() <-chan struct{} // closed when the server has ended
	stop(ctx context.Context) error
	kill(ctx context.Context) error
	pause(ctx context.Context) error
	resume(ctx context.Context) error
	log(ctx context.Context) string // its end
	remove(ctx context.Context) error
}

// Start starts a server and waits until it answers. The context bounds the start only; the server runs until Close, or
// until this process ends.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Flavor == "" {
		o.Flavor = MySQL97
	}
	if o.Name == "" {
		o.Name = string(o.Flavor)
	}
	if o.BufferPool == "" {
		o.BufferPool = "128M"
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout+fetchTimeout)
	defer cancel()
	s, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start server %s: %w", o.Name, err)
	}
	return s, nil
}

func start(ctx context.Context, o Options) (*Server, error) {
	if (o.Container || os.Getenv("REPLICATOR_SANDBOX") == "containers") && !o.OwnClock {
		return startContainer(ctx, o)
	}
	var errs []error
	for _, way := range candidates(o.Flavor) {
		i, err := way(ctx)
		var template string
		if err == nil {
			template, err = i.template(ctx)
		}
		if err == nil {
			// The program works here: what goes wrong from now on is not for another way to heal.
			return startProcess(ctx, i, o, template)
		}
		errs = append(errs, err)
	}
	if ctx.Err() != nil {
		return nil, errors.Join(errs...)
	}
	s, err := startContainer(ctx, o)
	if err == nil {
		return s, nil
	}
	return nil, fault.Wrap(errors.Join(append(errs, err)...), fault.Precondition,
		"there are three ways: install the server on this machine; use Debian or Ubuntu with a reachable mirror, from which "+
			"packages are fetched without root; or run Docker",
		"no server of flavor %s can be had here", o.Flavor)
}

func startProcess(ctx context.Context, i installation, o Options, template string) (*Server, error) {
	for attempt := 1; ; attempt++ {
		dir, err := serverFolder(o.Name)
		if err != nil {
			return nil, err
		}
		s, err := newProcessServer(ctx, i, o, template, dir)
		// Another process can take the port between its choice and the server's start.
		taken := err != nil && strings.Contains(err.Error(), "Address already in use")
		if !taken || attempt == 3 || ctx.Err() != nil {
			return s, err
		}
	}
}

func newProcessServer(ctx context.Context, i installation, o Options, template, dir string) (*Server, error) {
	p, err := reservePort(ctx)
	if err != nil {
		return nil, err
	}
	h := &processHost{installation: i, dir: dir, port: p.number, args: serverArgs(i.flavor, o, randomID()), init: dir + "/init.sql"}
	s := &Server{name: o.Name, flavor: i.flavor, host: h, port: p, password: rand.Text()}
	s.close = sync.OnceValue(s.remove)
	if o.OwnClock {
		h.faketime, err = faketimeLibrary(ctx)
		if err := errors.Join(err, s.SetClock(0)); err != nil {
			return nil, errors.Join(err, p.release(), os.RemoveAll(dir))
		}
	}
	if err := errors.Join(copyData(template, h.data()), os.WriteFile(h.init, s.firstSQL(), 0o600)); err != nil {
		return nil, errors.Join(err, p.release(), os.RemoveAll(dir))
	}
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	h.init = ""
	return s, nil
}

// firstSQL leaves one root, with a password, before the server takes connections. It stays out of the binlog.
func (s *Server) firstSQL() []byte {
	return fmt.Appendf(nil, "SET sql_log_bin=0;\nDROP USER IF EXISTS 'root'@'127.0.0.1', 'root'@'::1';\n"+
		"ALTER USER 'root'@'localhost' IDENTIFIED BY '%s';\n", s.password)
}

// randomID is a server id below the range that pseudo-replicas use.
func randomID() uint32 {
	n, err := rand.Int(rand.Reader, big.NewInt(1<<30))
	if err != nil {
		panic(err) // crypto/rand documents that its reader never fails
	}
	return uint32(n.Int64()) + 1
}

// begin starts the host and waits until root can log in.
func (s *Server) begin(ctx context.Context) error {
	if err := s.host.start(ctx); err != nil {
		return err
	}
	if s.db == nil {
		db, err := s.open("")
		if err != nil {
			return err
		}
		s.db = db
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := s.db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.host.ended():
			return fmt.Errorf("server %s ended while starting; its log:\n%s", s.name, s.host.log(context.WithoutCancel(ctx)))
		case <-ctx.Done():
			return fmt.Errorf("wait for server %s: %w (last answer: %w); its log:\n%s", s.name, ctx.Err(), err,
				s.host.log(context.WithoutCancel(ctx)))
		}
	}
}

// StartTest starts a server for a test and removes it at the test's end. A failed test's log shows the end of the server's.
func StartTest(tb testing.TB, o Options) *Server {
	tb.Helper()
	s, err := Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("log of server %s:\n%s", s.name, s.host.log(context.Background()))
		}
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Name is the name from the options.
func (s *Server) Name() string { return s.name }

// Flavor is what the server is.
func (s *Server) Flavor() Flavor { return s.flavor }

// Addr is 127.0.0.1 and the server's port; it stays over restarts.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port.number)) }

// Port is the TCP port.
func (s *Server) Port() int { return s.port.number }

// Password is that of root.
func (s *Server) Password() string { return s.password }

// DSN is how github.com/go-sql-driver/mysql reaches a database as root; db may be empty.
func (s *Server) DSN(db string) string { return s.config(db).FormatDSN() }

func (s *Server) config(db string) *mysql.Config {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DBName = "root", s.password, "tcp", s.Addr(), db
	c.Timeout = 5 * time.Second
	c.MultiStatements = true
	return c
}

// DB is a pool of root's connections, without a database, closed by Close. Multi-statement queries are allowed.
func (s *Server) DB() *sql.DB { return s.db }

func (s *Server) open(db string) (*sql.DB, error) {
	c := s.config(db)
	c.Logger = &mysql.NopLogger{} // refused connections are what a start looks like
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.name, err)
	}
	return sql.OpenDB(connector), nil
}

// Stop ends the server in good order; its data stays for Restart.
func (s *Server) Stop() error { return s.act("stop", s.host.stop) }

// Kill ends the server with SIGKILL; its data stays for Restart.
func (s *Server) Kill() error { return s.act("kill", s.host.kill) }

// Pause freezes the server: it keeps its connections and answers nothing.
func (s *Server) Pause() error { return s.act("pause", s.host.pause) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.act("resume", s.host.resume) }

// Restart starts the server again on its port and data, after a Stop or Kill, or stops it first.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.host.stop(ctx); err != nil {
		return fmt.Errorf("restart server %s: %w", s.name, err)
	}
	if err := s.begin(ctx); err != nil {
		return fmt.Errorf("restart server %s: %w", s.name, err)
	}
	return nil
}

// Close ends the server and removes its data. Later calls return what the first did.
func (s *Server) Close() error { return s.close() }

func (s *Server) remove() error {
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	errs = append(errs, s.act("remove", s.host.remove), s.port.release())
	return errors.Join(errs...)
}

// Log is the end of the server's log.
func (s *Server) Log() string { return s.host.log(context.Background()) }

func (s *Server) act(verb string, action func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*stopGrace)
	defer cancel()
	if err := action(ctx); err != nil {
		return fmt.Errorf("%s server %s: %w", verb, s.name, err)
	}
	return nil
}
