package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	sysbenchTables = 2
	sysbenchRows   = 1000
)

// prepareSysbench makes the tables of one site's loads on all servers, with equal contents, and returns their names. They are
// those that `sysbench prepare` makes; the contents of these would differ from one server to the next.
func (c *cluster) prepareSysbench(i int) []string {
	c.tb.Helper()
	var tables []string
	for _, prefix := range []string{"sba", "sbb"} {
		database := prefix + strconv.Itoa(i)
		c.everywhere("CREATE DATABASE " + database)
		for n := range sysbenchTables {
			table := fmt.Sprintf("%s.sbtest%d", database, n+1)
			rows := make([]string, sysbenchRows)
			for id := range rows {
				rows[id] = fmt.Sprintf("(%d, %d, 'c%[1]d', 'pad%[1]d')", id+1, id*7919%sysbenchRows+1)
			}
			c.everywhere(fmt.Sprintf("CREATE TABLE %s (id INTEGER NOT NULL AUTO_INCREMENT, k INTEGER DEFAULT '0' NOT NULL, "+
				"c CHAR(120) DEFAULT '' NOT NULL, pad CHAR(60) DEFAULT '' NOT NULL, PRIMARY KEY (id), KEY k_%d (k))", table, n+1),
				"INSERT INTO "+table+" VALUES "+strings.Join(rows, ", "))
			tables = append(tables, table)
		}
	}
	return tables
}

// sysbench runs one of its loads on this server until the context ends.
func (s *site) sysbench(ctx context.Context, t testing.TB, i int, workload, prefix string) {
	cmd, err := s.server.Sysbench(ctx, prefix+strconv.Itoa(i), workload, "--tables="+strconv.Itoa(sysbenchTables),
		"--table-size="+strconv.Itoa(sysbenchRows), "--mysql-ignore-errors=1213,1205,1020", "--threads=1", "--rate=20",
		"--time="+strconv.Itoa(int(longest.Seconds())), "--report-interval=0", "run")
	if err != nil {
		t.Error(err)
		return
	}
	out, err := cmd.CombinedOutput()
	if ctx.Err() == nil {
		t.Errorf("sysbench %s on %s ended before the others: %v\n%s", workload, s.name, err, out)
	}
}

// longest is what sysbench is told; the context ends it before.
const longest = 24 * time.Hour
