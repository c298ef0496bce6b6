package canal_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"replicator/change"
	"replicator/sandbox"
)

func TestLargeTransactionIsSpooled(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		table := makeTable(t, s, db)
		start := s.start(t)
		const rows = 200_000
		s.exec(t, "BEGIN", fmt.Sprintf("INSERT INTO %s SELECT a.seq*1000+b.seq, REPEAT('y',200) FROM (%s) a, (%s) b", table,
			numbers(rows/1000), numbers(1000)), "COMMIT")
		o := s.options(t, db)
		peak := peakHeap(t)
		txs := local(s.mustRead(t, o, start))
		got := peak()
		t.Logf("the heap took up to %.1f MB", float64(got)/(1<<20))
		if got > 48<<20 {
			t.Errorf("reading took %d MB of memory", got>>20)
		}
		if len(txs) != 1 || !txs[0].Spooled || txs[0].Rows != rows {
			t.Fatalf("got %d transactions: %+v", len(txs), txs)
		}
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				keys := map[change.Key]bool{}
				err := txs[0].Body.Each(func(ev *change.RowsEvent) error {
					for _, r := range ev.Rows {
						if len(ev.After(r)) < 200 {
							return fmt.Errorf("an image of %d bytes", len(ev.After(r)))
						}
						keys[r.Key] = true
					}
					return nil
				})
				if err != nil || len(keys) != rows {
					t.Errorf("read %d different rows: %v", len(keys), err)
				}
			})
		}
		readers.Wait()
	})
}

// A compressed transaction is read event by event too.
func TestLargeCompressedTransactionIsSpooled(t *testing.T) {
	on(t, sandbox.MySQL97, func(t *testing.T, s *source, db string) {
		table := makeTable(t, s, db)
		start := s.start(t)
		const rows = 200_000
		s.exec(t, "SET SESSION binlog_transaction_compression=ON", "BEGIN", fmt.Sprintf(
			"INSERT INTO %s SELECT a.seq*1000+b.seq, REPEAT('y',200) FROM (%s) a, (%s) b", table, numbers(rows/1000), numbers(1000)),
			"COMMIT")
		peak := peakHeap(t)
		txs := local(s.mustRead(t, s.options(t, db), start))
		if got := peak(); got > 64<<20 {
			t.Errorf("reading took %d MB of memory", got>>20)
		}
		if len(txs) != 1 || !txs[0].Spooled || txs[0].Rows != rows || txs[0].Bytes < rows*200 {
			t.Fatalf("got %d transactions: %+v", len(txs), txs)
		}
		replayable(t, txs[0])
	})
}

// peakHeap watches the memory that the heap takes until the returned function is called.
func peakHeap(tb testing.TB) func() uint64 {
	tb.Helper()
	runtime.GC()
	done, result := make(chan struct{}), make(chan uint64)
	go func() {
		var peak uint64
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-tick.C:
			case <-done:
				result <- peak
				return
			}
		}
	}()
	return func() uint64 {
		close(done)
		return <-result
	}
}
