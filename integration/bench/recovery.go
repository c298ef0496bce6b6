package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"replicator/applier"
	"replicator/sandbox"
)

// rescue is how long one way to copy or to compare the database took.
type rescue struct {
	flavor  sandbox.Flavor
	version string
	task    string
	tool    string
	rows    int   // of the large table
	bytes   int64 // of it, as the source estimates them
	laps    []lap
}

// The tasks of recovery.
const (
	copying   = "copy a server"
	comparing = "compare two servers"
)

// recoveryRate is how many transactions of oltp_write_only a second the source carries out all the while.
const recoveryRate = 50

// recovery measures how fast a server is copied, and two are compared, beside the tools that people use for that, while an
// application writes to the source.
func recovery(ctx context.Context, f *field) (all figures, err error) {
	size, err := f.fillLarge(ctx)
	if err != nil {
		return all, err
	}
	stop := f.load(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	note := func(task, tool string, l lap) {
		say("%s %s, %s: %.1f s, %.0f rows/s, at most %d MiB, CPU %.1f s and %.1f s of the servers", f.flavor, task, tool, l.took.Seconds(),
			float64(f.options.many)/l.took.Seconds(), l.usage.peak>>20, l.usage.cpu.Seconds(), l.servers.Seconds())
		for i := range all.rescues {
			if r := &all.rescues[i]; r.task == task && r.tool == tool {
				r.laps = append(r.laps, l)
				return
			}
		}
		all.rescues = append(all.rescues, rescue{f.flavor, f.version, task, tool, f.options.many, size, []lap{l}})
	}
	for range f.options.rounds {
		for _, way := range []func(context.Context, *sandbox.Server, func(task, tool string, l lap)) error{f.cloned, f.loaded, f.piped} {
			target, err := sandbox.Start(ctx, sandbox.Options{Flavor: f.flavor, Name: "copy", Durable: f.options.durable, BufferPool: recoveryPool})
			if err == nil {
				err = errors.Join(accounts(ctx, target, false), way(ctx, target, note), target.Close())
			}
			if err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

const recoveryPool = "1G"

// fillLarge makes sysbench's first table a large one, and returns its size.
func (f *field) fillLarge(ctx context.Context) (size int64, err error) {
	conn, err := f.source.DB().Conn(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	began, table := time.Now(), database+".sbtest1"
	statements := []string{
		"SET SESSION sql_log_bin = 0", // nobody is to read that again
		"TRUNCATE TABLE " + table, "ALTER TABLE " + table + " DROP KEY k_1",
	}
	const portion = 1_000_000
	for first := 0; first < f.options.many; first += portion {
		statements = append(statements, fmt.Sprintf("INSERT INTO %s SELECT id, (id * 7919) %% %d + 1, LEFT(SHA2(id, 512), 119), LEFT(SHA2(-id, 256), 59) "+
			"FROM (SELECT %d + 1 + %s AS id FROM %s) x WHERE id <= %d ORDER BY id", table, f.options.many, first, nest(6), of(6), f.options.many))
	}
	statements = append(statements, "ALTER TABLE "+table+" ADD KEY k_1 (k)", "ANALYZE TABLE "+table, "SET SESSION sql_log_bin = 1")
	for _, q := range statements {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return 0, fmt.Errorf("%s: %w", q, err)
		}
	}
	err = conn.QueryRowContext(ctx, "SELECT data_length + index_length FROM information_schema.tables WHERE table_schema = ? AND table_name = 'sbtest1'", database).Scan(&size)
	say("%s: %d rows, %d MB, written in %.0f s", f.flavor, f.options.many, size/1e6, time.Since(began).Seconds())
	return size, err
}

// load writes to the source until it is told to stop.
func (f *field) load(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		err := f.sysbench(ctx, f.source, "oltp_write_only", "run", "--tables=1", "--table-size="+strconv.Itoa(f.options.many), "--rand-type=uniform",
			"--threads=4", "--time=0", "--events=0", "--rate="+strconv.Itoa(recoveryRate))
		if ctx.Err() != nil {
			err = nil
		}
		ended <- err
	}()
	return func() error {
		cancel()
		return <-ended
	}
}

// cloned copies by `replicator clone`, into a mesh that goes on running; then it compares.
func (f *field) cloned(ctx context.Context, target *sandbox.Server, note func(task, tool string, l lap)) (err error) {
	const user = "cloner"
	for _, s := range []*sandbox.Server{f.source, target} {
		if err := s.CreateAccount(ctx, user, password, "ALL ON *.*"); err != nil {
			return err
		}
	}
	r := &replicator{field: f, servers: []*sandbox.Server{target}, links: everyWay, path: applier.Replay, label: "replicator"}
	if err := r.start(ctx); err != nil {
		return err
	}
	defer r.kill()
	if err := await(ctx, time.Minute, func() (bool, error) {
		var n int
		err := f.source.DB().QueryRowContext(ctx, "SELECT COUNT(*) FROM replicator.identity").Scan(&n)
		return err == nil && n == 1, nil // not yet
	}); err != nil {
		return err
	}
	config := filepath.Join(r.dir, "replicator.yaml")
	clone := exec.CommandContext(ctx, f.options.program, "clone", "--config", config, "--from", sourceName, "--to", targetName(0), "--user", user)
	clone.Env = append(os.Environ(), "REPLICATOR_CLONE_PASSWORD="+password)
	l, err := f.carryOut(ctx, target, []*exec.Cmd{clone})
	if err != nil {
		return err
	}
	note(copying, "replicator clone", l)
	if err := r.awaitLinks(ctx); err != nil {
		return err
	}
	for _, more := range [][]string{nil, {"--quick"}} {
		args := append([]string{"verify", "--config", config, database + ".sbtest1"}, more...)
		l, err := f.carryOut(ctx, target, []*exec.Cmd{exec.CommandContext(ctx, f.options.program, args...)})
		if err != nil {
			return err
		}
		note(comparing, strings.Join(append([]string{"replicator verify"}, more...), " "), l)
	}
	_, err = r.stop(ctx)
	return err
}

// threads is how many of them mydumper and myloader use, as by default.
const threads = "4"

// loaded copies by mydumper and myloader.
func (f *field) loaded(ctx context.Context, target *sandbox.Server, note func(task, tool string, l lap)) error {
	dir, err := sandbox.Folder("bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	dump, err := f.client(ctx, "mydumper", f.source, "--database", database, "--outputdir", filepath.Join(dir, "dump"), "--threads", threads,
		"--rows", "500000", "--trx-consistency-only")
	if err != nil {
		return err
	}
	load, err := f.client(ctx, "myloader", target, "--directory", filepath.Join(dir, "dump"), "--threads", threads)
	if err != nil {
		return err
	}
	l, err := f.carryOut(ctx, target, []*exec.Cmd{dump}, []*exec.Cmd{load})
	if err == nil {
		note(copying, "mydumper, then myloader", l)
	}
	return err
}

// piped copies by a dump that goes straight into the client; on MariaDB the copy then is a native replica that
// pt-table-checksum compares with its source.
func (f *field) piped(ctx context.Context, target *sandbox.Server, note func(task, tool string, l lap)) error {
	args := []string{"--single-transaction", "--databases", database}
	if f.flavor.MariaDB() {
		args = append(args, "--master-data=1", "--gtid")
		// What the copy logged before, as its accounts, has no place behind the position of the dump.
		if _, err := target.DB().ExecContext(ctx, "RESET MASTER"); err != nil {
			return err
		}
	}
	dump, err := f.client(ctx, "mariadb-dump", f.source, args...)
	if err != nil {
		return err
	}
	load, err := f.client(ctx, "mariadb", target, "--init-command=SET SESSION sql_log_bin = 0")
	if err != nil {
		return err
	}
	l, err := f.carryOut(ctx, target, []*exec.Cmd{dump, load})
	if err != nil {
		return err
	}
	note(copying, "mariadb-dump into mariadb", l)
	if !f.flavor.MariaDB() {
		return nil // pt-table-checksum predates MySQL 9
	}
	return f.checksummed(ctx, target, note)
}

// checksummed compares by pt-table-checksum.
func (f *field) checksummed(ctx context.Context, target *sandbox.Server, note func(task, tool string, l lap)) error {
	n := &nativeReplicas{source: f.source, servers: []*sandbox.Server{target}, workers: 4}
	if err := n.start(ctx); err != nil {
		return err
	}
	if err := target.AwaitReplica(ctx, f.source); err != nil {
		return err
	}
	const dsns = "percona.dsns"
	for _, q := range []string{
		"CREATE DATABASE IF NOT EXISTS percona", "CREATE OR REPLACE TABLE " + dsns + " (id INT AUTO_INCREMENT PRIMARY KEY, parent_id INT, dsn VARCHAR(255) NOT NULL)",
		fmt.Sprintf("INSERT INTO %s (dsn) VALUES ('h=127.0.0.1,P=%d,u=root,p=%s')", dsns, target.Port(), target.Password()),
	} {
		if _, err := f.source.DB().ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", strings.SplitN(q, "(", 2)[0], err)
		}
	}
	check, err := f.client(ctx, "pt-table-checksum", f.source, "--databases", database, "--tables", "sbtest1", "--no-check-binlog-format",
		"--no-version-check", "--recursion-method", "dsn=D=percona,t=dsns", "h=127.0.0.1,P="+strconv.Itoa(f.source.Port())+",u=root")
	if err != nil {
		return err
	}
	l, err := f.carryOut(ctx, target, []*exec.Cmd{check})
	if err != nil {
		return err
	}
	note(comparing, "pt-table-checksum", l)
	_, err = n.stop(ctx)
	return errors.Join(err, n.forget(ctx))
}

// client prepares one of other people's tools for a server. It finds the password in a file of its own.
func (f *field) client(ctx context.Context, program string, s *sandbox.Server, args ...string) (*exec.Cmd, error) {
	dir, err := sandbox.Folder("bench")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "my.cnf")
	text := fmt.Sprintf("[client]\nhost=127.0.0.1\nport=%d\nuser=root\npassword=%s\n", s.Port(), s.Password())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return sandbox.Tool(ctx, program, append([]string{"--defaults-file=" + file}, args...)...)
}

// carryOut runs programs one after the other, those of a step at once, and measures all of them together.
func (f *field) carryOut(ctx context.Context, target *sandbox.Server, steps ...[]*exec.Cmd) (l lap, err error) {
	before, err := serverTime(ctx, f.source, target)
	if err != nil {
		return l, err
	}
	began := time.Now()
	for _, programs := range steps {
		peak, cpu, err := pipeline(programs)
		if err != nil {
			return l, err
		}
		l.usage.peak = max(l.usage.peak, peak)
		l.usage.cpu += cpu
	}
	l.took = time.Since(began)
	after, err := serverTime(ctx, f.source, target)
	l.servers = after - before
	return l, err
}

// pipeline runs programs each of which writes into the next, and adds their memory and processor time up.
func pipeline(programs []*exec.Cmd) (peak int64, cpu time.Duration, err error) {
	said := make([]bytes.Buffer, len(programs))
	var ends []*os.File
	for i, c := range programs {
		c.Stdout, c.Stderr = &said[i], &said[i]
		if i == 0 {
			continue
		}
		from, into, err := os.Pipe()
		if err != nil {
			return 0, 0, err
		}
		programs[i-1].Stdout, c.Stdin = into, from
		ends = append(ends, from, into)
	}
	var failed []error
	for _, c := range programs {
		failed = append(failed, c.Start())
	}
	for _, e := range ends { // the programs have them now, and see when the other one ends
		failed = append(failed, e.Close())
	}
	for i, c := range programs {
		if c.Process == nil {
			continue
		}
		if err := c.Wait(); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), err, said[i].String()))
		}
		cpu += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		if used, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
			peak += used.Maxrss << 10 // in KiB: getrusage(2)
		}
	}
	return peak, cpu, errors.Join(failed...)
}
