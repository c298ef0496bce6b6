package integration

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"replicator/mesh"
)

// faultTime is how long a mesh works under faults at least: REPLICATOR_SOAK, a duration such as 5m, makes it longer.
func faultTime(tb testing.TB) time.Duration {
	tb.Helper()
	text := os.Getenv("REPLICATOR_SOAK")
	if text == "" {
		return 10 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		tb.Fatalf("REPLICATOR_SOAK: %v", err)
	}
	return d
}

// Writers on all servers, of the same and of different rows, while links are cut and healed and the program is killed
// ten times. Afterwards all servers are equal, and nothing was lost or done twice.
func TestConvergesUnderFaults(t *testing.T) {
	t.Parallel()
	for _, m := range meshes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, m.flavors...)
			c.convergeUnderFaults(faultTime(t))
		})
	}
}

func (c *cluster) convergeUnderFaults(d time.Duration) {
	t := c.tb
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	tables := c.createShared()
	for i := range c.sites {
		tables = append(tables, c.prepareSysbench(i)...)
	}
	c.awaitEqual(time.Second, tables...)
	c.start()
	c.awaitLinks(30 * time.Second)

	ctx, cancel := context.WithTimeout(context.Background(), d+3*time.Minute)
	defer cancel()
	var load sync.WaitGroup
	var increments atomic.Int64
	load.Go(func() { c.count(ctx, &increments) })
	for i, s := range c.sites {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		load.Go(func() { s.writeShared(ctx, t, r) })
		load.Go(func() { s.sysbench(ctx, t, i, "oltp_write_only", "sba") })
		load.Go(func() { s.sysbench(ctx, t, i, "oltp_insert", "sbb") })
	}
	began := time.Now()
	c.disturb(ctx, d, rand.New(rand.NewPCG(seed, 99)))
	cancel()
	load.Wait()
	for _, s := range c.sites {
		if err := s.proxy.Heal(); err != nil {
			t.Fatal(err)
		}
	}
	worked := time.Since(began)
	c.awaitCaughtUp()
	c.awaitEqual(60*time.Second, tables...)
	t.Logf("%s of load and faults, %d increments; settled after %s more",
		worked.Round(time.Millisecond), increments.Load(), (time.Since(began) - worked).Round(time.Millisecond))
	c.checkCounter(increments.Load())
}

// createShared makes the tables of writeShared and count on all servers, and returns their names.
func (c *cluster) createShared() []string {
	c.tb.Helper()
	c.everywhere("CREATE DATABASE app",
		"CREATE TABLE app.shared (id INT PRIMARY KEY, v VARCHAR(40), n INT, w BLOB) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci",
		"CREATE TABLE app.shared_wide (a INT, b VARCHAR(20), v INT, PRIMARY KEY (a, b)) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci",
		"CREATE TABLE app.counter (id INT PRIMARY KEY, n BIGINT) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci",
		"INSERT INTO app.counter VALUES (1, 0)")
	return []string{"app.shared", "app.shared_wide", "app.counter"}
}

// checkCounter compares the counter on every server with the increments that the first one acknowledged.
func (c *cluster) checkCounter(acknowledged int64) {
	c.tb.Helper()
	for _, s := range c.sites {
		var n int64
		if err := s.db.QueryRow("SELECT n FROM app.counter WHERE id = 1").Scan(&n); err != nil {
			c.tb.Fatal(err)
		}
		if n != acknowledged {
			c.tb.Errorf("on %s the counter stands at %d after %d acknowledged increments", s.name, n, acknowledged)
		}
	}
	if acknowledged == 0 {
		c.tb.Error("no increment was acknowledged")
	}
}

// count increments on the first server only. An increment whose answer was lost would be unknown; the load does not go
// through the proxies, so there is none.
func (c *cluster) count(ctx context.Context, acknowledged *atomic.Int64) {
	for range paced(ctx) {
		_, err := c.sites[0].db.Exec("UPDATE app.counter SET n = n + 1 WHERE id = 1")
		switch {
		case err == nil:
			acknowledged.Add(1)
		case !contention(err):
			c.tb.Errorf("increment: %v", err)
			return
		}
	}
}

// writeEvery is the pause between two writes of one application: the backlog that is left when the load ends must not depend
// on how much faster than the links the applications can be.
const writeEvery = 25 * time.Millisecond

// paced yields until the context ends.
func paced(ctx context.Context) iter.Seq[int] {
	return func(yield func(int) bool) {
		tick := time.NewTicker(writeEvery)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil && yield(n); n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}
}

// contention is what an application must expect and try again.
func contention(err error) bool {
	var e *mysql.MySQLError
	return errors.As(err, &e) && (e.Number == 1213 || e.Number == 1205 || e.Number == 1020)
}

// writeShared changes rows that all servers change.
func (s *site) writeShared(ctx context.Context, t testing.TB, r *rand.Rand) {
	for range paced(ctx) {
		id := r.IntN(40)
		var err error
		switch r.IntN(10) {
		case 0, 1:
			_, err = s.db.Exec("DELETE FROM app.shared WHERE id = ?", id)
		case 2, 3, 4:
			_, err = s.db.Exec("REPLACE INTO app.shared VALUES (?, ?, ?, ?)", id, s.name, r.IntN(1000), fmt.Appendf(nil, "\x00\xff%d", r.IntN(1000)))
		case 5:
			_, err = s.db.Exec("UPDATE IGNORE app.shared SET id = ? WHERE id = ?", r.IntN(40), id)
		case 6:
			_, err = s.db.Exec("INSERT INTO app.shared_wide VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE v = v + 1", id%5, fmt.Sprintf("K%d", r.IntN(8)), r.IntN(100))
		case 7:
			_, err = s.db.Exec("DELETE FROM app.shared_wide WHERE a = ?", id%5)
		default:
			err = s.twoRows(id, r.IntN(40), s.name)
		}
		if err != nil && !contention(err) {
			t.Errorf("on %s: %v", s.name, err)
			return
		}
	}
}

// twoRows changes two rows in one transaction.
func (s *site) twoRows(a, b int, v string) error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, id := range []int{a, b} {
		if _, err := tx.Exec("UPDATE app.shared SET v = ?, n = n + 1 WHERE id = ?", v, id); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// disturb cuts and heals the way to the program's servers, and kills the program ten times: each time when a tenth of d has
// passed and it has applied something since it was started. It returns after the last kill.
func (c *cluster) disturb(ctx context.Context, d time.Duration, r *rand.Rand) {
	const kills = 10
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	cut := time.NewTicker(700 * time.Millisecond)
	defer cut.Stop()
	var down *site
	started := time.Now()
	for killed := 0; killed < kills; {
		select {
		case <-ctx.Done():
			c.tb.Errorf("the program was killed %d times, want %d: it applied nothing any more", killed, kills)
			return
		case <-look.C:
			if time.Since(started) < d/kills || !c.applied() {
				continue
			}
			c.kill()
			c.start()
			killed++
			started = time.Now()
		case <-cut.C:
			var err error
			if down == nil {
				down = c.sites[r.IntN(len(c.sites))]
				err = down.proxy.Cut()
			} else {
				err = down.proxy.Heal()
				down = nil
			}
			if err != nil {
				c.tb.Error(err)
			}
		}
	}
}

// applied reports whether the program has applied a transaction since it was started.
func (c *cluster) applied() bool {
	s, err := c.status()
	return err == nil && slices.ContainsFunc(s.Links, func(l mesh.LinkStatus) bool { return l.Transactions != nil && *l.Transactions > 0 })
}
