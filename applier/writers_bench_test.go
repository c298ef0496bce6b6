package applier

import (
	"fmt"
	"testing"

	"replicator/image/imagetest"
	"replicator/sandbox"
)

// BenchmarkWriters carries out 20,000 inserts, updates and deletes of sysbench's rows, each kind in one transaction, and
// updates that were a statement each on the source.
func BenchmarkWriters(b *testing.B) {
	const rows, singles = 20000, 2800
	for _, flavor := range sandbox.Flavors {
		s := sandbox.StartTest(b, sandbox.Options{Flavor: flavor})
		limit := "SET SESSION cte_max_recursion_depth = 1000000"
		if flavor.MariaDB() {
			limit = "SET SESSION max_recursive_iterations = 1000000"
		}
		create := []string{
			"CREATE DATABASE IF NOT EXISTS w", "DROP TABLE IF EXISTS w.s",
			"CREATE TABLE w.s (id INT PRIMARY KEY, k INT, c CHAR(120), pad CHAR(60), KEY (k)) CHARACTER SET utf8mb4",
		}
		imagetest.Exec(b, s, create...)
		kinds := []string{"insert", "update", "single", "delete"}
		var logs []imagetest.Log
		for _, change := range []string{
			fmt.Sprintf("INSERT INTO w.s WITH RECURSIVE n AS (SELECT 0 i UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i, i, REPEAT('c', 119), REPEAT('p', 59) FROM n", rows-1),
			"UPDATE w.s SET k = k + 1", "", "DELETE FROM w.s",
		} {
			if change == "" {
				var single []string
				for i := range singles {
					single = append(single, fmt.Sprintf("UPDATE w.s SET k = k + 1 WHERE id = %d", i*7))
				}
				logs = append(logs, imagetest.Capture(b, s, func() { imagetest.Exec(b, s, single...) }))
				continue
			}
			logs = append(logs, imagetest.Capture(b, s, func() { imagetest.Exec(b, s, limit, change) }))
		}
		for _, path := range []string{Replay, Portable} {
			imagetest.Exec(b, s, create...)
			for i, log := range logs {
				b.Run(fmt.Sprintf("%s/%s/%s", flavor, path, kinds[i]), func(b *testing.B) {
					if b.N > 1 {
						b.Skip("once is enough")
					}
					if err := apply(b, s, log, path, false); err != nil {
						b.Fatal(err)
					}
					n := 0
					for _, ev := range log.Events {
						n += len(ev.Rows)
					}
					b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
				})
			}
		}
	}
}
