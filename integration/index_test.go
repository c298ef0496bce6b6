package integration

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"replicator/sandbox"
)

const (
	indexTables  = 10   // each takes a tenth of the entries, in one transaction
	indexDigits  = 1000 // numbers up to their square are made of two of them
	indexSamples = 100  // conflicts of each kind
)

// indexEntries is how many rows the change index must hold: REPLICATOR_ENTRIES, up to ten million, says how many.
func indexEntries(tb testing.TB) int {
	tb.Helper()
	text := os.Getenv("REPLICATOR_ENTRIES")
	if text == "" {
		return 100_000
	}
	const least, most = 10_000, indexTables * indexDigits * indexDigits
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		tb.Fatalf("REPLICATOR_ENTRIES=%s is not a number from %d to %d", text, least, most)
	}
	return n - n%(indexTables*indexSamples)
}

// indexMemory is what the program may take, in bytes: what it takes without an index, and 40 for each entry. With ten
// million that is 600 MB.
func indexMemory(entries int) int64 { return 200e6 + 40*int64(entries) }

// kinds of conflicts about rows of east, by what west makes of their values.
const (
	older = -1 // west was first: east's row stays
	newer = -2 // west was last: its row stays
)

// crowd is a mesh in which nothing becomes stable: the links between east and west are held by applications' locks, so that
// the index of east must keep every row that was changed there. The link from north goes on, and shows that the index has
// come so far: what it applies has waited until all that was committed on east before is in the index.
type crowd struct {
	*cluster
	entries int
	signals int
	locks   []*sql.Tx // that hold the links
}

// TestIndexOfManyRows fills the change index with REPLICATOR_ENTRIES rows: in memory, after a kill, and after another one
// with a limit that makes most of it spill. Afterwards conflicts about rows all over it are decided rightly.
func TestIndexOfManyRows(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			c := newCrowd(t, flavor)
			c.limit(2 * c.entries)
			c.start()
			c.awaitLinks(30 * time.Second)
			c.hold()
			c.sample(c.sites[1], older)
			c.nextSecond()
			c.fill()
			c.nextSecond()
			c.sample(c.sites[1], newer)
			c.measure("fed")

			if whole := c.again(); whole.Spilled != 0 {
				t.Errorf("%d entries are spilled below the limit", whole.Spilled)
			}
			c.measure("built again")

			limit := c.entries / 10
			c.limit(limit)
			if whole := c.again(); whole.Entries-whole.Spilled > limit {
				t.Errorf("%d entries are in memory, with a limit of %d", whole.Entries-whole.Spilled, limit)
			}
			c.measure("built again with a tenth of it as the limit")
			c.decide()
			c.measure("decided and applied")
		})
	}
}

// newCrowd starts the servers and makes the tables.
func newCrowd(t *testing.T, flavor sandbox.Flavor) *crowd {
	t.Helper()
	c := &crowd{cluster: newCluster(t, flavor, flavor, flavor), entries: indexEntries(t)}
	c.everywhere("CREATE DATABASE app", "CREATE TABLE app.gate (id INT PRIMARY KEY)", "CREATE TABLE app.signal (id INT PRIMARY KEY)",
		"CREATE DATABASE seed", "CREATE TABLE seed.digit (d INT PRIMARY KEY)")
	for i := range indexTables {
		c.everywhere(fmt.Sprintf("CREATE TABLE %s (id INT PRIMARY KEY, v INT)", indexTable(i)))
	}
	return c
}

func indexTable(i int) string { return fmt.Sprintf("app.t%d", i) }

// limit sets how many entries of east may be in memory. The three servers share what the configuration gives.
func (c *crowd) limit(entries int) {
	c.extra = fmt.Sprintf(`links: [{from: east, to: west}, {from: west, to: east}, {from: north, to: east}]
tables: {include: ["app.*"]}
conflict: {index_limit: %d}
`, 3*entries)
}

// hold makes both links between east and west wait for an application's lock, in front of all that is written from now on.
func (c *crowd) hold() {
	c.tb.Helper()
	for i, s := range c.sites[:2] {
		tx, err := s.db.Begin()
		if err != nil {
			c.tb.Fatal(err)
		}
		c.locks = append(c.locks, tx)
		if _, err := tx.Exec("INSERT INTO app.gate VALUES (?)", i); err != nil {
			c.tb.Fatal(err)
		}
		c.sites[1-i].exec(c.tb, "INSERT INTO app.gate VALUES (?)", i)
	}
}

// signal waits until a new row of north is on east, and so until the index of east has all that was committed there.
func (c *crowd) signal() {
	c.tb.Helper()
	c.signals++
	c.sites[2].exec(c.tb, "INSERT INTO app.signal VALUES (?)", c.signals)
	await(c.tb, 10*time.Minute, func() error { return c.sites[0].has("app.signal", c.signals) })
}

// fill writes every row on east, with its own id as its value: one large transaction for each table.
func (c *crowd) fill() {
	c.tb.Helper()
	east := c.sites[0]
	values := make([]string, indexDigits)
	for i := range values {
		values[i] = fmt.Sprintf("(%d)", i)
	}
	east.exec(c.tb, "INSERT INTO seed.digit VALUES "+strings.Join(values, ","))
	began := time.Now()
	for i := range indexTables {
		east.exec(c.tb, fmt.Sprintf("INSERT INTO %s SELECT %d * a.d + b.d, %d * a.d + b.d FROM seed.digit a, seed.digit b WHERE %d * a.d + b.d < %d",
			indexTable(i), indexDigits, indexDigits, indexDigits, c.entries/indexTables))
	}
	wrote := time.Since(began)
	c.signal()
	c.tb.Logf("%d rows are written in %s, and in the index %s later", c.entries, wrote.Round(time.Millisecond),
		(time.Since(began) - wrote).Round(time.Millisecond))
}

// nextSecond lets the time of commits move on: MariaDB's binlog has it in seconds.
func (c *crowd) nextSecond() {
	c.tb.Helper()
	began := time.Now().Unix()
	await(c.tb, 5*time.Second, func() error {
		if time.Now().Unix() == began {
			return fmt.Errorf("it is still second %d", began)
		}
		return nil
	})
}

// sample writes rows on a server that conflict with those of east: they are spread over all tables and all of each.
func (c *crowd) sample(s *site, kind int) {
	c.tb.Helper()
	for n := range indexSamples {
		s.exec(c.tb, fmt.Sprintf("INSERT INTO %s VALUES (?, ?)", indexTable(n%indexTables)), c.sampled(n, kind), kind)
	}
}

// sampled is the id of the n-th row of a kind.
func (c *crowd) sampled(n, kind int) int { return n*(c.entries/indexTables/indexSamples) - kind }

// again kills the program, starts it, and waits until the index of east is whole.
func (c *crowd) again() whole {
	c.tb.Helper()
	c.kill()
	logged, began := len(c.log.String()), time.Now()
	c.start()
	c.signal()
	ready, w := time.Since(began), c.rebuilt("east", logged)
	took, err := time.ParseDuration(w.Took)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.tb.Logf("killed and started: %d entries, %d of them spilled, read in %s: %.0f a second; changes are applied after %s",
		w.Entries, w.Spilled, took, float64(w.Entries)/took.Seconds(), ready.Round(time.Millisecond))
	if w.Entries < c.entries {
		c.tb.Errorf("the index has %d entries, want %d", w.Entries, c.entries)
	}
	return w
}

// whole is what the program logs when an index is whole.
type whole struct {
	Server  string `json:"server"`
	Entries int    `json:"entries"`
	Spilled int    `json:"spilled"`
	Took    string `json:"took"`
}

// rebuilt finds what the program has said of the index of a server in its log from there on. A line takes a moment to come
// through the pipe.
func (c *cluster) rebuilt(server string, logged int) (w whole) {
	c.tb.Helper()
	await(c.tb, 10*time.Second, func() error {
		for line := range strings.Lines(c.log.String()[logged:]) {
			_, rest, found := strings.Cut(line, "change index is whole")
			if !found || !strings.HasSuffix(line, "\n") {
				continue
			}
			if err := json.Unmarshal([]byte(strings.TrimSpace(rest)), &w); err != nil {
				c.tb.Fatalf("%v in %s", err, line)
			}
			if w.Server == server {
				return nil
			}
		}
		return fmt.Errorf("the log does not say that the index of %s is whole", server)
	})
	return w
}

// measure looks at the most memory that the program has taken since it started.
func (c *crowd) measure(when string) {
	c.tb.Helper()
	peak, most := c.peakMemory(), indexMemory(c.entries)
	c.tb.Logf("%s: peak memory %d MB", when, peak>>20)
	if peak > most {
		c.tb.Errorf("%s: the program has taken %d MB, want at most %d", when, peak>>20, most>>20)
	}
}

// decide lets the links go on, and looks at what becomes of the conflicts.
func (c *crowd) decide() {
	c.tb.Helper()
	for _, tx := range c.locks {
		if err := tx.Rollback(); err != nil {
			c.tb.Fatal(err)
		}
	}
	c.sites = c.sites[:2]
	began := time.Now()
	for i, s := range c.sites { // behind all that waited: asking for sums meanwhile would take the servers' time
		s.exec(c.tb, "INSERT INTO app.signal VALUES (?)", -1-i)
		await(c.tb, 30*time.Minute, func() error { return c.sites[1-i].has("app.signal", -1-i) })
	}
	c.tb.Logf("everything is applied %s after the links are free", time.Since(began).Round(time.Millisecond))
	tables := make([]string, indexTables)
	for i := range tables {
		tables[i] = indexTable(i)
	}
	c.awaitEqual(5*time.Minute, tables...)
	c.checkSamples()
}

// checkSamples looks at the rows that conflicted, and at the journals.
func (c *crowd) checkSamples() {
	c.tb.Helper()
	for n := range indexSamples {
		for _, kind := range []int{older, newer} {
			var got int
			id := c.sampled(n, kind)
			if err := c.sites[0].db.QueryRow(fmt.Sprintf("SELECT v FROM %s WHERE id = ?", indexTable(n%indexTables)), id).Scan(&got); err != nil {
				c.tb.Fatal(err)
			}
			if want := map[int]int{older: id, newer: newer}[kind]; got != want {
				c.tb.Errorf("row %d of %s is %d, want %d", id, indexTable(n%indexTables), got, want)
			}
		}
	}
	for _, s := range c.sites {
		var won, lost int
		err := s.db.QueryRow("SELECT COALESCE(SUM(winner_origin = i.id), 0), COALESCE(SUM(loser_origin = i.id), 0) FROM replicator.conflict, replicator.identity i").
			Scan(&won, &lost)
		if err != nil {
			c.tb.Fatal(err)
		}
		if won != indexSamples || lost != indexSamples {
			c.tb.Errorf("%s has a journal in which it won %d conflicts and lost %d, want %d each", s.name, won, lost, indexSamples)
		}
	}
}

// What a process has forgotten, because every server has it, the next process does not read again: however short the time
// between.
func TestForgottenIsNotReadAgain(t *testing.T) {
	t.Parallel()
	const rows, few = 10_000, 100
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavor, flavor)
			c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)", "CREATE DATABASE seed", "CREATE TABLE seed.digit (d INT PRIMARY KEY)",
				"INSERT INTO seed.digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)")
			c.start()
			c.awaitLinks(30 * time.Second)
			for i, s := range c.sites {
				s.exec(t, "INSERT INTO app.t SELECT ? + a.d + 10*b.d + 100*c.d + 1000*d.d FROM seed.digit a, seed.digit b, seed.digit c, seed.digit d", i*rows)
			}
			c.awaitEqual(30*time.Second, "app.t")
			await(t, 30*time.Second, func() error {
				s, err := c.status()
				if err != nil {
					return err
				}
				for _, x := range s.Servers {
					if x.Index == nil || x.Index.Entries+x.Index.Spilled > 0 {
						return fmt.Errorf("%s: %+v", x.Name, x.Index)
					}
				}
				return nil
			})
			for _, s := range c.sites { // the upkeep that has forgotten them has ended
				before := s.heartbeat(t)
				await(t, 10*time.Second, func() error {
					if now := s.heartbeat(t); now == before {
						return fmt.Errorf("%s has no heartbeat since %s", s.name, before)
					}
					return nil
				})
			}
			c.kill()
			logged := len(c.log.String())
			c.start()
			c.awaitLinks(30 * time.Second)
			for _, s := range c.sites {
				if w := c.rebuilt(s.name, logged); w.Entries > few {
					t.Errorf("%d entries of %s were read again", w.Entries, s.name)
				}
			}
		})
	}
}

// heartbeat is the time of the server's last one.
func (s *site) heartbeat(t *testing.T) (at string) {
	t.Helper()
	if err := s.db.QueryRow("SELECT beat_at FROM replicator.heartbeat").Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}
