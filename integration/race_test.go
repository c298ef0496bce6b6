package integration

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"replicator/sandbox"
)

// raceTime is how long each mesh works under the race detector at least.
const raceTime = 10 * time.Second

// A mesh under load, faults and questions, by a program that watches itself for data races.
func TestMeshRace(t *testing.T) {
	t.Parallel()
	binary := buildRace(t)
	for _, m := range []struct {
		name    string
		flavors []sandbox.Flavor
	}{
		{"mariadb1011", []sandbox.Flavor{sandbox.MariaDB1011, sandbox.MariaDB1011, sandbox.MariaDB1011}},
		{"mixed", []sandbox.Flavor{sandbox.MySQL97, sandbox.MySQL97, sandbox.MariaDB1011}},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, m.flavors...)
			c.binary = binary
			c.env = []string{"GORACE=halt_on_error=0 exitcode=66"}
			c.workWatched()
		})
	}
}

// buildRace makes the program with the race detector, which needs a C compiler.
func buildRace(t *testing.T) string {
	t.Helper()
	compiler, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(compiler))
	if len(words) == 0 {
		t.Skip("no C compiler is configured: the race detector needs one")
	}
	if _, err := exec.LookPath(words[0]); err != nil {
		t.Skipf("the race detector needs a C compiler: %v", err)
	}
	path := filepath.Join(t.TempDir(), "replicator-race")
	if err := compile(path, "CGO_ENABLED=1", "-race"); err != nil {
		t.Fatal(err)
	}
	return path
}

// workWatched puts the mesh under load, cuts a server off once and kills the program once; a clean stop ends it.
func (c *cluster) workWatched() {
	t := c.tb
	t.Helper()
	tables := c.createShared()
	c.start()
	c.awaitLinks(60 * time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	defer load.Wait()
	defer cancel()
	var increments, answers atomic.Int64
	load.Go(func() { c.count(ctx, &increments) })
	load.Go(func() { c.ask(ctx, &answers) })
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i, s := range c.sites {
		load.Go(func() { s.writeShared(ctx, t, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	c.spool(ctx)
	cut := c.sites[1].proxy
	steps := []func() error{
		cut.Cut,
		cut.Heal,
		func() error { c.kill(); c.start(); return nil },
	}
	pause := raceTime / time.Duration(len(steps)+1)
	for _, step := range steps {
		<-time.After(pause)
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(pause)
	cancel() // and not by a deadline: the load must last as long as the faults, whatever these take
	load.Wait()
	c.awaitLinks(60 * time.Second)
	c.awaitEqual(60*time.Second, append(tables, "app.large")...)
	c.checkCounter(increments.Load())
	if answers.Load() == 0 {
		t.Error("the program answered no question over HTTP")
	}
	c.stop() // an exit code other than 0, as of a race that was seen, fails the test
	if log := c.log.String(); strings.Contains(log, "WARNING: DATA RACE") {
		t.Errorf("the program has a data race:\n%s", races(log))
	}
}

// spool commits a transaction that is too large for memory.
func (c *cluster) spool(ctx context.Context) {
	c.tb.Helper()
	c.everywhere("CREATE TABLE app.large (id INT PRIMARY KEY, v VARCHAR(2000)) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci")
	tx, err := c.sites[0].db.BeginTx(ctx, nil)
	if err != nil {
		c.tb.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	const rows, perStatement = 4000, 500
	for from := 0; from < rows; from += perStatement {
		values := make([]string, perStatement)
		for i := range values {
			values[i] = fmt.Sprintf("(%d, REPEAT('x', 2000))", from+i)
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO app.large VALUES "+strings.Join(values, ", ")); err != nil {
			c.tb.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		c.tb.Fatal(err)
	}
}

// ask reads everything that the program tells over HTTP until the context ends, and counts its answers.
func (c *cluster) ask(ctx context.Context, answers *atomic.Int64) {
	client := http.Client{Timeout: time.Second}
	for ctx.Err() == nil {
		for _, path := range []string{"/healthz", "/readyz", "/metrics", "/api/v1/status"} {
			response, err := client.Get("http://" + c.listen + path)
			if err != nil {
				continue // it was killed, and starts
			}
			if _, err := io.Copy(io.Discard, response.Body); err == nil {
				answers.Add(1)
			}
			_ = response.Body.Close()
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// races returns the detector's reports.
func races(log string) string {
	const line = "=================="
	var b strings.Builder
	for i, part := range strings.Split(log, line) {
		if i%2 == 1 {
			b.WriteString(part)
		}
	}
	return b.String()
}
