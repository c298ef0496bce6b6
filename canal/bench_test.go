package canal

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"replicator/change"
	"replicator/sandbox"
	"replicator/wire"
)

const (
	benchTransactions = 20_000
	benchRows         = 10_000
	benchWriters      = 8
)

// writeOnly fills a table like those of sysbench, and commits transactions like its oltp_write_only: two updates, a
// delete and an insert each.
func writeOnly(b *testing.B, s *sandbox.Server) {
	b.Helper()
	ctx := b.Context()
	exec := func(query string) {
		if _, err := s.DB().ExecContext(ctx, query); err != nil {
			b.Fatalf("%.80s: %v", query, err)
		}
	}
	exec("CREATE DATABASE bench")
	exec(`CREATE TABLE bench.sbtest1 (id INT NOT NULL AUTO_INCREMENT, k INT NOT NULL DEFAULT 0, c CHAR(120) NOT NULL DEFAULT '',
 pad CHAR(60) NOT NULL DEFAULT '', PRIMARY KEY (id), KEY k_1 (k))`)
	exec(`INSERT INTO bench.sbtest1 (k, c, pad) WITH RECURSIVE n AS (SELECT 1 AS a UNION ALL SELECT a+1 FROM n WHERE a<1000)
 SELECT a, REPEAT('c',120), REPEAT('p',60) FROM n`)
	for range benchRows/1000 - 1 {
		exec("INSERT INTO bench.sbtest1 (k, c, pad) SELECT k, c, pad FROM bench.sbtest1 LIMIT 1000")
	}
	var writers sync.WaitGroup
	for w := range benchWriters {
		writers.Go(func() {
			for i := range benchTransactions / benchWriters {
				id := w*(benchRows/benchWriters) + i%(benchRows/benchWriters) + 1
				_, err := s.DB().ExecContext(ctx, fmt.Sprintf(`BEGIN; UPDATE bench.sbtest1 SET k=k+1 WHERE id=%d;
UPDATE bench.sbtest1 SET c=REPEAT(CHAR(97+%d %% 26),120) WHERE id=%[1]d; DELETE FROM bench.sbtest1 WHERE id=%[1]d;
INSERT INTO bench.sbtest1 VALUES (%[1]d,%[2]d,REPEAT('d',120),REPEAT('q',60)); COMMIT`, id, i))
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
}

// counter counts transactions and ends the reader at the n-th local one.
type counter struct{ n int }

var errEnough = errors.New("enough")

func (c *counter) transaction(tx *change.Transaction, _ int64) error {
	if tx.Kind == change.Local {
		c.n--
	}
	if c.n <= 0 {
		return errEnough
	}
	return nil
}

func (c *counter) reached(change.FilePosition) {}

// BenchmarkTailer measures what the tailer takes of one core, and the whole way from a server on the same machine.
func BenchmarkTailer(b *testing.B) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		s, err := sandbox.Start(b.Context(), sandbox.Options{Flavor: flavor})
		if err != nil {
			b.Fatal(err)
		}
		o := Options{
			Name: "bench", Address: s.Addr(), User: "root", Password: func() (string, error) { return s.Password(), nil },
			Flavor: change.MySQL, Match: func(n change.TableName) bool { return n.Database == "bench" }, StateDir: b.TempDir(),
		}
		query := "SELECT @@global.gtid_executed"
		if flavor.MariaDB() {
			o.Flavor, query = change.MariaDB, "SELECT @@global.gtid_binlog_pos"
		}
		o = o.withDefaults()
		var text string
		if err := s.DB().QueryRowContext(b.Context(), query).Scan(&text); err != nil {
			b.Fatal(err)
		}
		start, err := change.ParseGTIDSet(o.Flavor, text)
		if err != nil {
			b.Fatal(err)
		}
		writeOnly(b, s)
		b.Run(string(flavor)+"/server", func(b *testing.B) { benchServer(b, o, start) })
		b.Run(string(flavor)+"/core", func(b *testing.B) { benchCore(b, o, start) })
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchServer(b *testing.B, o Options, start change.GTIDSet) {
	b.ReportAllocs()
	bytes, before := 0, cpu(b)
	for b.Loop() {
		t := newTailer(&o, newCatalog(o.Match, o.Times), change.Clock{}, &counter{n: benchTransactions})
		err := follow(b.Context(), &o, randomReplicaID(), start, t, func(_, n int) { bytes += n }, func(wire.Algorithm) {})
		t.close()
		if !errors.Is(err, errEnough) {
			b.Fatal(err)
		}
	}
	report(b, bytes, cpu(b)-before)
}

func benchCore(b *testing.B, o Options, start change.GTIDSet) {
	events := capture(b, o, start)
	b.ReportAllocs()
	bytes, before := 0, cpu(b)
	for b.Loop() {
		t := newTailer(&o, newCatalog(o.Match, o.Times), change.Clock{}, &counter{n: benchTransactions})
		var err error
		for _, e := range events {
			bytes += len(e)
			if err = t.read(b.Context(), e); err != nil {
				break
			}
		}
		t.close()
		if !errors.Is(err, errEnough) {
			b.Fatal(err)
		}
	}
	report(b, bytes, cpu(b)-before)
}

// cpu is the time that all threads of this process have run.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func report(b *testing.B, bytes int, used time.Duration) {
	b.Helper()
	seconds := b.Elapsed().Seconds()
	b.ReportMetric(float64(used.Nanoseconds())/float64(benchTransactions*b.N), "cpu-ns/tx")
	b.ReportMetric(float64(benchTransactions*b.N)/seconds, "tx/s")
	b.ReportMetric(float64(bytes)/1e6/seconds, "MB/s")
}

// capture reads the events that a dump sends, until it falls silent.
func capture(b *testing.B, o Options, start change.GTIDSet) []event {
	b.Helper()
	d := &dump{opts: &o}
	defer d.hangUp()
	s, err := d.start(b.Context(), randomReplicaID(), start)
	if err != nil {
		b.Fatal(err)
	}
	var events []event
	for commits := 0; commits < benchTransactions; {
		e, err := s.take()
		if err == nil && e == nil {
			err = s.fill()
		}
		if err != nil {
			b.Fatal(err)
		}
		if e == nil {
			continue
		}
		if e.kind() == 16 { // XID
			commits++
		}
		events = append(events, slices.Clone(e))
	}
	return events
}
