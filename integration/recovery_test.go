package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"replicator/sandbox"
)

// numberOf is the number in an environment variable, or the usual one.
func numberOf(tb testing.TB, variable string, usual int) int {
	tb.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		tb.Fatalf("%s=%s is not a number", variable, text)
	}
	return n
}

// Of the large table, sysbench writes to the first nine tenths; in the last one are the rows that were changed behind the
// replicator's back, between others that are written to.
const writtenTenths = 9

// TestRecoveryOfManyRows copies a table of REPLICATOR_ROWS rows to two servers, compares the three and repairs what was
// planted, while sysbench writes to all of them. Servers of different flavors are copied in turn, so that a copy is copied.
func TestRecoveryOfManyRows(t *testing.T) {
	t.Parallel()
	for name, flavors := range usually(map[string][]sandbox.Flavor{
		"mixed":   {sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011},
		"mysql":   {sandbox.MySQL97, sandbox.MySQL97, sandbox.MySQL97},
		"mariadb": {sandbox.MariaDB118, sandbox.MariaDB118, sandbox.MariaDB118},
	}, "mixed") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, verifies := numberOf(t, "REPLICATOR_ROWS", 200_000), numberOf(t, "REPLICATOR_VERIFIES", 1)
			c := newCluster(t, flavors...)
			c.admitCloner()
			everybody, east := c.sites, c.sites[0]
			c.sites = everybody[:1]
			tables := c.createShared()
			c.sites = everybody
			east.fillLarge(t, rows)
			c.start()
			await(t, 30*time.Second, func() error { return east.holds("SELECT COUNT(*) FROM replicator.identity", "1") })
			for _, s := range c.sites[1:] { // they cannot be taken as equal
				await(t, 30*time.Second, func() error { return c.aside(s, "replicator clone --from east --to "+s.name) })
			}
			ctx, stop := context.WithCancel(t.Context())
			var writers sync.WaitGroup
			defer writers.Wait()
			defer stop()
			var increments atomic.Int64
			writers.Go(func() { c.count(ctx, &increments) })
			for i, s := range c.sites {
				if i > 0 {
					d := c.clone(t, c.sites[i-1].name, s.name)
					if n := number(t, d.Copied); n < rows*writtenTenths/10 {
						t.Errorf("%d rows were copied to %s", n, s.name)
					}
				}
				writers.Go(func() { s.sysbenchLarge(ctx, t, rows) })
				writers.Go(func() { s.writeLarge(ctx, t, rows, rand.New(rand.NewPCG(7, uint64(i)))) })
				writers.Go(func() { s.writeShared(ctx, t, rand.New(rand.NewPCG(1, uint64(i)))) })
			}
			c.awaitLinks(60 * time.Second)
			for range verifies {
				if d := c.verify(t); d.Equal == nil || !*d.Equal {
					t.Fatalf("nothing differs for good, and this was found: %s", brief(d))
				}
			}
			want := map[string][]string{"app.sbtest1": c.plantLarge(t, rows, min(1000, rows*3/10_000))}
			c.expectFound(t, c.verify(t, "--limit", "2000", "app.sbtest1"), want, true)
			c.resync(t, "app.sbtest1", "east")
			if d := c.verify(t); d.Equal == nil || !*d.Equal {
				t.Fatalf("after the resync this differs: %s", brief(d))
			}
			stop()
			writers.Wait()
			c.awaitCaughtUp()
			c.awaitEqual(5*time.Minute, append(tables, "app.sbtest1")...)
			c.checkCounter(increments.Load())
			c.all(fmt.Sprintf("SELECT COUNT(*) FROM app.sbtest1 WHERE id <= %d", rows*writtenTenths/10), strconv.Itoa(rows*writtenTenths/10))
			t.Logf("the replicator has taken %d MB at most", c.peakMemory()>>20)
		})
	}
}

// aside says whether a server takes no part, with the remedy.
func (c *cluster) aside(s *site, remedy string) error {
	st, err := c.status()
	if err != nil {
		return err
	}
	for _, x := range st.Servers {
		if x.Name == s.name && x.ID == nil && x.Error != nil && strings.Contains(x.Error.Remedy, remedy) {
			return nil
		}
	}
	return fmt.Errorf("%s is not aside: %+v", s.name, st.Servers)
}

// fillLarge makes the table of sysbench and fills it, without a word in the binlog.
func (s *site) fillLarge(t *testing.T, rows int) {
	t.Helper()
	began := time.Now()
	s.exec(t, "CREATE TABLE app.sbtest1 (id INTEGER NOT NULL AUTO_INCREMENT, k INTEGER DEFAULT '0' NOT NULL, c CHAR(120) DEFAULT '' NOT NULL, "+
		"pad CHAR(60) DEFAULT '' NOT NULL, PRIMARY KEY (id), KEY k_1 (k)) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci")
	s.exec(t, "CREATE DATABASE seed")
	s.exec(t, "CREATE TABLE seed.digit (d INT PRIMARY KEY) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci")
	s.exec(t, "INSERT INTO seed.digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)")
	const portion = 100_000
	for first := 0; first < rows; first += portion {
		s.hidden(t, `INSERT INTO app.sbtest1 SELECT id, id * 7 % 1000003, LEFT(SHA2(id, 512), 119), LEFT(SHA2(-id, 256), 59) FROM
 (SELECT ? + 1 + a.d + 10*b.d + 100*c.d + 1000*d.d + 10000*e.d AS id FROM seed.digit a, seed.digit b, seed.digit c, seed.digit d, seed.digit e) x
 WHERE id <= ? ORDER BY id`, first, rows)
	}
	t.Logf("%d rows were written in %s", rows, time.Since(began).Round(time.Millisecond))
}

// sysbenchLarge writes to most of the large table until the context ends.
func (s *site) sysbenchLarge(ctx context.Context, t *testing.T, rows int) {
	cmd, err := s.server.Sysbench(ctx, "app", "oltp_write_only", "--tables=1", "--table-size="+strconv.Itoa(rows*writtenTenths/10), "--rand-type=uniform",
		"--mysql-ignore-errors=1213,1205,1020", "--threads=2", "--rate=20", "--time="+strconv.Itoa(int(longest.Seconds())), "--report-interval=0", "run")
	if err != nil {
		t.Error(err)
		return
	}
	if out, err := cmd.CombinedOutput(); ctx.Err() == nil {
		t.Errorf("sysbench on %s ended before the others: %v\n%s", s.name, err, out)
	}
}

// writeLarge changes the rows among which others are changed behind the replicator's back: those whose number ends in 7.
func (s *site) writeLarge(ctx context.Context, t *testing.T, rows int, r *rand.Rand) {
	for range paced(ctx) {
		id := rows - r.IntN(rows/10)
		if id%10 == 7 {
			id++
		}
		_, err := s.db.Exec("UPDATE app.sbtest1 SET k = k + 1 WHERE id = ?", id)
		if r.IntN(4) == 0 {
			_, err = s.db.Exec("DELETE FROM app.sbtest1 WHERE id = ?", id)
		}
		if err != nil && !contention(err) {
			t.Errorf("on %s: %v", s.name, err)
			return
		}
	}
}

// plantLarge makes so many differences in the large table, of every kind, on each server as many, and returns their keys as
// verify prints them.
func (c *cluster) plantLarge(t *testing.T, rows, differences int) (keys []string) {
	t.Helper()
	kinds := []string{
		"UPDATE app.sbtest1 SET k = k + 1 WHERE id = ?", "UPDATE app.sbtest1 SET c = 'planted' WHERE id = ?",
		"UPDATE app.sbtest1 SET pad = CONCAT(pad, '.') WHERE id = ?", "DELETE FROM app.sbtest1 WHERE id = ?",
		"INSERT INTO app.sbtest1 VALUES (?, 1, 'extra', '')",
	}
	apart := rows / 10 / 10 / differences // in tens
	for i := range differences {
		kind := kinds[i/len(c.sites)%len(kinds)]
		id := rows*writtenTenths/10 + 7 + 10*i*apart
		if kind == kinds[4] {
			id = rows + 17 + 10*i
		}
		if n := c.sites[i%len(c.sites)].hidden(t, kind, id); n != 1 {
			t.Fatalf("%s, %d: %d rows", kind, id, n)
		}
		keys = append(keys, fmt.Sprintf(`{"id":%d}`, id))
	}
	return keys
}
