package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"replicator/change"
	"replicator/sandbox"
	"replicator/server"
)

// binlogEnd is where a server's binlog ends.
func (s *site) binlogEnd(tb testing.TB) change.FilePosition {
	tb.Helper()
	info, err := server.Probe(tb.Context(), s.db)
	if err != nil {
		tb.Fatal(err)
	}
	end, err := server.NewDialect(info).BinlogEnd(tb.Context(), s.db)
	if err != nil {
		tb.Fatal(err)
	}
	return end
}

// At rest a mesh of three writes at most 3 KB of binlog a second per server: upkeep, and no marker that answers a marker.
func TestQuietMeshIsQuiet(t *testing.T) {
	t.Parallel()
	const limit = 3 << 10 // bytes a second
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavor, flavor, flavor)
			c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)")
			c.start()
			c.awaitLinks(30 * time.Second)
			for i, s := range c.sites {
				s.exec(t, "INSERT INTO app.t VALUES (?)", i)
			}
			c.awaitEqual(20*time.Second, "app.t")
			before := make([]change.FilePosition, len(c.sites))
			for i, s := range c.sites {
				before[i] = s.binlogEnd(t)
			}
			began := time.Now()
			<-time.After(22 * time.Second) // two progress markers of each link
			seconds := time.Since(began).Seconds()
			for i, s := range c.sites {
				after := s.binlogEnd(t)
				if after.File != before[i].File {
					t.Fatalf("the binlog of %s went on to another file", s.name)
				}
				rate := float64(after.Offset-before[i].Offset) / seconds
				t.Logf("%s writes %.0f bytes of binlog a second", s.name, rate)
				if rate > limit {
					t.Errorf("%s writes %.0f bytes of binlog a second at rest, want at most %d", s.name, rate, limit)
				}
				if rate == 0 {
					t.Errorf("%s writes nothing: its heartbeat is missing", s.name)
				}
			}
		})
	}
}

// peakMemory is the greatest resident size that the program has had, in bytes.
func (c *cluster) peakMemory() int64 {
	c.tb.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		c.tb.Fatal(err)
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				c.tb.Fatal(err)
			}
			return kb << 10
		}
	}
	c.tb.Fatal("the peak memory is not in /proc")
	return 0
}

// A transaction of a million rows passes whole, with bounded memory, through a mesh of three.
func TestTransactionOfAMillionRows(t *testing.T) {
	t.Parallel()
	const limit = 200 << 20
	for name, flavors := range usually(map[string][]sandbox.Flavor{
		"mixed":   {sandbox.MariaDB118, sandbox.MySQL97, sandbox.MariaDB118},
		"mysql":   {sandbox.MySQL97, sandbox.MySQL97, sandbox.MySQL97},
		"mariadb": {sandbox.MariaDB118, sandbox.MariaDB118, sandbox.MariaDB118},
	}, "mixed") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavors...)
			c.everywhere("CREATE DATABASE app",
				"CREATE TABLE app.big (id INT PRIMARY KEY, k INT, pad CHAR(120) CHARACTER SET latin1)",
				"CREATE TABLE app.digit (d INT PRIMARY KEY)",
				"INSERT INTO app.digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)")
			c.start()
			c.awaitLinks(30 * time.Second)
			began := time.Now()
			c.sites[0].exec(t, `INSERT INTO app.big SELECT a.d + 10*b.d + 100*c.d + 1000*d.d + 10000*e.d + 100000*f.d, a.d,
 REPEAT(CHAR(97 + a.d), 120) FROM app.digit a, app.digit b, app.digit c, app.digit d, app.digit e, app.digit f`)
			t.Logf("the source took %s", time.Since(began).Round(time.Millisecond))
			began = time.Now()
			await(t, 4*time.Minute, func() error {
				for _, s := range c.sites[1:] {
					var n int
					if err := s.db.QueryRow("SELECT COUNT(*) FROM app.big").Scan(&n); err != nil {
						return err
					}
					if n != 0 && n != 1_000_000 {
						t.Fatalf("%s shows %d rows of a transaction of a million", s.name, n)
					}
					if n == 0 {
						return fmt.Errorf("%s has nothing yet", s.name)
					}
				}
				return nil
			})
			t.Logf("both targets had it after %s", time.Since(began).Round(time.Millisecond))
			c.awaitEqual(time.Minute, "app.big")
			// Another change behind it, by another server: the index holds a million entries by now.
			c.sites[1].exec(t, "UPDATE app.big SET k = -1 WHERE id = 77")
			c.awaitEqual(time.Minute, "app.big")
			peak := c.peakMemory()
			t.Logf("the program's resident memory peaked at %d MB", peak>>20)
			if peak > limit {
				t.Errorf("the program's resident memory peaked at %d MB, want at most %d", peak>>20, limit>>20)
			}
		})
	}
}
