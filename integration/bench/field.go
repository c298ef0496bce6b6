package main

import (
	"context"
	"errors"
	"fmt"
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

// prepare starts the servers, fills the source, and copies it to every target with the servers' own replication.
func (f *field) prepare(ctx context.Context) error {
	if err := f.startServers(ctx); err != nil {
		return err
	}
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
	for _, q := range statements {
		if _, err := f.source.DB().ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	if err := f.sysbench(ctx, "oltp_write_only", "prepare"); err != nil {
		return err
	}
	if err := f.mark(ctx); err != nil {
		return err
	}
	for _, c := range f.contenders {
		if err := f.copyTo(ctx, c); err != nil {
			return fmt.Errorf("%s: take a copy: %w", c.name(), err)
		}
	}
	return f.introduce(ctx)
}

func (f *field) startServers(ctx context.Context) error {
	names := []string{"source", "native", "one-way", "two-way"}
	if f.flavor.MariaDB() {
		names = append(names, "native-serial")
	}
	servers := make([]*sandbox.Server, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			servers[i], errs[i] = sandbox.Start(ctx, sandbox.Options{
				Flavor: f.flavor, Name: name, Durable: f.options.durable, BufferPool: "256M",
			})
			if errs[i] == nil {
				errs[i] = accounts(ctx, servers[i])
			}
		})
	}
	wg.Wait()
	f.source = servers[0]
	add := func(s *sandbox.Server, c contender) {
		if s != nil {
			f.contenders = append(f.contenders, c)
		}
	}
	add(servers[1], &nativeReplica{server: servers[1], source: f.source, workers: 4})
	if len(servers) > 4 {
		add(servers[4], &nativeReplica{server: servers[4], source: f.source, workers: 0})
	}
	add(servers[2], &replicator{field: f, server: servers[2], links: "[{from: source, to: target}]", label: "replicator"})
	add(servers[3], &replicator{field: f, server: servers[3], links: "mesh", label: "replicator, both ways"})
	return errors.Join(errs...)
}

// accounts creates those of the native replicas and of the replicator.
func accounts(ctx context.Context, s *sandbox.Server) error {
	if err := s.CreateAccount(ctx, "native", password, "REPLICATION SLAVE ON *.*"); err != nil {
		return err
	}
	flavor := change.MySQL
	if s.Flavor().MariaDB() {
		flavor = change.MariaDB
	}
	// Not in the binlog: the native replicas would carry the statements out a second time.
	statements := append([]string{"SET SESSION sql_log_bin = 0"},
		server.Grants(flavor, server.GrantRequest{User: account, Password: password})...)
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

// copyTo makes a target equal to the source and leaves it without native replication.
func (f *field) copyTo(ctx context.Context, c contender) error {
	n := &nativeReplica{server: c.target(), source: f.source, workers: 4}
	if err := n.start(ctx); err != nil {
		return err
	}
	if err := f.arrived(ctx, c.target()); err != nil {
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
		if err := c.target().Close(); err != nil {
			say("%v", err)
		}
	}
	if f.source != nil {
		if err := f.source.Close(); err != nil {
			say("%v", err)
		}
	}
}
