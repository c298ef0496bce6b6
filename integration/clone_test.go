package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"replicator/api"
	"replicator/image/imagetest"
	"replicator/mesh"
	"replicator/sandbox"
)

// TestClone copies a server that is written to, to one that has nothing, which then is a member like the others; and again
// when it was away, and its binlog position is of no use any more.
func TestClone(t *testing.T) {
	t.Parallel()
	for name, flavors := range map[string][]sandbox.Flavor{
		"mysql":   {sandbox.MySQL97, sandbox.MySQL97, sandbox.MySQL97},
		"mariadb": {sandbox.MariaDB118, sandbox.MariaDB118, sandbox.MariaDB1011},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavors...)
			types := imagetest.TypesFor("app.types", flavors...).Without("z_text", "z_blob") // links refuse COMPRESSED
			east, north := c.sites[0], c.sites[2]
			all := c.sites
			c.admitCloner()
			c.sites = all[:2]
			tables := append(c.createShared(), "app.big", "app.words")
			c.everywhere(types.Create(), bigTable, wordTable)
			imagetest.Exec(t, east.server, types.Fill()...)
			imagetest.Exec(t, all[1].server, types.Fill()...)
			for _, s := range c.sites { // before the mesh begins, and so taken as equal
				fillBig(t, s)
			}
			c.sites = all
			imagetest.Exec(t, north.server, "CREATE DATABASE app", types.Create()) // it has ENUM labels that a server does not print
			c.start()
			await(t, 30*time.Second, func() error { return c.runs("east", "west") })

			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var writers sync.WaitGroup
			var increments atomic.Int64
			write := func(i int) {
				writers.Go(func() { all[i].writeShared(ctx, t, rand.New(rand.NewPCG(1, uint64(i)))) })
				writers.Go(func() { all[i].writeBig(ctx, t, rand.New(rand.NewPCG(2, uint64(i)))) })
			}
			writers.Go(func() { c.count(ctx, &increments) })
			write(0)
			write(1)
			d := c.clone(t, "east", "north")
			if n := number(t, d.Copied); n < 20_000 {
				t.Errorf("%d rows copied", n)
			}
			write(2)
			c.awaitLinks(60 * time.Second)

			// Away until its peers' binlogs are gone; nothing of its own is lost.
			north.exec(t, "INSERT INTO app.words VALUES ('of the north', 1, 'v')")
			stop()
			writers.Wait()
			c.awaitCaughtUp()
			c.awaitEqual(60*time.Second, tables...)
			c.checkCounter(increments.Load())
			c.comeBack(t)
			c.awaitEqual(60*time.Second, tables...)
			c.all("SELECT COUNT(*) FROM app.words WHERE w LIKE 'of the north%'", "1")
			c.all("SELECT COUNT(*) FROM app.words WHERE w = 'while it was away'", "1")
			north.exec(t, "INSERT INTO app.words VALUES ('back again', 1, 'v')")
			c.awaitEqual(60*time.Second, tables...)
		})
	}
}

// comeBack cuts north off until the binlogs of the others do not reach back any more, and clones it.
func (c *cluster) comeBack(t *testing.T) {
	t.Helper()
	east, north := c.sites[0], c.sites[2]
	if err := north.proxy.Cut(); err != nil {
		t.Fatal(err)
	}
	east.exec(t, "INSERT INTO app.words VALUES ('while it was away', 1, 'v')")
	await(t, 10*time.Second, func() error {
		return c.sites[1].holds("SELECT COUNT(*) FROM app.words WHERE w = 'while it was away'", "1")
	})
	files, before := map[*site]string{}, map[*site]int{}
	for _, s := range c.sites[:2] {
		s.exec(t, "FLUSH BINARY LOGS")
		files[s], before[s] = s.lastBinlog(t), s.places(t)
	}
	for s, file := range files {
		await(t, 40*time.Second, func() error { // what was there in the meantime, the other one has, and has said so
			if now := s.places(t); now < before[s]+5 {
				return fmt.Errorf("place %d, was %d", now, before[s])
			}
			return nil
		})
		s.exec(t, "PURGE BINARY LOGS TO '"+file+"'")
	}
	c.kill()
	if err := north.proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	c.start()
	l := c.awaitLink(30*time.Second, "east", "north", mesh.Stopped)
	if l.Error == nil || l.Error.Class != "binlog_purged" || !strings.Contains(l.Error.Remedy, "replicator clone --from") {
		t.Errorf("%+v", l.Error)
	}
	out, err := c.cloneSays("east", "north")
	if err == nil || !strings.Contains(out, "--replace") {
		t.Errorf("a server with rows: %v\n%s", err, out)
	}
	d := c.clone(t, "east", "north", "--replace", "--binlog")
	if same, rows := number(t, d.Same), number(t, d.Copied); same < 10*rows {
		t.Errorf("%d rows copied, %d were there: %+v", rows, same, d.Tables)
	}
	c.awaitLinks(60 * time.Second)
}

// places is the number of the newest place up to which the owner has read the server's binlog.
func (s *site) places(t *testing.T) (newest int) {
	t.Helper()
	if err := s.db.QueryRow("SELECT MAX(id) FROM replicator.reading").Scan(&newest); err != nil {
		t.Fatal(err)
	}
	return newest
}

// lastBinlog is the name of the file that the server writes to.
func (s *site) lastBinlog(t *testing.T) (name string) {
	t.Helper()
	rows, err := s.db.Query("SHOW BINARY LOGS")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	values := make([]any, len(columns))
	for i := range values {
		values[i] = new([]byte)
	}
	for rows.Next() {
		if err := rows.Scan(values...); err != nil {
			t.Fatal(err)
		}
		name = string(*values[0].(*[]byte))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return name
}

// runs says which link among some servers does not run.
func (c *cluster) runs(names ...string) error {
	s, err := c.status()
	if err != nil {
		return err
	}
	among := func(name string) bool { return strings.Contains(strings.Join(names, " "), name) }
	for _, l := range s.Links {
		if among(l.From) && among(l.To) && l.State != mesh.Running {
			return fmt.Errorf("link %s-%s is %s: %+v", l.From, l.To, l.State, l.Error)
		}
	}
	return nil
}

const clonerPassword = "s3cret of the cloner"

// admitCloner makes the account for the copy everywhere.
func (c *cluster) admitCloner() {
	c.everywhere("CREATE USER cloner IDENTIFIED BY '"+clonerPassword+"'", "GRANT ALL ON *.* TO cloner")
}

// cloning is the command, as an account that may do everything.
func (c *cluster) cloning(from, to string, more ...string) *exec.Cmd {
	args := append([]string{"clone", "--from", from, "--to", to, "--user", "cloner", "--json", "--config", filepath.Join(c.dir, "replicator.yaml")}, more...)
	cmd := exec.Command(c.binary, args...)
	cmd.Env = append(os.Environ(), "REPLICATOR_CLONE_PASSWORD="+clonerPassword)
	return cmd
}

// cloneSays runs the command and returns all that it says.
func (c *cluster) cloneSays(from, to string, more ...string) (string, error) {
	out, err := c.cloning(from, to, more...).CombinedOutput()
	return string(out), err
}

// cloneMemory is how much memory the command may take, in MB.
const cloneMemory = 300

// clone runs the command, which must end well.
func (c *cluster) clone(t *testing.T, from, to string, more ...string) (d api.CloneDocument) {
	t.Helper()
	cmd := c.cloning(from, to, more...)
	var said bytes.Buffer
	cmd.Stderr = &said
	began := time.Now()
	out, err := cmd.Output()
	if err != nil || json.Unmarshal(out, &d) != nil {
		t.Fatalf("clone: %v\n%s%s", err, said.String(), out)
	}
	used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("the system does not tell how much memory the command has taken")
	}
	t.Logf("clone of %s to %s: %s rows copied, %s were there, %s removed, in %s with at most %d MB", from, to, d.Copied, d.Same, d.Removed,
		time.Since(began).Round(time.Millisecond), used.Maxrss>>10)
	if used.Maxrss>>10 > cloneMemory { // in KiB: getrusage(2)
		t.Errorf("clone has taken %d MB, want at most %d", used.Maxrss>>10, cloneMemory)
	}
	return d
}

// TestCloneIsKilled kills the command while it copies, at random places. It goes on: what has been copied stays. What
// applications have written to the target meanwhile, against the rules, is not lost in silence.
func TestCloneIsKilled(t *testing.T) {
	t.Parallel()
	for name, flavor := range map[string]sandbox.Flavor{"mysql": sandbox.MySQL97, "mariadb": sandbox.MariaDB118} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const rows, kills = 200_000, 2
			c := newCluster(t, flavor, flavor)
			c.admitCloner()
			east, west := c.sites[0], c.sites[1]
			for _, q := range []string{
				"CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(200), n INT NOT NULL)", "CREATE TABLE app.n (n INT PRIMARY KEY)",
				"INSERT INTO app.n VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)", "CREATE TABLE app.counter (id INT PRIMARY KEY, n BIGINT)",
				"INSERT INTO app.counter VALUES (1, 0)",
				fmt.Sprintf(`INSERT INTO app.t SELECT a.n+10*b.n+100*c.n+1000*d.n+10000*e.n+100000*f.n, REPEAT('v', 150), 0
 FROM app.n a, app.n b, app.n c, app.n d, app.n e, app.n f WHERE f.n < %d`, rows/100_000),
			} {
				east.exec(t, q)
			}
			c.start()
			await(t, 30*time.Second, func() error { return east.holds("SELECT COUNT(*) FROM replicator.identity", "1") })
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var writers sync.WaitGroup
			var increments atomic.Int64
			writers.Go(func() { c.count(ctx, &increments) })
			writers.Go(func() {
				r := rand.New(rand.NewPCG(5, 5))
				for range paced(ctx) {
					if _, err := east.db.Exec("UPDATE app.t SET n = n + 1 WHERE id = ?", r.IntN(rows)); err != nil && !contention(err) {
						t.Errorf("on east: %v", err)
						return
					}
				}
			})
			there := 0
			for i := range kills {
				there = c.killClone(t, there, rows*i/(kills+1)+rand.IntN(rows/(kills+2)))
			}
			// Somebody writes to the target.
			west.exec(t, "UPDATE app.t SET v = 'of an application' WHERE id = (SELECT MIN(id) FROM (SELECT id FROM app.t) AS x)")
			out, err := c.cloneSays("east", "west")
			if err == nil || !strings.Contains(out, "applications have written to west since the clone began: 1 transactions") {
				t.Errorf("%v\n%s", err, out)
			}
			d := c.clone(t, "east", "west", "--replace")
			if n := number(t, d.Same); n < there/2 {
				t.Errorf("%d rows were there when it was killed last, and only %d were not copied again: %+v", there, n, d.Tables)
			}
			c.awaitLinks(60 * time.Second)
			stop()
			writers.Wait()
			c.awaitCaughtUp()
			c.awaitEqual(60*time.Second, "app.t", "app.counter")
			c.checkCounter(increments.Load())
			c.all("SELECT COUNT(*) FROM app.t WHERE v = 'of an application'", "0")
			west.exec(t, "UPDATE app.t SET v = 'of west' WHERE id = 1")
			await(t, 30*time.Second, func() error { return east.holds("SELECT v FROM app.t WHERE id = 1", "of west") })
		})
	}
}

// killClone runs the command, and kills it when so many rows have been copied. It returns how many there are then.
func (c *cluster) killClone(t *testing.T, before, at int) (there int) {
	t.Helper()
	cmd := c.cloning("east", "west")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rows := func() int {
		var n int
		if err := c.sites[1].db.QueryRow("SELECT COUNT(*) FROM app.t").Scan(&n); err != nil {
			return 0 // there is no table yet
		}
		return n
	}
	awaitSoon(t, 60*time.Second, func() error {
		if n := rows(); n < max(at, before+1) {
			return fmt.Errorf("%d rows, want %d:\n%s", n, at, said.String())
		}
		return nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatalf("the kill came too late")
	}
	there = rows()
	t.Logf("killed when %d rows were there", there)
	return there
}

// TestCloneOfMember clones a server that takes part and is written to: what it has committed before it leaves reaches
// everybody, and what it commits afterwards is not overlooked.
func TestCloneOfMember(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB118, sandbox.MySQL97)
	c.admitCloner()
	c.everywhere("CREATE DATABASE app", plainTable)
	c.start()
	c.awaitLinks(30 * time.Second)
	east, west, north := c.sites[0], c.sites[1], c.sites[2]
	for id := range 3 {
		north.exec(t, "INSERT INTO app.t VALUES (?, 'here')", -1-id)
	}
	c.awaitEqual(20*time.Second, "app.t")

	// A change of it is on its way to west, and waits for an application's lock.
	unlock := c.lockRow(t, west, -1)
	north.exec(t, "UPDATE app.t SET v = 'late' WHERE id = -1")
	await(t, 20*time.Second, func() error { return east.holds("SELECT v FROM app.t WHERE id = -1", "late") })
	said, ended := c.cloneBeside("east", "north", "--replace")
	await(t, 30*time.Second, func() error { return said.says("waiting for changes of north to reach west") })
	unlock()
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, said.tail(20))
	}
	c.awaitLinks(60 * time.Second)
	c.awaitEqual(20*time.Second, "app.t")

	// With --force nobody waits: what was on its way is missing there, and a resync brings it.
	unlock = c.lockRow(t, west, -2)
	north.exec(t, "UPDATE app.t SET v = 'lost' WHERE id = -2")
	await(t, 20*time.Second, func() error { return east.holds("SELECT v FROM app.t WHERE id = -2", "lost") })
	said, ended = c.cloneBeside("east", "north", "--replace", "--force")
	if err := <-ended; err != nil || said.says("north has 1 transactions that west does not have") != nil {
		t.Fatalf("%v\n%s", err, said.tail(20))
	}
	unlock()
	c.awaitLinks(60 * time.Second)
	if err := west.holds("SELECT v FROM app.t WHERE id = -2", "here"); err != nil {
		t.Error(err)
	}
	c.resync(t, "app.t", "east")
	c.awaitEqual(20*time.Second, "app.t")

	// Applications write all the while.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		writers.Go(func() {
			for ctx.Err() == nil {
				if _, err := north.db.Exec("INSERT INTO app.t VALUES (?, 'written')", next.Add(1)); err != nil && !contention(err) {
					t.Errorf("on north: %v", err)
					return
				}
			}
		})
	}
	await(t, 30*time.Second, func() error { return west.has("app.t", 100) })
	if out, err := c.cloneSays("east", "north", "--replace"); err == nil || !strings.Contains(out, "applications have written to north since the clone began") {
		t.Errorf("%v\n%s", err, out)
	}
	stop()
	writers.Wait()
	c.clone(t, "east", "north", "--replace")
	c.awaitLinks(60 * time.Second)
	c.awaitEqual(60*time.Second, "app.t")
}

// lockRow has an application lock a row of app.t until it is told to let go.
func (c *cluster) lockRow(t *testing.T, s *site, id int) (unlock func()) {
	t.Helper()
	tx, err := s.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("SELECT v FROM app.t WHERE id = ? FOR UPDATE", id); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// cloneBeside runs the command beside the test.
func (c *cluster) cloneBeside(from, to string, more ...string) (said *logBuffer, ended <-chan error) {
	cmd, end := c.cloning(from, to, more...), make(chan error, 1)
	said = &logBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	go func() { end <- cmd.Run() }()
	return said, end
}
