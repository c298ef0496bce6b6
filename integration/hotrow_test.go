package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"replicator/sandbox"
)

// hotTime is how long the row is written: REPLICATOR_SOAK, set to anything, makes it the full half minute.
func hotTime() time.Duration {
	if os.Getenv("REPLICATOR_SOAK") != "" {
		return 30 * time.Second
	}
	return 10 * time.Second
}

// hard-cases.md 19: two servers update one row up to 1,000 times a second each. The links keep up, the journal can be read
// meanwhile, and memory stays bounded.
func TestHotRow(t *testing.T) {
	const (
		maxLag    = 15.0 // seconds
		maxList   = 10 * time.Second
		maxMemory = 300 << 20
	)
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			c := newCluster(t, flavor, flavor)
			c.everywhere("CREATE DATABASE app", "CREATE TABLE app.hot (id INT PRIMARY KEY, v VARCHAR(40), n INT)")
			c.start()
			c.awaitLinks(30 * time.Second)
			c.sites[0].exec(t, "INSERT INTO app.hot VALUES (1, 'first', 0)")
			c.awaitEqual(20*time.Second, "app.hot")

			ctx, cancel := context.WithTimeout(t.Context(), hotTime())
			defer cancel()
			began := time.Now()
			var writers sync.WaitGroup
			var writes [2]atomic.Int64
			for i, s := range c.sites {
				for range hotWriters {
					writers.Go(func() { s.heat(ctx, t, &writes[i]) })
				}
			}
			lag, list := c.watchHotRow(ctx, t)
			writers.Wait()
			seconds := time.Since(began).Seconds()
			began = time.Now()
			c.awaitEqual(60*time.Second, "app.hot")
			drained := time.Since(began)
			c.awaitLinks(30 * time.Second)

			var entries int64
			if err := c.sites[0].db.QueryRow("SELECT COUNT(*) FROM replicator.conflict").Scan(&entries); err != nil {
				t.Fatal(err)
			}
			memory := c.peakMemory()
			t.Logf("%.0f and %.0f updates a second; lag up to %.1f s, equal %s after the last; %d journal entries, listed within %s; peak memory %d MB",
				float64(writes[0].Load())/seconds, float64(writes[1].Load())/seconds, lag, drained.Round(time.Millisecond), entries,
				list.Round(time.Millisecond), memory>>20)
			if entries == 0 {
				t.Error("two servers updated one row, and nothing is in the journal")
			}
			if lag > maxLag {
				t.Errorf("lag rose to %.1f s", lag)
			}
			if list > maxList {
				t.Errorf("listing the journal took %s", list)
			}
			if memory > maxMemory {
				t.Errorf("memory rose to %d MB", memory>>20)
			}
		})
	}
}

// hotWriters is how many connections of a server write the row.
const hotWriters = 4

// heat updates the hot row until the context ends, as one of several writers that together make at most 1,000 updates a
// second.
func (s *site) heat(ctx context.Context, t *testing.T, writes *atomic.Int64) {
	tick := time.NewTicker(hotWriters * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := s.db.Exec("UPDATE app.hot SET v = ?, n = ? WHERE id = 1", fmt.Sprintf("%s %d", s.name, n), n)
		if err != nil && !contention(err) {
			t.Errorf("on %s: %v", s.name, err)
			return
		}
		if err == nil {
			writes.Add(1)
		}
	}
}

// watchHotRow asks for the status and for the journal until the context ends, and returns the greatest lag and the longest
// time that listing took.
func (c *cluster) watchHotRow(ctx context.Context, t *testing.T) (lag float64, list time.Duration) {
	t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return lag, list
		case <-tick.C:
		}
		if s, err := c.status(); err == nil {
			for _, l := range s.Links {
				if l.LagSeconds != nil {
					lag = max(lag, *l.LagSeconds)
				}
			}
		}
		began := time.Now()
		out, err := c.output("conflicts", "list", "--table", "app.hot", "--json")
		list = max(list, time.Since(began))
		if err != nil {
			t.Errorf("conflicts list: %v", err)
			continue
		}
		var entries []conflictEntry
		if err := json.Unmarshal([]byte(out), &entries); err != nil {
			t.Errorf("%v in %s", err, out)
		}
	}
}
