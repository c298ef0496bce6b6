package clone

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/dml"
	"replicator/sandbox"
	"replicator/server"
)

// cpu is the processor time of this process, without that of the servers.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchRows is how many rows the table has: REPLICATOR_BENCH_ROWS.
func benchRows(b *testing.B) int {
	b.Helper()
	rows, err := strconv.Atoi(os.Getenv("REPLICATOR_BENCH_ROWS"))
	if err != nil {
		return 1 << 16
	}
	return rows
}

// BenchmarkCopy copies a table like those of sysbench, then finds it equal.
func BenchmarkCopy(b *testing.B) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		b.Run(string(flavor), func(b *testing.B) {
			rows := benchRows(b)
			r := newRig(b, flavor, flavor)
			exec(b, r.hosts[0], "CREATE DATABASE sb", `CREATE TABLE sb.t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL DEFAULT 0,
 c CHAR(120) NOT NULL DEFAULT '', pad CHAR(60) NOT NULL DEFAULT '', KEY k (k))`, "INSERT INTO sb.t VALUES (1, 4711, '', '')")
			for n := 1; n < rows; n *= 2 {
				exec(b, r.hosts[0], fmt.Sprintf(`INSERT INTO sb.t SELECT id + %d, 1 + FLOOR(RAND() * %d), CONCAT_WS('-', SHA2(id, 224), SHA2(id + 1, 224)),
 LEFT(SHA2(RAND(), 256), 59) FROM sb.t LIMIT %d`, n, rows, rows-n))
			}
			exec(b, r.hosts[0], "ANALYZE TABLE sb.t")
			for _, workers := range []int{1, 2, 4, 8} {
				b.Run(fmt.Sprintf("%d", workers), func(b *testing.B) {
					for b.Loop() {
						b.StopTimer()
						exec(b, r.hosts[1], "DROP DATABASE IF EXISTS sb")
						o := r.options(b, "sb")
						r.sessions = workers
						began := cpu(b)
						b.StartTimer()
						report := r.copy(b, o)
						require.EqualValues(b, rows, report.Rows)
						b.ReportMetric(float64(cpu(b)-began)/float64(rows), "cpu-ns/row")
					}
					b.ReportMetric(float64(b.N*rows)/b.Elapsed().Seconds(), "rows/s")
				})
			}
			b.Run("same", func(b *testing.B) {
				o := r.options(b, "sb")
				o.Replace, r.sessions = true, 2
				for b.Loop() {
					require.EqualValues(b, rows, r.copy(b, o).Same)
				}
				b.ReportMetric(float64(b.N*rows)/b.Elapsed().Seconds(), "rows/s")
			})
			b.Run("read", func(b *testing.B) { benchRead(b, r, rows) })
		})
	}
}

// benchRead reads all rows and makes statements of them, which nobody executes.
func benchRead(b *testing.B, r *rig, rows int) {
	table, err := server.OneTable(b.Context(), r.sides[0].DB, change.TableName{Database: "sb", Table: "t"})
	require.NoError(b, err)
	plan, err := dml.NewPlan(dml.TableOf(table), table, false)
	require.NoError(b, err)
	copier, err := dml.NewCopier(plan, plan)
	require.NoError(b, err)
	query, err := copier.Select(nil, nil)
	require.NoError(b, err)
	conn, err := r.sides[0].DB.Conn(b.Context())
	require.NoError(b, err)
	defer discard(conn)
	require.NoError(b, execAll(b.Context(), conn, "SET NAMES utf8mb4", dml.RawResults))
	began := cpu(b)
	n := 0
	for b.Loop() {
		require.NoError(b, open(b.Context(), conn, query, false, func(result driver.Rows) error {
			row := make([]driver.Value, len(result.Columns()))
			var s dml.Statement
			copier.Begin(&s, false)
			for {
				if err := result.Next(row); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := copier.Append(&s, row); err != nil {
					return err
				}
				if n++; len(s.Text) > statementBytes {
					copier.Begin(&s, false)
				}
			}
		}))
	}
	require.Equal(b, b.N*rows, n)
	b.ReportMetric(float64(cpu(b)-began)/float64(n), "cpu-ns/row")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}
