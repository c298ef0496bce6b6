package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"replicator/change"
	"replicator/sandbox"
	"replicator/server"
)

const (
	account  = "replicator"
	password = "only-on-loopback-4711"
)

// entry is a contender whose servers do not run yet.
type entry struct {
	name    string // of its servers
	targets int
	bySQL   bool // the replicator's account there may not run BINLOG
	enter   func(targets []*sandbox.Server) contender
}

// prepare starts the servers, fills the source, and copies it to every target with the servers' own replication.
func (f *field) prepare(ctx context.Context, entries []entry) error {
	if err := f.startServers(ctx, entries); err != nil {
		return err
	}
	return f.fill(ctx)
}

// fill gives the source its rows and every target a copy of them.
func (f *field) fill(ctx context.Context) error {
	if err := f.source.DB().QueryRowContext(ctx, "SELECT VERSION()").Scan(&f.version); err != nil {
		return err
	}
	statements := []string{
		"CREATE DATABASE " + database,
		"CREATE TABLE " + database + ".sentinel (id INT NOT NULL PRIMARY KEY)",
		"CREATE TABLE " + database + ".big (id INT NOT NULL PRIMARY KEY, n INT NOT NULL, v CHAR(150) CHARACTER SET latin1 NOT NULL)",
		"CREATE TABLE " + steadyTable + " (id INT NOT NULL PRIMARY KEY)",
		"CREATE TABLE " + database + ".digit (n INT NOT NULL PRIMARY KEY)",
		"INSERT INTO " + database + ".digit VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)",
	}
	for _, q := range append(statements, appendTables...) {
		if _, err := f.source.DB().ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	if err := f.sysbench(ctx, f.source, "oltp_write_only", "prepare"); err != nil {
		return err
	}
	last, err := f.mark(ctx, f.source)
	if err != nil {
		return err
	}
	for _, c := range f.contenders {
		if err := f.copyTo(ctx, c, last); err != nil {
			return fmt.Errorf("%s: take a copy: %w", c.name(), err)
		}
	}
	return f.introduce(ctx)
}

func (f *field) startServers(ctx context.Context, entries []entry) error {
	of := []entry{{name: "source"}} // of each server
	for _, e := range entries {
		of = append(of, slices.Repeat([]entry{e}, e.targets)...)
	}
	servers := make([]*sandbox.Server, len(of))
	errs := make([]error, len(of))
	var wg sync.WaitGroup
	for i, e := range of {
		wg.Go(func() {
			servers[i], errs[i] = sandbox.Start(ctx, sandbox.Options{
				Flavor: f.flavor, Name: e.name, Durable: f.options.durable, BufferPool: "256M",
			})
			if errs[i] == nil {
				errs[i] = accounts(ctx, servers[i], e.bySQL)
			}
		})
	}
	wg.Wait()
	f.source, servers = servers[0], servers[1:]
	missing := func(s *sandbox.Server) bool { return s == nil } // which is an error, after which the others are closed
	for _, e := range entries {
		f.contenders = append(f.contenders, e.enter(slices.DeleteFunc(servers[:e.targets:e.targets], missing)))
		servers = servers[e.targets:]
	}
	return errors.Join(errs...)
}

// accounts creates those of the native replicas and of the replicator, the latter without what replaying needs if rows are
// to be applied by SQL.
func accounts(ctx context.Context, s *sandbox.Server, bySQL bool) error {
	if err := s.CreateAccount(ctx, "native", password, "REPLICATION SLAVE ON *.*"); err != nil {
		return err
	}
	flavor, replay := change.MySQL, "REPLICATION_APPLIER"
	if s.Flavor().MariaDB() {
		flavor, replay = change.MariaDB, "BINLOG REPLAY"
	}
	// Not in the binlog: the native replicas would carry the statements out a second time.
	statements := append([]string{"SET SESSION sql_log_bin = 0"},
		server.Grants(flavor, server.GrantRequest{User: account, Password: password})...)
	if bySQL {
		statements = append(statements, fmt.Sprintf("REVOKE %s ON *.* FROM '%s'@'%%'", replay, account))
	}
	conn, err := s.DB().Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, q := range append(statements, "SET SESSION sql_log_bin = 1") {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", strings.SplitN(q, "\n", 2)[0], err)
		}
	}
	return nil
}

// copyTo makes a contender's targets equal to the source, up to the mark, and leaves those of a replicator without native
// replication.
func (f *field) copyTo(ctx context.Context, c contender, mark int) error {
	n := &nativeReplicas{source: f.source, servers: c.targets(), workers: 4}
	if err := n.start(ctx); err != nil {
		return err
	}
	if err := f.arrived(ctx, mark, c.targets()...); err != nil {
		return err
	}
	if _, err := n.stop(ctx); err != nil {
		return err
	}
	if c.native() {
		return nil
	}
	return n.forget(ctx)
}

// introduce lets every replicator meet its servers once, so that they begin where the copies end.
func (f *field) introduce(ctx context.Context) error {
	for _, c := range f.contenders {
		if c.native() {
			continue
		}
		if err := c.start(ctx); err != nil {
			return err
		}
		if err := c.(*replicator).awaitLinks(ctx); err != nil {
			return err
		}
		if _, err := c.stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *field) close() {
	for _, c := range f.contenders {
		if r, ok := c.(*replicator); ok {
			r.kill()
		}
		for _, s := range c.targets() {
			if err := s.Close(); err != nil {
				say("%v", err)
			}
		}
	}
	if f.source != nil {
		if err := f.source.Close(); err != nil {
			say("%v", err)
		}
	}
}
