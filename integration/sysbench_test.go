package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

const (
	sysbenchTables = 2
	sysbenchRows   = 1000
)

func (s *site) sysbenchCommand(ctx context.Context, workload, database, verb string, more ...string) *exec.Cmd {
	args := append([]string{
		workload, "--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-port=" + strconv.Itoa(s.server.Port()),
		"--mysql-user=root", "--mysql-password=" + s.server.Password(), "--mysql-db=" + database,
		"--tables=" + strconv.Itoa(sysbenchTables), "--table-size=" + strconv.Itoa(sysbenchRows),
		"--mysql-ignore-errors=1213,1205,1020",
	}, more...)
	return exec.CommandContext(ctx, "sysbench", append(args, verb)...)
}

// prepareSysbench makes the tables of one site's loads on all servers, with equal contents, and returns their names.
func (c *cluster) prepareSysbench(i int, owner *site) []string {
	c.tb.Helper()
	var tables []string
	for _, prefix := range []string{"sba", "sbb"} {
		database := prefix + strconv.Itoa(i)
		for _, s := range c.sites {
			s.exec(c.tb, "CREATE DATABASE "+database)
			rows := 0
			if s == owner {
				rows = sysbenchRows
			}
			cmd := s.sysbenchCommand(context.Background(), "oltp_write_only", database, "prepare", "--table-size="+strconv.Itoa(rows))
			if out, err := cmd.CombinedOutput(); err != nil {
				c.tb.Fatalf("sysbench prepare on %s: %v\n%s", s.name, err, out)
			}
		}
		for n := range sysbenchTables {
			table := fmt.Sprintf("%s.sbtest%d", database, n+1)
			tables = append(tables, table)
			for _, s := range c.sites {
				if s != owner {
					copyTable(c.tb, owner, s, table)
				}
			}
		}
	}
	return tables
}

// sysbench runs one of its loads on this server until the context ends.
func (s *site) sysbench(ctx context.Context, t testing.TB, i int, workload, prefix string) {
	var out bytes.Buffer
	deadline, _ := ctx.Deadline()
	seconds := int(time.Until(deadline).Seconds())
	cmd := s.sysbenchCommand(context.Background(), workload, prefix+strconv.Itoa(i), "run", "--threads=1", "--rate=100",
		"--time="+strconv.Itoa(max(1, seconds)), "--report-interval=0")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("sysbench %s on %s: %v\n%s", workload, s.name, err, out.String())
	}
}

// copyTable copies the rows of a sysbench table, whose contents differ from one run of prepare to the next.
func copyTable(tb testing.TB, from, to *site, table string) {
	tb.Helper()
	rows, err := from.db.Query("SELECT id, k, c, pad FROM " + table)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	tx, err := to.db.Begin()
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	for rows.Next() {
		var id, k int
		var c, pad string
		if err := rows.Scan(&id, &k, &c, &pad); err != nil {
			tb.Fatal(err)
		}
		if _, err := tx.Exec("INSERT INTO "+table+" (id, k, c, pad) VALUES (?, ?, ?, ?)", id, k, c, pad); err != nil {
			tb.Fatal(err)
		}
	}
	if err := errors.Join(rows.Err(), tx.Commit()); err != nil {
		tb.Fatal(err)
	}
}
