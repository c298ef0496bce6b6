// Package integration tries whole meshes of real servers, with the program as users run it.
package integration

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"replicator/change"
	"replicator/mesh"
	"replicator/sandbox"
	"replicator/server"
)

// program is the binary under test, built once.
var program struct {
	sync.Once
	path string
	err  error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "replicator-program")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program.path = filepath.Join(dir, "replicator")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// build makes the ordinary static binary, the one that figures come from.
func build(tb testing.TB) string {
	tb.Helper()
	program.Do(func() { program.err = compile(program.path, "CGO_ENABLED=0") })
	if program.err != nil {
		tb.Fatal(program.err)
	}
	return program.path
}

func compile(path, environment string, flags ...string) error {
	args := append([]string{"build", "-buildvcs=false", "-o", path}, flags...) // the checkout may be another user's
	cmd := exec.Command("go", append(args, "replicator/cmd/replicator")...)
	cmd.Env = append(os.Environ(), environment)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return nil
}

// site is one server of a mesh, reached by the program through a proxy.
type site struct {
	name   string
	server *sandbox.Server
	proxy  *sandbox.Proxy
	db     *sql.DB // root, not through the proxy
	direct string  // the program's way to the server in place of the proxy, or nothing

	password string // that the configuration gives the program
	own      string // more of its configuration: ", own: false", or nothing
}

// cluster is a mesh of real servers and the program that replicates between them.
type cluster struct {
	tb     testing.TB
	dir    string
	sites  []*site
	binary string
	extra  string   // appended to the configuration
	env    []string // added to the program's environment
	listen string
	cmd    *exec.Cmd
	exited chan error
	log    *logBuffer
	marks  int // rows of expectOthersGoOn
}

const password = "s3cret-of-the-replicator"

var siteNames = []string{"east", "west", "north", "south"}

// newCluster starts servers of the given flavors with an account for the program, and does not start the program.
func newCluster(tb testing.TB, flavors ...sandbox.Flavor) *cluster {
	tb.Helper()
	options := make([]sandbox.Options, len(flavors))
	for i, f := range flavors {
		options[i].Flavor = f
	}
	return newClusterOf(tb, options...)
}

// newClusterOf starts servers with options of their own.
func newClusterOf(tb testing.TB, options ...sandbox.Options) *cluster {
	tb.Helper()
	c := &cluster{tb: tb, dir: tb.TempDir(), binary: build(tb), log: &logBuffer{}, listen: sandbox.AddressTest(tb)}
	c.sites = make([]*site, len(options))
	var wg sync.WaitGroup
	errs := make([]error, len(options))
	for i, o := range options {
		o.Name = siteNames[i]
		wg.Go(func() {
			s, err := sandbox.Start(context.Background(), o)
			if err != nil {
				errs[i] = err
				return
			}
			c.sites[i] = &site{name: siteNames[i], server: s, db: s.DB(), password: password}
			errs[i] = grant(s)
		})
	}
	wg.Wait()
	tb.Cleanup(func() {
		for _, s := range c.sites {
			if s != nil {
				_ = s.server.Close()
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		tb.Fatal(err)
	}
	for _, s := range c.sites {
		s.proxy = sandbox.ProxyTest(tb, s.server.Addr())
	}
	tb.Cleanup(func() {
		c.kill()
		if tb.Failed() {
			tb.Logf("the program's log:\n%s", c.log.tail(200))
		}
	})
	return c
}

// grant gives the program its least-privilege account.
func grant(s *sandbox.Server) error {
	flavor := change.MySQL
	if s.Flavor().MariaDB() {
		flavor = change.MariaDB
	}
	statements := server.Grants(flavor, server.GrantRequest{User: "replicator", Password: password})
	for _, q := range statements {
		if _, err := s.DB().Exec(q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

// configure writes the configuration of the mesh.
func (c *cluster) configure() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mesh: test\nservers:\n")
	for _, s := range c.sites {
		fmt.Fprintf(&b, "  %s: {endpoints: [%q], user: replicator, password: %q%s}\n", s.name, s.endpoint(), s.password, s.own)
	}
	fmt.Fprintf(&b, "state_dir: %s\nhttp: {listen: %q}\n%s", filepath.Join(c.dir, "state"), c.listen, c.extra)
	path := filepath.Join(c.dir, "replicator.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		c.tb.Fatal(err)
	}
	return path
}

// endpoint is where the program finds the server.
func (s *site) endpoint() string {
	if s.direct != "" {
		return s.direct
	}
	return s.proxy.Addr()
}

// start runs the program.
func (c *cluster) start() {
	c.tb.Helper()
	c.cmd = exec.Command(c.binary, "run", "--config", c.configure())
	c.cmd.Env = append(os.Environ(), c.env...)
	c.cmd.Stderr, c.cmd.Stdout = c.log, c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		c.tb.Fatal(err)
	}
	exited := make(chan error, 1)
	c.exited = exited
	go func(cmd *exec.Cmd) { exited <- cmd.Wait() }(c.cmd)
}

// kill ends the program with SIGKILL.
func (c *cluster) kill() {
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Kill()
	<-c.exited
	c.cmd = nil
}

// stop ends the program as an operator would, and returns how long it took.
func (c *cluster) stop() time.Duration {
	c.tb.Helper()
	began := time.Now()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.tb.Fatal(err)
	}
	select {
	case err := <-c.exited:
		if err != nil {
			c.tb.Errorf("the program ended with %v", err)
		}
	case <-time.After(slowness * 15 * time.Second):
		c.tb.Error("the program does not stop")
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
	c.cmd = nil
	return time.Since(began)
}

// try runs another command of the program with the configuration of the mesh.
func (c *cluster) try(args ...string) (string, error) {
	out, err := exec.Command(c.binary, append(args, "--config", filepath.Join(c.dir, "replicator.yaml"))...).CombinedOutput()
	return string(out), err
}

// status asks the program.
func (c *cluster) status() (mesh.Status, error) {
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get("http://" + c.listen + "/api/v1/status")
	if err != nil {
		return mesh.Status{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return mesh.Status{}, err
	}
	var s mesh.Status
	if err := json.Unmarshal(body, &s); err != nil {
		return mesh.Status{}, fmt.Errorf("%s: %w", body, err)
	}
	return s, nil
}

// slowness is how many times longer than expected anything may take: other tests run at the same time, and the machine may
// be a slow one.
const slowness = 4

// await polls until f returns nil. Patience is what is enough on a free machine.
func await(tb testing.TB, patience time.Duration, f func() error) {
	tb.Helper()
	poll(tb, patience, 50*time.Millisecond, f)
}

// awaitSoon is await for what comes within milliseconds.
func awaitSoon(tb testing.TB, patience time.Duration, f func() error) {
	tb.Helper()
	poll(tb, patience, 5*time.Millisecond, f)
}

func poll(tb testing.TB, patience, every time.Duration, f func() error) {
	tb.Helper()
	patience *= slowness
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("after %s: %v", patience, err)
		}
		<-tick.C
	}
}

// awaitLinks waits until every link is running.
func (c *cluster) awaitLinks(patience time.Duration) {
	c.tb.Helper()
	await(c.tb, patience, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		for _, l := range s.Links {
			if l.State != mesh.Running {
				return fmt.Errorf("link %s-%s is %s: %+v", l.From, l.To, l.State, l.Error)
			}
		}
		return nil
	})
}

// stalled is how long a link that is behind may stand still.
const stalled = 60 * time.Second

// awaitCaughtUp waits until every link is running. How long a backlog takes depends on the machine: it is patient as long
// as the links that are behind advance.
func (c *cluster) awaitCaughtUp() {
	c.tb.Helper()
	type progress struct {
		position string
		since    time.Time
	}
	links := map[[2]string]progress{}
	await(c.tb, 2*time.Minute, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		var behind []error
		for _, l := range s.Links {
			name, p := [2]string{l.From, l.To}, progress{since: time.Now()}
			if l.Position != nil {
				p.position = *l.Position
			}
			before, known := links[name]
			if known && before.position == p.position {
				p.since = before.since
			}
			if l.State == mesh.Running {
				p.since = time.Now()
			} else {
				behind = append(behind, fmt.Errorf("link %s-%s is %s: %+v", l.From, l.To, l.State, l.Error))
				if stand := time.Since(p.since); stand > stalled {
					c.tb.Fatalf("link %s-%s is %s (%+v) and has not advanced for %s: it is at %s",
						l.From, l.To, l.State, l.Error, stand.Round(time.Second), p.position)
				}
			}
			links[name] = p
		}
		return errors.Join(behind...)
	})
}

// awaitLink waits until a link is in a state, and returns it.
func (c *cluster) awaitLink(patience time.Duration, from, to string, want mesh.LinkState) mesh.LinkStatus {
	c.tb.Helper()
	var found mesh.LinkStatus
	await(c.tb, patience, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		for _, l := range s.Links {
			if l.From == from && l.To == to {
				found = l
			}
		}
		if found.State != want {
			return fmt.Errorf("link %s-%s is %q (%+v), want %q", from, to, found.State, found.Error, want)
		}
		return nil
	})
	return found
}

// exec runs a statement on a server as an application would.
func (s *site) exec(tb testing.TB, query string, args ...any) {
	tb.Helper()
	if _, err := s.db.Exec(query, args...); err != nil {
		tb.Fatalf("on %s: %s: %v", s.name, query, err)
	}
}

// everywhere runs statements on all servers.
func (c *cluster) everywhere(queries ...string) {
	c.tb.Helper()
	for _, s := range c.sites {
		for _, q := range queries {
			s.exec(c.tb, q)
		}
	}
}

// digest is the number of rows of a table and a checksum over their text that does not depend on order or flavor.
func (s *site) digest(table string) (string, error) {
	var database, name string
	database, name, _ = strings.Cut(table, ".")
	rows, err := s.db.Query("SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
		database, name)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var columns []string
	for rows.Next() {
		var column string
		if err := rows.Scan(&column); err != nil {
			return "", err
		}
		columns = append(columns, fmt.Sprintf("COALESCE(HEX(`%s`),'~')", column))
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	if len(columns) == 0 {
		return "", fmt.Errorf("%s has no table %s", s.name, table)
	}
	var count, sum string
	err = s.db.QueryRow(fmt.Sprintf("SELECT COUNT(*), COALESCE(BIT_XOR(CAST(CONV(LEFT(SHA2(CONCAT_WS('#', %s), 256), 15), 16, 10) AS UNSIGNED)), 0) FROM `%s`.`%s`",
		strings.Join(columns, ","), database, name)).Scan(&count, &sum)
	return count + " rows, checksum " + sum, err
}

// awaitEqual waits until the tables are equal on all servers.
func (c *cluster) awaitEqual(patience time.Duration, tables ...string) {
	c.tb.Helper()
	await(c.tb, patience, func() error {
		for _, t := range tables {
			first, err := c.sites[0].digest(t)
			if err != nil {
				return err
			}
			for _, s := range c.sites[1:] {
				other, err := s.digest(t)
				if err != nil {
					return err
				}
				if other != first {
					return fmt.Errorf("table %s: %s has %s, %s has %s", t, c.sites[0].name, first, s.name, other)
				}
			}
		}
		return nil
	})
}

// logBuffer keeps the program's output.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// says returns an error while the text is not there.
func (l *logBuffer) says(text string) error {
	if all := l.String(); !strings.Contains(all, text) {
		return fmt.Errorf("%q is not said: %s", text, all)
	}
	return nil
}

func (l *logBuffer) tail(lines int) string {
	all := strings.Split(l.String(), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
