package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
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
	for name, flavors := range map[string][]sandbox.Flavor{
		"mysql":   {sandbox.MySQL97, sandbox.MySQL97, sandbox.MySQL97},
		"mariadb": {sandbox.MariaDB118, sandbox.MariaDB118, sandbox.MariaDB118},
		"mixed":   {sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavors...)
			types := imagetest.TypesFor("app.types", flavors...).Without("z_text", "z_blob") // links refuse COMPRESSED
			shared := c.createShared()
			c.everywhere(types.Create(), bigTable, wordTable, uniqueTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			east, west, north := c.sites[0], c.sites[1], c.sites[2]
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
			// Values of a unique key go round; two of them are those of rows that only west has.
			for _, q := range []string{
				"UPDATE app.named SET name = 'x' WHERE id = 7", "UPDATE app.named SET name = 'name 7' WHERE id = 17",
				"UPDATE app.named SET name = 'name 17' WHERE id = 27", "UPDATE app.named SET name = 'name 27' WHERE id = 7",
				"DELETE FROM app.named WHERE id = 107", "INSERT INTO app.named VALUES (5007, 'name 107', 1)",
				"DELETE FROM app.named WHERE id = 207", "INSERT INTO app.named VALUES (-7, 'name 207', 1)",
			} {
				west.hidden(t, q)
			}
			overwritten := 0
			for _, table := range []string{"app.big", "app.words", "app.types", "app.named", "app.shared", "app.shared_wide", "app.counter"} {
				for _, j := range c.resync(t, table, "east") {
					overwritten += number(t, j.Updated) + number(t, j.Deleted)
					if strings.HasPrefix(table, "app.shared") || table == "app.counter" {
						if n := written([]api.ResyncDocument{j}); n > 0 {
							t.Errorf("%d rows of %s were written on %s, and none differed", n, table, j.To)
						}
					}
				}
			}
			if d := c.verify(t); d.Equal == nil || !*d.Equal {
				t.Errorf("after the resync: %s", brief(d))
			}
			stop()
			writers.Wait()
			c.awaitCaughtUp()
			c.awaitEqual(60*time.Second, append(shared, "app.big", "app.words", "app.named")...)
			c.checkCounter(increments.Load())
			// What was damaged on east, and is thereby right, is on the other two; what was damaged there is as on east.
			if err := west.holds("SELECT COUNT(*) FROM app.big WHERE id IN (7, 17, 27) AND v = 'planted'", "1"); err != nil {
				t.Error(err)
			}
			c.all("SELECT GROUP_CONCAT(name ORDER BY id) FROM app.named WHERE id IN (7, 17, 27, 107, 207, 5007, -7)", "name 7,name 17,name 27,name 107,name 207")
			kept, err := c.conflicts("?limit=1000")
			if err != nil {
				t.Fatal(err)
			}
			resynced := 0
			for _, k := range kept {
				if string(k.Kind) == "resync" {
					resynced += len(k.Servers)
				}
			}
			if resynced != overwritten || overwritten < 3*(len(want["app.big"])/3) {
				t.Errorf("%d rows were overwritten or deleted, %d are in the journals", overwritten, resynced)
			}
			_ = north
		})
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
