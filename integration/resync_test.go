package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"replicator/api"
	"replicator/image/imagetest"
	"replicator/sandbox"
)

// TestResync makes tables equal to one server's while all servers are written to: what was planted behind the replicator's
// back is gone afterwards, what was overwritten is kept, and no change that was made meanwhile is lost.
func TestResync(t *testing.T) {
	t.Parallel()
	for name, flavors := range usually(map[string][]sandbox.Flavor{
		"mysql": {sandbox.MySQL97, sandbox.MySQL97, sandbox.MySQL97},
		"mixed": {sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011},
	}, "mixed") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavors...)
			types := imagetest.TypesFor("app.types", flavors...).Without("z_text", "z_blob") // links refuse COMPRESSED
			shared := c.createShared()
			c.everywhere(types.Create(), bigTable, wordTable, uniqueTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			east, west := c.sites[0], c.sites[1]
			imagetest.Exec(t, east.server, types.Fill()...)
			fillBig(t, east)
			for i := range 300 {
				east.exec(t, "INSERT INTO app.words VALUES (?, ?, ?)", fmt.Sprintf("Wort %d", i), i%7, "v")
				east.exec(t, "INSERT INTO app.named VALUES (?, ?, 0)", i, fmt.Sprintf("name %d", i))
			}
			c.awaitEqual(60*time.Second, "app.big", "app.words", "app.named")

			ctx, stop := context.WithCancel(t.Context())
			var writers sync.WaitGroup
			var increments atomic.Int64
			writers.Go(func() { c.count(ctx, &increments) })
			for i, s := range c.sites {
				writers.Go(func() { s.writeShared(ctx, t, rand.New(rand.NewPCG(1, uint64(i)))) })
				writers.Go(func() { s.writeBig(ctx, t, rand.New(rand.NewPCG(2, uint64(i)))) })
			}
			if jobs := c.resync(t, "app.big", "east"); written(jobs) > 0 {
				t.Errorf("nothing differs for good, and rows were written: %+v", jobs)
			}
			want := c.plant(t)
			c.damageNames(t)
			overwritten := c.repairNames(t)
			for _, table := range []string{"app.big", "app.words", "app.types", "app.named", "app.shared", "app.shared_wide", "app.counter"} {
				for _, j := range c.resync(t, table, "east") {
					overwritten += number(t, j.Updated) + number(t, j.Deleted)
					if table != "app.big" && table != "app.types" {
						if n := written([]api.ResyncDocument{j}); n > 0 {
							t.Errorf("%d rows of %s were written on %s, and none differed", n, table, j.To)
						}
					}
				}
			}
			stop()
			writers.Wait()
			if d := c.verify(t); d.Equal == nil || !*d.Equal {
				t.Errorf("after the resync: %s", brief(d))
			}
			c.awaitCaughtUp()
			c.awaitEqual(60*time.Second, append(shared, "app.big", "app.words", "app.named")...)
			c.checkCounter(increments.Load())
			// What was damaged on east, and is thereby right, is on the other two; what was damaged there is as on east.
			if err := west.holds("SELECT COUNT(*) FROM app.big WHERE id IN (7, 17, 27) AND v = 'planted'", "1"); err != nil {
				t.Error(err)
			}
			c.all("SELECT GROUP_CONCAT(name ORDER BY id) FROM app.named WHERE id IN (7, 17, 27, 107, 207, 5007, -7)", "name 7,name 17,name 27,name 107,name 207")
			c.expectKept(t, overwritten)
			if overwritten < len(want["app.big"]) {
				t.Errorf("only %d rows were overwritten or deleted", overwritten)
			}
		})
	}
}

// damageNames has the values of a unique key go round on west; two of them become those of rows that only west has.
func (c *cluster) damageNames(t *testing.T) {
	t.Helper()
	for _, q := range []string{
		"UPDATE app.named SET name = 'x' WHERE id = 7", "UPDATE app.named SET name = 'name 7' WHERE id = 17",
		"UPDATE app.named SET name = 'name 17' WHERE id = 27", "UPDATE app.named SET name = 'name 27' WHERE id = 7",
		"DELETE FROM app.named WHERE id = 107", "INSERT INTO app.named VALUES (5007, 'name 107', 1)",
		"DELETE FROM app.named WHERE id = 207", "INSERT INTO app.named VALUES (-7, 'name 207', 1)",
	} {
		c.sites[1].hidden(t, q)
	}
}

// repairNames tells beforehand what it will do to west, and has what differs in two of the tables made as it is on east. It returns
// how many rows that overwrites or deletes.
func (c *cluster) repairNames(t *testing.T) int {
	t.Helper()
	var plans []api.ResyncPlan
	out, err := c.output("resync", "table", "app.named", "--from", "east", "--dry-run", "--json")
	if err != nil || json.Unmarshal([]byte(out), &plans) != nil || len(plans) != 2 || *plans[0].Total != "0" || *plans[1].Total != "7" {
		t.Fatalf("%v\n%s", err, out)
	}
	done := map[string]int{}
	for _, r := range plans[1].Rows {
		done[r.Do]++
	}
	if done["insert"] != 2 || done["update"] != 3 || done["delete"] != 2 {
		t.Errorf("a dry run says %v: %s", done, out)
	}
	out, err = c.output("verify", "--repair", "--from", "east", "app.words", "app.named")
	if err != nil || !strings.Contains(out, "0 equal, 2 differ") {
		t.Fatalf("verify --repair: %v\n%s", err, out)
	}
	return 5 + 6 // names, words
}

// expectKept demands so many rows in the journals that a resync has overwritten or deleted.
func (c *cluster) expectKept(t *testing.T, overwritten int) {
	t.Helper()
	total := 0
	for _, s := range c.sites {
		var kept int
		err := s.db.QueryRow("SELECT COUNT(*) FROM replicator.conflict WHERE kind = 'resync' AND state = 'acknowledged' AND notified").Scan(&kept)
		if err != nil {
			t.Fatal(err)
		}
		total += kept
	}
	if total != overwritten {
		t.Errorf("%d rows were overwritten or deleted, %d are in the journals", overwritten, total)
	}
}

const uniqueTable = `CREATE TABLE app.named (id INT PRIMARY KEY, name VARCHAR(40), n INT, UNIQUE KEY (name)) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci`

// resync runs the command, and returns what it says of each server.
func (c *cluster) resync(t *testing.T, table, from string, more ...string) (jobs []api.ResyncDocument) {
	t.Helper()
	began := time.Now()
	out, err := c.output(append([]string{"resync", "table", table, "--from", from, "--json"}, more...)...)
	if json.Unmarshal([]byte(out), &jobs) != nil || err != nil {
		t.Fatalf("resync of %s: %v\n%s", table, err, out)
	}
	for _, j := range jobs {
		if j.State != "done" || j.Moving != "0" {
			t.Errorf("resync of %s: %+v", table, j)
		}
		t.Logf("%s, %s to %s: %s compared, %s inserted, %s updated, %s deleted, %s newer in %s", table, j.From, j.To, j.Compared, j.Inserted, j.Updated,
			j.Deleted, j.Newer, time.Since(began).Round(time.Millisecond))
	}
	return jobs
}

func written(jobs []api.ResyncDocument) (n int) {
	for _, j := range jobs {
		for _, text := range []string{j.Inserted, j.Updated, j.Deleted} {
			if text != "0" {
				n++
			}
		}
	}
	return n
}

func number(t *testing.T, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestResyncGoesOn kills the replicator while it carries a resync out, at random places, and the command that watches it.
func TestResyncGoesOn(t *testing.T) {
	t.Parallel()
	for name, flavors := range usually(map[string][]sandbox.Flavor{
		"mysql":   {sandbox.MySQL97, sandbox.MySQL97},
		"mariadb": {sandbox.MariaDB118, sandbox.MariaDB118},
	}, "mysql") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const rows, damaged, kills = 200_000, 5_000, 2
			c := newCluster(t, flavors...)
			c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(40), n INT NOT NULL)", "CREATE TABLE app.n (n INT PRIMARY KEY)",
				"INSERT INTO app.n VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)")
			for _, s := range c.sites { // before the mesh begins, and so taken as equal
				s.exec(t, "INSERT INTO app.t SELECT a.n+10*b.n+100*c.n+1000*d.n+10000*e.n+100000*f.n, 'v', 0 FROM app.n a, app.n b, app.n c, app.n d, app.n e, app.n f WHERE f.n < ?",
					rows/100_000)
			}
			east, west := c.sites[0], c.sites[1]
			for _, q := range []string{
				"UPDATE app.t SET v = 'old' WHERE id % 100 = 1", "DELETE FROM app.t WHERE id % 200 = 2", "UPDATE app.t SET id = id + 1000000 WHERE id % 200 = 102",
			} {
				west.exec(t, q)
			}
			c.start()
			c.awaitLinks(30 * time.Second)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var writers sync.WaitGroup
			for i, s := range c.sites {
				r := rand.New(rand.NewPCG(3, uint64(i)))
				writers.Go(func() {
					for range paced(ctx) {
						if _, err := s.db.Exec("UPDATE app.t SET n = n + 1 WHERE id = ?", r.IntN(rows)); err != nil && !contention(err) {
							t.Errorf("on %s: %v", s.name, err)
							return
						}
					}
				})
			}
			c.killResync(t, rows, kills)
			jobs := c.resync(t, "app.t", "east")
			stop()
			writers.Wait()
			c.awaitCaughtUp()
			c.awaitEqual(60*time.Second, "app.t")
			// What the kills have done twice is what was compared behind the last commit; what was written is counted once. Rows that
			// applications wrote meanwhile were repaired by that.
			j := jobs[0]
			written := number(t, j.Inserted) + number(t, j.Updated) + number(t, j.Deleted)
			if most := damaged; written > most || written+number(t, j.Newer) < most*9/10 {
				t.Errorf("%d rows written and %s left to later changes, %d were damaged", written, j.Newer, most)
			}
			if n := number(t, j.Compared); n > rows+kills*20_000 {
				t.Errorf("%d rows compared of %d: the finished part was read again", n, rows)
			}
			var kept int
			if err := west.db.QueryRow("SELECT COUNT(*) FROM replicator.conflict WHERE kind = 'resync'").Scan(&kept); err != nil {
				t.Fatal(err)
			}
			if want := number(t, j.Updated) + number(t, j.Deleted); kept != want {
				t.Errorf("%d rows are kept, %d were overwritten or deleted", kept, want)
			}
			if err := east.holds("SELECT COUNT(*) FROM replicator.conflict WHERE kind = 'resync'", "0"); err != nil {
				t.Error(err)
			}
		})
	}
}

// killResync asks for a resync of app.t, and kills the process that carries it out so many times before it is done.
func (c *cluster) killResync(t *testing.T, rows, kills int) {
	t.Helper()
	if out, err := c.output("resync", "table", "app.t", "--from", "east", "--detach"); err != nil || !strings.Contains(out, "waiting") {
		t.Fatalf("%v\n%s", err, out)
	}
	progress := func() api.ResyncDocument {
		t.Helper()
		out, err := c.output("resync", "list", "--json")
		var jobs []api.ResyncDocument
		if err != nil || json.Unmarshal([]byte(out), &jobs) != nil || len(jobs) != 1 {
			t.Fatalf("%v\n%s", err, out)
		}
		return jobs[0]
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	last := 0
	for i := range kills {
		at := last + (rows-last)/(kills+2) + r.IntN(rows/(3*kills))
		await(t, 120*time.Second, func() error {
			if j := progress(); number(t, j.Compared) < at {
				return fmt.Errorf("%+v", j)
			}
			return nil
		})
		j := progress()
		c.kill()
		if j.State != "running" {
			t.Fatalf("kill %d came too late: %+v", i+1, j)
		}
		last = number(t, j.Compared)
		t.Logf("killed behind %d rows", last)
		c.start()
		if i == 0 {
			c.cutResync(t)
		}
	}
}

// cutResync cuts the source off until the job says that it waits.
func (c *cluster) cutResync(t *testing.T) {
	t.Helper()
	c.awaitLinks(60 * time.Second)
	if err := c.sites[0].proxy.Cut(); err != nil {
		t.Fatal(err)
	}
	await(t, 60*time.Second, func() error {
		var state, note string
		if err := c.sites[1].db.QueryRow("SELECT state, COALESCE(note, '') FROM replicator.resync").Scan(&state, &note); err != nil {
			return err
		}
		if state != "running" {
			t.Fatalf("the source is cut off, and the job is %s: %s", state, note)
		}
		if note == "" {
			return errors.New("the job does not say that it waits")
		}
		t.Logf("cut off: %s", note)
		return nil
	})
	if err := c.sites[0].proxy.Heal(); err != nil {
		t.Fatal(err)
	}
}

// TestResyncAsked: what cannot be done is refused with the reason, and a condition, a speed limit and an end do what they say.
func TestResyncAsked(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MySQL97, sandbox.MySQL97)
	c.extra = "links: [{from: east, to: west}, {from: west, to: east}, {from: east, to: north}]\n" +
		"tables: {exclude: [app.private]}\nconflict:\n  change_log: {table: app.log}\n"
	c.everywhere("CREATE DATABASE app", plainTable, "CREATE TABLE app.private (id INT PRIMARY KEY)",
		"CREATE TABLE app.watched (id INT PRIMARY KEY, v INT)",
		`CREATE TABLE app.log (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT, `+"`"+`table`+"`"+` VARCHAR(200), record_id VARCHAR(200),
 comment TEXT, `+"`"+`timestamp`+"`"+` DATETIME(6)) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci`)
	east := c.sites[0]
	c.everywhere("CREATE TRIGGER app.watch AFTER UPDATE ON app.watched FOR EACH ROW SET @seen = 1")
	c.configure()
	refused := func(want string, args ...string) {
		t.Helper()
		if out, err := c.try(append([]string{"resync"}, args...)...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s\nwant %s", args, err, out, want)
		}
	}
	refused("the mesh has not been started", "table", "app.t", "--from", "east", "--to", "west")
	c.start()
	c.awaitLinks(30 * time.Second)
	for id := range 20 {
		east.exec(t, "INSERT INTO app.t VALUES (?, 'x')", id)
	}
	c.awaitEqual(20*time.Second, "app.t")

	refused("name the server whose rows are right", "table", "app.t")
	refused("--from and --to both name east", "table", "app.t", "--from", "east", "--to", "east")
	refused("is not DATABASE.TABLE", "table", "t", "--from", "east")
	refused(`there is no server "south"`, "table", "app.t", "--from", "south", "--to", "west")
	refused(`there is no server "south"`, "table", "app.t", "--from", "east", "--to", "south")
	refused("no link leads from north to west", "table", "app.t", "--from", "north", "--to", "west")
	refused("table app.private is not replicated", "table", "app.private", "--from", "east")
	refused("east does not have table app.none", "table", "app.none", "--from", "east")
	refused("east does not take the condition", "table", "app.t", "--from", "east", "--where", "nosuch = 1")
	refused("the condition does not stand by itself", "table", "app.t", "--from", "east", "--to", "west", "--where", "1) OR (1")
	refused("changes of north do not reach east, and would be undone", "table", "app.t", "--from", "east", "--to", "north")
	refused("each server numbers its rows by itself", "table", "app.log", "--from", "east", "--to", "west")
	refused("trigger watch of table app.watched on west would fire", "table", "app.watched", "--from", "east", "--to", "west")
	refused("no resync of app.t is under way", "cancel", "app.t")

	c.resyncPart(t)

	// What one row a second takes is ended.
	if out, err := c.output("resync", "table", "app.t", "--from", "east", "--to", "west", "--throttle", "1", "--detach"); err != nil {
		t.Fatal(err, out)
	}
	refused("another resync of app.t is under way, from east to west", "table", "app.t", "--from", "east", "--to", "west", "--where", "id = 1")
	refused("another resync of app.t is under way, from east to west", "table", "app.t", "--from", "west", "--to", "east") // each would get the other's
	refused(`there is no server "est"`, "table", "app.t", "--from", "est", "--dry-run")
	refused("no link leads from north to another server", "table", "app.t", "--from", "north", "--dry-run")
	refused("trigger watch of table app.watched on west would fire", "table", "app.watched", "--from", "east", "--to", "west", "--dry-run")
	if out, err := c.output("resync", "cancel", "app.t"); err != nil || !strings.Contains(out, "from east to west is ended") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := c.output("resync", "list"); err != nil || !strings.Contains(out, "cancelled") {
		t.Errorf("%v\n%s", err, out)
	}
	if jobs := c.resync(t, "app.t", "east", "--to", "west"); jobs[0].Compared != "20" {
		t.Errorf("%+v", jobs)
	}
	c.awaitEqual(20*time.Second, "app.t")

	c.resyncAltered(t, "c", func() {})
	c.resyncAltered(t, "d", func() { c.kill(); c.start() })
	c.watchResync(t)
	await(t, 30*time.Second, func() error { // its last heartbeat is fresh for a moment
		out, err := c.try("resync", "table", "app.t", "--from", "east", "--to", "west", "--detach")
		if err == nil || !strings.Contains(out, "no process applies to west") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// watchResync: who watches is told that nobody works on it, and how it has ended.
func (c *cluster) watchResync(t *testing.T) {
	t.Helper()
	watched := exec.Command(c.binary, "resync", "table", "app.t", "--from", "east", "--to", "west", "--throttle", "1", "--config", c.dir+"/replicator.yaml")
	said := &logBuffer{}
	watched.Stdout, watched.Stderr = said, said
	if err := watched.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, func() error {
		out, err := c.output("resync", "list")
		if err != nil || !strings.Contains(out, "running") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	c.stop()
	await(t, 20*time.Second, func() error {
		if text := said.tail(20); !strings.Contains(text, "west: no process applies to it") {
			return errors.New("nobody works on it, and this is said: " + text)
		}
		return nil
	})
	if out, err := c.output("resync", "cancel", "app.t", "--to", "west"); err != nil {
		t.Fatal(err, out)
	}
	exit := (*exec.ExitError)(nil)
	if err := watched.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(said.tail(20), "cancelled") {
		t.Errorf("%v: %s", err, said.tail(20))
	}
}

// resyncAltered gives the table another column while it is being resynced: the rows are copied with it, whatever happens to the
// process meanwhile.
func (c *cluster) resyncAltered(t *testing.T, column string, meanwhile func()) {
	t.Helper()
	args := []string{"--to", "west", "--throttle", "5"}
	if out, err := c.output(append([]string{"resync", "table", "app.t", "--from", "east", "--detach"}, args...)...); err != nil {
		t.Fatal(err, out)
	}
	await(t, 20*time.Second, func() error {
		out, err := c.output("resync", "list")
		if err != nil || !strings.Contains(out, "running") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	c.everywhere("ALTER TABLE app.t ADD COLUMN " + column + " INT DEFAULT 7")
	c.sites[1].hidden(t, "UPDATE app.t SET "+column+" = 99 WHERE id = 5")
	meanwhile()
	if jobs := c.resync(t, "app.t", "east", args...); jobs[0].Updated != "1" {
		t.Errorf("%+v", jobs)
	}
	if err := c.sites[1].holds("SELECT COUNT(*) FROM app.t WHERE "+column+" = 7", "20"); err != nil {
		t.Error(err)
	}
}

// resyncPart copies rows that meet a condition, and to a server that does not send its changes back.
func (c *cluster) resyncPart(t *testing.T) {
	t.Helper()
	west := c.sites[1]
	west.hidden(t, "UPDATE app.t SET v = 'bad' WHERE id = 3")
	west.hidden(t, "UPDATE app.t SET v = 'bad' WHERE id = 13")
	west.hidden(t, "UPDATE app.t SET id = 113 WHERE id = 14") // one that is missing, one that is too much
	if jobs := c.resync(t, "app.t", "east", "--to", "west", "--where", "id >= 10 AND v <> 'bad'"); jobs[0].Updated != "1" || jobs[0].Inserted != "1" || jobs[0].Deleted != "1" {
		t.Errorf("%+v", jobs) // row 13 meets the condition on east
	}
	if err := west.holds("SELECT GROUP_CONCAT(id) FROM app.t WHERE v = 'bad'", "3"); err != nil {
		t.Error(err)
	}

	c.sites[2].exec(t, "UPDATE app.t SET v = 'its own' WHERE id = 5")
	await(t, 30*time.Second, func() error { // not as long as it may be newer than what north knows of east
		c.resync(t, "app.t", "east", "--to", "north", "--force")
		return c.sites[2].holds("SELECT COUNT(*) FROM app.t WHERE v = 'its own'", "0")
	})
}
