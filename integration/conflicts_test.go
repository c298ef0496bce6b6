package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"replicator/fault"
	"replicator/mesh"
	"replicator/sandbox"
)

const (
	conflictTime  = 8 * time.Second // how long applications write, a seed
	conflictSeeds = 5               // seeds of each mesh; make soak runs 125
)

// conflictSeedsOf returns the seeds of one mesh: the one of REPLICATOR_SEED, which replays what an earlier run printed, or
// as many new ones as REPLICATOR_SEEDS says.
func conflictSeedsOf(tb testing.TB) []uint64 {
	tb.Helper()
	number := func(name string) (uint64, bool) {
		text, set := os.LookupEnv(name)
		if !set || text == "" {
			return 0, false
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		return n, true
	}
	if seed, ok := number("REPLICATOR_SEED"); ok {
		return []uint64{seed}
	}
	count, ok := number("REPLICATOR_SEEDS")
	if !ok {
		count = conflictSeeds
	}
	seeds := make([]uint64, count)
	for i := range seeds {
		seeds[i] = rand.Uint64N(1_000_000)
	}
	return seeds
}

// Applications of three servers write the same rows, with unique values, key changes, parents and children, while links are
// cut singly, processes are killed and the clock of one server jumps by up to ten minutes. Afterwards all servers are
// equal, no acknowledged write is lost without a journal entry, and writes by turns make none.
func TestRandomConflicts(t *testing.T) {
	t.Parallel()
	for _, m := range meshes {
		seeds := conflictSeedsOf(t)
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			options := make([]sandbox.Options, len(m.flavors))
			for i, f := range m.flavors {
				options[i].Flavor = f
			}
			options[len(options)-1].OwnClock = true
			g := newStage(t, conflictConfiguration, options...)
			g.run(t)
			for i, seed := range seeds {
				sound := t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
					t.Logf("replay with REPLICATOR_SEED=%d -run 'TestRandomConflicts/%s'", seed, m.name)
					began := time.Now()
					defer func() { g.showLogs(t, began) }()
					newWorkload(t, g, fmt.Sprintf("w%d", i), seed).run(t)
				})
				if !sound {
					break // the servers are of no use for another seed
				}
			}
		})
	}
}

const conflictConfiguration = `conflict: {max_clock_skew: 15m}
tables:
  rules:
    - match: "*.stock"
      conflict: {add: [quantity]}
    - match: "*.shelf"
      conflict: {add: [quantity]}
    - match: "*.card"
      conflict: {policy: merge-columns}
`

// workload is one seed on a running mesh.
type workload struct {
	*stage
	database string
	seed     uint64
	began    time.Time
	history  *history
}

func newWorkload(t *testing.T, g *stage, database string, seed uint64) *workload {
	t.Helper()
	w := &workload{stage: g, database: database, seed: seed, history: newHistory()}
	g.onAll(t, "CREATE DATABASE "+database+" DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci",
		"CREATE TABLE "+database+".thing (id INT PRIMARY KEY, u VARCHAR(20) UNIQUE, n INT, tag VARCHAR(40) NOT NULL)",
		"CREATE TABLE "+database+".parent (id INT PRIMARY KEY, tag VARCHAR(40) NOT NULL)",
		w.child("cascading", "CASCADE"), w.child("nulling", "SET NULL"), w.child("strict", "RESTRICT"),
		"CREATE TABLE "+database+".card (id INT PRIMARY KEY, a VARCHAR(40), b VARCHAR(40), c VARCHAR(40))",
		"CREATE TABLE "+database+".stock (id INT PRIMARY KEY, quantity BIGINT NOT NULL)",
		"CREATE TABLE "+database+".shelf (id INT PRIMARY KEY, pid INT, quantity BIGINT NOT NULL)")
	g.sites[0].exec(t, "INSERT INTO "+database+".stock VALUES (1, 0), (2, 0)")
	g.await(t)
	w.began = time.Now() // a link that starts while tables are made may find one here and not yet there
	return w
}

// onAll runs statements on all servers for a test that shares the mesh with others.
func (g *stage) onAll(t *testing.T, queries ...string) {
	t.Helper()
	for _, s := range g.sites {
		for _, q := range queries {
			s.exec(t, q)
		}
	}
}

func (w *workload) child(table, action string) string {
	return fmt.Sprintf("CREATE TABLE %[1]s.%[2]s (id INT PRIMARY KEY, pid INT, tag VARCHAR(40) NOT NULL, "+
		"FOREIGN KEY (pid) REFERENCES %[1]s.parent (id) ON DELETE %[3]s)", w.database, table, action)
}

func (w *workload) tables() []string {
	var all []string
	for _, t := range workloadTables {
		all = append(all, w.database+"."+t)
	}
	return append(all, w.database+".stock", w.database+".shelf", w.database+".card")
}

// workloadTables are those whose rows carry the tags of their writers.
var workloadTables = []string{"thing", "parent", "cascading", "nulling", "strict"}

func (w *workload) run(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), conflictTime)
	defer cancel()
	var load sync.WaitGroup
	for i, s := range w.sites {
		for k := range 2 {
			name := fmt.Sprintf("%s.%d", s.name, k)
			load.Go(func() {
				newWriter(w, s, name, rand.New(rand.NewPCG(w.seed, uint64(10*i+k)))).work(ctx, t)
			})
		}
	}
	w.disturb(ctx, t, rand.New(rand.NewPCG(w.seed, 99)))
	load.Wait()
	if t.Failed() {
		return
	}
	defer func() {
		if t.Failed() {
			w.showDifferences(t)
		}
	}()
	w.settle(t)
	entries := w.check(t)
	if t.Failed() {
		return
	}
	w.turns(t, entries)
}

// settlePatience is longer than a MariaDB server stood still when its clock went back by five minutes: some of its waits end
// at a time of that clock.
const settlePatience = 4 * time.Minute

// settle ends all faults and waits until everything is decided and equal.
func (w *workload) settle(t *testing.T) {
	t.Helper()
	w.heal(t, "")
	began := time.Now()
	w.each(t, func(p *cluster) { p.awaitLinks(settlePatience) })
	executed := w.executed(t)
	w.await(t)
	w.checkPositions(t, executed)
	check := *w.cluster
	check.tb = t
	check.awaitEqual(30*time.Second, w.tables()...)
	w.checkLinks(t)
	t.Logf("%d writes and %d deletes; settled after %s", len(w.history.writes), len(w.history.removals), time.Since(began).Round(time.Millisecond))
}

// executed are the transactions that each MySQL server has committed.
func (w *workload) executed(t *testing.T) map[string]string {
	t.Helper()
	sets := map[string]string{}
	for _, s := range w.sites {
		if s.server.Flavor().MariaDB() {
			continue // its positions do not tell single transactions
		}
		var set string
		if err := s.db.QueryRow("SELECT @@GLOBAL.gtid_executed").Scan(&set); err != nil {
			t.Fatal(err)
		}
		sets[s.name] = set
	}
	return sets
}

// checkPositions demands that no link has passed over a transaction that a MySQL server had committed.
func (w *workload) checkPositions(t *testing.T, executed map[string]string) {
	t.Helper()
	for _, from := range w.sites {
		for _, to := range w.sites {
			if executed[from.name] == "" || to == from {
				continue
			}
			var id []byte
			var position, missing string
			err := from.db.QueryRow("SELECT id FROM replicator.identity").Scan(&id)
			if err == nil {
				err = to.db.QueryRow("SELECT position FROM replicator.marker WHERE source = ? ORDER BY seq DESC LIMIT 1", id).Scan(&position)
			}
			if err == nil {
				err = from.db.QueryRow("SELECT GTID_SUBTRACT(?, ?)", executed[from.name], position).Scan(&missing)
			}
			if err != nil || missing != "" {
				t.Errorf("the link from %s to %s has passed over %q (%v)", from.name, to.name, missing, err)
			}
		}
	}
}

// showDifferences shows the rows that are not on all servers, and what the journals and tombstones say of their tables' keys.
func (w *workload) showDifferences(t *testing.T) {
	t.Helper()
	w.keepServers(t)
	for _, table := range w.tables() {
		on := map[string][]string{}
		for _, s := range w.sites {
			rows, err := readRows(s.db.Query("SELECT * FROM " + table))
			if err != nil {
				t.Log(err)
			}
			for _, row := range rows {
				on[fmt.Sprint(row)] = append(on[fmt.Sprint(row)], s.name)
			}
		}
		for row, sites := range on {
			if len(sites) == len(w.sites) {
				continue
			}
			t.Logf("%s: only on %v: %s", table, sites, row)
			var key string
			if _, rest, ok := strings.Cut(row, "id:"); ok {
				key, _, _ = strings.Cut(rest, " ")
			}
			for _, s := range w.sites {
				entries, err := readRows(s.db.Query("SELECT seq, decided_at, kind, LOWER(HEX(winner_origin)) won, winner_time, winner_row, LOWER(HEX(loser_origin)) lost, "+
					"loser_time, loser_row FROM replicator.conflict WHERE CONCAT(database_name, '.', table_name) = ? AND key_columns LIKE ? ORDER BY seq DESC LIMIT 8",
					table, "%"+strings.Trim(key, "]")+"%"))
				t.Logf("the journal of %s: %v %v", s.name, entries, err)
			}
		}
	}
}

// keepServers copies the servers' folders, binlogs included, to the folder that REPLICATOR_KEEP names.
func (w *workload) keepServers(t *testing.T) {
	t.Helper()
	keep := os.Getenv("REPLICATOR_KEEP")
	if keep == "" {
		return
	}
	for _, s := range w.sites {
		var folder string
		err := s.db.QueryRow("SELECT @@datadir").Scan(&folder)
		into := filepath.Join(keep, fmt.Sprint(w.seed))
		if err == nil {
			err = os.MkdirAll(into, 0o700)
		}
		if err == nil {
			err = exec.Command("cp", "-a", folder, filepath.Join(into, s.name)).Run() // sockets included
		}
		t.Logf("the folder of %s is kept: %v", s.name, err)
	}
}

// checkLinks demands that no link has needed a person; one that was asked for the time while its clock was set may have.
func (w *workload) checkLinks(t *testing.T) {
	t.Helper()
	began := w.began.UTC().Format("2006-01-02T15:04:05.000000")
	for _, s := range w.sites {
		for line := range strings.Lines(w.processes[s.name].log.String()) {
			if strings.Contains(line, "\tERROR\tlink\t") && line >= began && !strings.Contains(line, `"class": "clock"`) {
				t.Errorf("a link of the process of %s stopped: %s", s.name, line)
			}
		}
	}
}

// disturb cuts links and servers off, kills processes and sets a clock until the context ends; all by chance.
func (w *workload) disturb(ctx context.Context, t *testing.T, r *rand.Rand) {
	t.Helper()
	tick := time.NewTicker(350 * time.Millisecond)
	defer tick.Stop()
	pick := func() *site { return w.sites[r.IntN(len(w.sites))] }
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch r.IntN(10) {
		case 0:
			w.links(t, "", func(p *site) error { return p.proxy.Cut() })
		case 1, 2:
			w.links(t, pick().name, func(p *site) error { return p.proxy.Cut() })
		case 3, 4:
			from, to := pick(), pick()
			if from != to {
				w.links(t, from.name+"->"+to.name, func(p *site) error { return p.proxy.Cut() })
			}
		case 5:
			p := w.processes[pick().name]
			p.kill()
			p.start()
		case 6:
			ahead := []time.Duration{0, 10 * time.Minute, -10 * time.Minute, 3 * time.Second, -time.Second}[r.IntN(5)]
			if err := w.sites[len(w.sites)-1].server.SetClock(ahead); err != nil {
				t.Error(err)
			}
		default:
			w.heal(t, "")
		}
	}
}

// turns lets one site at a time write, and the others see it before the next: that makes no entry.
func (w *workload) turns(t *testing.T, before int) {
	t.Helper()
	for i := range 2 * len(w.sites) {
		s := w.sites[i%len(w.sites)]
		writer := newWriter(w, s, fmt.Sprintf("turn.%d", i), rand.New(rand.NewPCG(w.seed, uint64(1000+i))))
		for range 12 {
			if err := writer.act(t.Context()); err != nil && !refused(err) {
				t.Fatalf("on %s: %v", s.name, err)
			}
		}
		w.await(t)
	}
	check := *w.cluster
	check.tb = t
	check.awaitEqual(30*time.Second, w.tables()...)
	if after := w.check(t); after != before && !t.Failed() {
		t.Errorf("writes by turns made %d journal entries", after-before)
	}
}

// showLogs shows what the processes wrote during a failed test.
func (g *stage) showLogs(t *testing.T, from time.Time) {
	t.Helper()
	if !t.Failed() {
		return
	}
	for _, s := range g.sites {
		out, _ := g.processes[s.name].try("status")
		t.Logf("the process of %s says:\n%s\nits log:\n%s", s.name, out, since(g.processes[s.name].log.String(), from))
	}
}

// A server whose clock runs ahead by more than max_clock_skew is held off: what it writes is not taken, and nothing is written
// to it, for nobody could say which of its changes are newer. The others go on.
func TestClockAheadStopsLinks(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newClusterOf(t, sandbox.Options{Flavor: flavor}, sandbox.Options{Flavor: flavor, OwnClock: true}, sandbox.Options{Flavor: flavor})
			c.extra = "conflict: {max_clock_skew: 10s}\n"
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			if err := c.sites[1].server.SetClock(20 * time.Second); err != nil {
				t.Fatal(err)
			}
			await(t, 10*time.Second, func() error {
				var now time.Time
				var text string
				if err := c.sites[1].db.QueryRow("SELECT UTC_TIMESTAMP()").Scan(&text); err != nil {
					return err
				}
				now, err := time.Parse(time.DateTime, text)
				if err == nil && time.Until(now) < 15*time.Second {
					err = fmt.Errorf("the clock of west is at %s", now)
				}
				return err
			})
			c.sites[1].exec(t, "INSERT INTO app.t VALUES (1, 'of a time to come')")
			for _, to := range []string{"east", "north"} {
				stopped := c.awaitLink(20*time.Second, "west", to, mesh.Stopped)
				if stopped.Error == nil || stopped.Error.Class != string(fault.ClockSkew) {
					t.Errorf("the link to %s stopped with %+v", to, stopped.Error)
				}
			}
			c.sites[0].exec(t, "INSERT INTO app.t VALUES (2, 'of east')")
			await(t, 20*time.Second, func() error { return c.sites[2].has("app.t", 2) })
			if err := c.sites[0].hasNot("app.t", 1); err != nil {
				t.Error(err)
			}
			// The clock is set right: when the time of that write has come, the links can go on.
			if err := c.sites[1].server.SetClock(0); err != nil {
				t.Fatal(err)
			}
			await(t, 60*time.Second, func() error {
				for _, l := range [][2]string{{"west", "east"}, {"west", "north"}, {"east", "west"}, {"north", "west"}} {
					if out, err := c.try("link", "resume", l[0], l[1]); err != nil {
						return fmt.Errorf("%w: %s", err, out)
					}
				}
				return errors.Join(c.sites[0].has("app.t", 1), c.sites[1].has("app.t", 2), c.sites[2].has("app.t", 1))
			})
			c.awaitLinks(30 * time.Second)
			c.awaitEqual(20*time.Second, "app.t")
		})
	}
}
