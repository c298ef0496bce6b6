package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"replicator/api"
	"replicator/config"
	"replicator/mesh"
	"replicator/sandbox"
)

// nativeReplicas are the servers' own replication: one source, and each target a replica of it.
type nativeReplicas struct {
	source  *sandbox.Server
	servers []*sandbox.Server
	workers int // of each
}

func (n *nativeReplicas) name() string {
	if n.workers == 0 {
		return "native, one thread"
	}
	return fmt.Sprintf("native, %d workers", n.workers)
}

func (n *nativeReplicas) native() bool { return true }

func (n *nativeReplicas) targets() []*sandbox.Server { return n.servers }

func (n *nativeReplicas) start(ctx context.Context) error {
	var statements []string
	maria := n.source.Flavor().MariaDB()
	source := fmt.Sprintf("SOURCE_HOST = '127.0.0.1', SOURCE_PORT = %d, SOURCE_USER = 'native', SOURCE_PASSWORD = '%s'", n.source.Port(), password)
	if maria {
		source = regexp.MustCompile("SOURCE").ReplaceAllString(source, "MASTER")
		statements = append(statements, fmt.Sprintf("SET GLOBAL slave_parallel_threads = %d", n.workers), "SET GLOBAL slave_parallel_mode = 'optimistic'",
			"CHANGE MASTER TO "+source+", MASTER_USE_GTID = slave_pos, MASTER_SSL = 0, MASTER_SSL_VERIFY_SERVER_CERT = 0", "START SLAVE")
	} else {
		statements = append(statements, fmt.Sprintf("SET GLOBAL replica_parallel_workers = %d", n.workers),
			"CHANGE REPLICATION SOURCE TO "+source+", SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1", "START REPLICA")
	}
	return n.each(ctx, statements...)
}

func (n *nativeReplicas) stop(ctx context.Context) (usage, error) {
	return usage{}, n.each(ctx, "STOP "+n.word())
}

func (n *nativeReplicas) forget(ctx context.Context) error {
	return n.each(ctx, "RESET "+n.word()+" ALL")
}

// each carries statements out on all replicas, one after the other on all, so that they all begin and end as one.
func (n *nativeReplicas) each(ctx context.Context, statements ...string) error {
	for _, q := range statements {
		for _, s := range n.servers {
			if _, err := s.DB().ExecContext(ctx, q); err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
		}
	}
	return nil
}

func (n *nativeReplicas) word() string {
	if n.source.Flavor().MariaDB() {
		return "SLAVE"
	}
	return "REPLICA"
}

// replicator is the program under test, run as users run it.
type replicator struct {
	field   *field
	servers []*sandbox.Server
	links   string
	path    string // by which every row must travel, so that the figures are of what they say
	label   string
	dir     string
	client  *api.Client
	child   *sandbox.Child
	began   time.Time
	startup chan time.Duration
	far     *far // the server that is reached over a long link; nil: none

	profiled chan error
	profiles int
}

func (r *replicator) name() string { return r.label }

func (r *replicator) native() bool { return false }

func (r *replicator) targets() []*sandbox.Server { return r.servers }

func (r *replicator) start(ctx context.Context) error {
	if r.dir == "" {
		dir, err := sandbox.Folder("bench")
		if err != nil {
			return err
		}
		r.dir = dir
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	listen := l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	if r.client, err = api.NewClient(config.HTTP{Listen: listen}, ""); err != nil {
		return err
	}
	path := filepath.Join(r.dir, "replicator.yaml")
	if err := os.WriteFile(path, []byte(r.configuration(listen)), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), r.field.options.program, "run", "--config", path)
	cmd.Stdout, cmd.Stderr = log, log
	r.began = time.Now()
	if r.child, err = sandbox.StartChild(cmd); err != nil {
		return err
	}
	r.startup = make(chan time.Duration, 1)
	go r.watchStart(ctx)
	r.profiled = make(chan error, 1)
	go func() { r.profiled <- r.profile(ctx, listen) }()
	return nil
}

const sourceName = "source"

// configuration names the servers source, target1, target2, …
func (r *replicator) configuration(listen string) string {
	var b strings.Builder
	server := func(name string, s *sandbox.Server) {
		endpoint, more := s.Addr(), ""
		if r.far != nil && r.far.server == s {
			endpoint, more = r.far.address, ", compress: "+r.far.compress
		}
		fmt.Fprintf(&b, "  %s: {endpoints: [%q], user: %s, password: %s, tls: {mode: disabled}%s}\n", name, endpoint, account, password, more)
	}
	b.WriteString("mesh: bench\nservers:\n")
	server(sourceName, r.field.source)
	for i, s := range r.servers {
		server(targetName(i), s)
	}
	fmt.Fprintf(&b, "links: %s\ntables: {include: [%q]}\nstate_dir: %q\nhttp: {listen: %q, pprof: %t}\n", r.links, database+".*",
		filepath.Join(r.dir, "state"), listen, r.field.options.profile > 0)
	return b.String()
}

// profile saves where the process spends its time, if that is asked for.
func (r *replicator) profile(ctx context.Context, listen string) error {
	if r.field.options.profile == 0 {
		return nil
	}
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", listen, r.field.options.profile)
	return await(ctx, time.Minute, func() (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return false, err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, nil // it does not listen yet
		}
		defer answer.Body.Close()
		r.profiles++
		file, err := os.Create(fmt.Sprintf("%s-%s-%d.prof", r.field.flavor, strings.ReplaceAll(r.label, " ", "-"), r.profiles))
		if err != nil {
			return false, err
		}
		_, err = io.Copy(file, answer.Body)
		return true, errors.Join(err, file.Close())
	})
}

// watchStart measures until the links to the targets run.
func (r *replicator) watchStart(ctx context.Context) {
	var took time.Duration
	if err := r.await(ctx, func(l mesh.LinkStatus) bool { return l.To == sourceName || applies(l) }); err == nil {
		took = time.Since(r.began)
	}
	r.startup <- took
}

func applies(l mesh.LinkStatus) bool { return l.State == mesh.Running || l.State == mesh.CatchingUp }

func (r *replicator) awaitLinks(ctx context.Context) error { return r.await(ctx, applies) }

func (r *replicator) await(ctx context.Context, fine func(mesh.LinkStatus) bool) error {
	return await(ctx, time.Minute, func() (bool, error) {
		select {
		case <-r.child.Ended():
			return false, fmt.Errorf("the process ended:\n%s", r.log())
		default:
		}
		s, err := r.client.Status(ctx)
		if err != nil || len(s.Links) == 0 {
			return false, nil //nolint:nilerr // it does not listen yet
		}
		for _, l := range s.Links {
			if !fine(l) {
				return false, nil
			}
		}
		return true, nil
	})
}

func (r *replicator) log() string {
	text, err := os.ReadFile(filepath.Join(r.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

const stopGrace = 15 * time.Second

func (r *replicator) stop(ctx context.Context) (u usage, err error) {
	u.startup = <-r.startup
	if err := <-r.profiled; err != nil {
		return u, err
	}
	if u.peak, err = peakMemory(r.child.Pid()); err != nil {
		return u, err
	}
	if u.cpu, err = processorTime(r.child.Pid()); err != nil {
		return u, err
	}
	if err := r.checkPaths(ctx); err != nil {
		return u, err
	}
	if err := r.settle(ctx); err != nil {
		return u, err
	}
	if err := r.child.Stop(stopGrace); err != nil {
		return u, fmt.Errorf("%w\n%s", err, r.log())
	}
	return u, nil
}

// settle lets the process forget the backlog, as one that goes on running does within seconds: every server has it. What
// was not forgotten would be read again at the next start, together with all the backlogs before it. That it is forgotten
// stands in the transaction of the next heartbeat.
func (r *replicator) settle(ctx context.Context) error {
	var owned []string
	err := await(ctx, time.Minute, func() (bool, error) {
		s, err := r.client.Status(ctx)
		if err != nil {
			return false, err
		}
		owned = owned[:0]
		for _, x := range s.Servers {
			if x.Index == nil {
				continue
			}
			if x.Index.Entries+x.Index.Spilled > 0 {
				return false, nil
			}
			owned = append(owned, x.Name)
		}
		return true, nil
	})
	for _, name := range owned {
		if err == nil {
			err = r.awaitHeartbeat(ctx, name)
		}
	}
	return err
}

// awaitHeartbeat waits until the process has written a server's next heartbeat.
func (r *replicator) awaitHeartbeat(ctx context.Context, name string) error {
	s := r.field.source
	for i, target := range r.servers {
		if name == targetName(i) {
			s = target
		}
	}
	var first string
	return await(ctx, time.Minute, func() (bool, error) {
		var at string
		err := s.DB().QueryRowContext(ctx, "SELECT beat_at FROM replicator.heartbeat").Scan(&at)
		if first == "" {
			first = at
		}
		return at != first, err
	})
}

func targetName(i int) string { return "target" + strconv.Itoa(i+1) }

// checkPaths fails where a table's rows took another path than those that are measured.
func (r *replicator) checkPaths(ctx context.Context) error {
	s, err := r.client.Status(ctx)
	if err != nil {
		return err
	}
	for _, t := range s.Tables {
		if t.Path != r.path {
			return fmt.Errorf("table %s went from %s to %s by the path %q, not %q: %s", t.Table, t.From, t.To, t.Path, r.path, t.Reason)
		}
	}
	return nil
}

func (r *replicator) kill() {
	if r.child != nil {
		if err := r.child.Kill(); err != nil {
			say("%v", err)
		}
	}
	if r.dir != "" {
		_ = os.RemoveAll(r.dir) // the sandbox's sweep removes what is left
	}
}

// processorTime is what a process has spent, in its own code and in the system's.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name; see proc_pid_stat(5)
	fields := strings.Fields(rest)
	const user, system, ticks = 11, 12, 100 // of a second: USER_HZ
	if len(fields) <= system {
		return 0, fmt.Errorf("read the processor time of process %d: %q", pid, text)
	}
	var sum int64
	for _, f := range []string{fields[user], fields[system]} {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticks, nil
}

// serverTime is the processor time of servers, added up.
func serverTime(ctx context.Context, servers ...*sandbox.Server) (sum time.Duration, err error) {
	for _, s := range servers {
		spent, err := serverProcessorTime(ctx, s)
		if err != nil {
			return 0, fmt.Errorf("read the processor time of server %s: %w", s.Name(), err)
		}
		sum += spent
	}
	return sum, nil
}

func serverProcessorTime(ctx context.Context, s *sandbox.Server) (time.Duration, error) {
	var path string
	if err := s.DB().QueryRowContext(ctx, "SELECT @@pid_file").Scan(&path); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return processorTime(pid)
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peakMemory is the greatest resident size that a process had, in bytes.
func peakMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := highWater.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("read the memory of process %d: no VmHWM", pid)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10, err
}
