package integration

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"
)

const (
	sysbenchTables = 2
	sysbenchRows   = 1000
)

// runSysbench runs one of sysbench's workloads to its end.
func (s *site) runSysbench(workload, database string, args ...string) error {
	all := append([]string{
		"--tables=" + strconv.Itoa(sysbenchTables), "--table-size=" + strconv.Itoa(sysbenchRows), "--mysql-ignore-errors=1213,1205,1020",
	}, args...)
	cmd, err := s.server.Sysbench(context.Background(), database, workload, all...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sysbench %s on %s: %w\n%s", workload, s.name, err, out)
	}
	return nil
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
			if err := s.runSysbench("oltp_write_only", database, "--table-size="+strconv.Itoa(rows), "prepare"); err != nil {
				c.tb.Fatal(err)
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
	deadline, _ := ctx.Deadline()
	seconds := max(1, int(time.Until(deadline).Seconds()))
	err := s.runSysbench(workload, prefix+strconv.Itoa(i), "--threads=1", "--rate=100", "--time="+strconv.Itoa(seconds),
		"--report-interval=0", "run")
	if err != nil {
		t.Error(err)
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
