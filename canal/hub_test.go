package canal_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"replicator/canal"
	"replicator/change"
	"replicator/fault"
	"replicator/sandbox"
)

// fill commits n transactions of one row of size bytes each, with ids from first on.
func (s *source) fill(tb testing.TB, table string, first, n, size int) {
	tb.Helper()
	s.session(tb, func(run func(string)) {
		for i := range n {
			run(fmt.Sprintf("INSERT INTO %s VALUES (%d, REPEAT('x',%d))", table, first+i, size))
		}
	})
}

func makeTable(tb testing.TB, s *source, db string) string {
	tb.Helper()
	s.exec(tb, "CREATE TABLE "+db+".t (id INT PRIMARY KEY, v LONGTEXT)")
	return db + ".t"
}

// sequence takes n local transactions and fails unless they are in binlog order, without gap or repeat.
type sequence struct {
	sub  *canal.Subscription
	last change.GTID
	seen map[change.GTID]bool
}

func (q *sequence) take(tb testing.TB, n int) {
	tb.Helper()
	if q.seen == nil {
		q.seen = map[change.GTID]bool{}
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for n > 0 {
		tx, err := q.sub.Next(ctx)
		if f, ok := fault.As(err); ok && f.Class.Transient() {
			continue
		}
		if err != nil {
			tb.Fatal(err)
		}
		if q.seen[tx.GTID] {
			tb.Fatalf("transaction %s came twice", tx.GTID)
		}
		if q.last.Number != 0 && tx.GTID.Number != q.last.Number+1 {
			tb.Fatalf("transaction %s came behind %s", tx.GTID, q.last)
		}
		q.seen[tx.GTID], q.last = true, tx.GTID
		if tx.Kind == change.Local {
			n--
		}
	}
}

func TestSlowSubscriptionFallsOffAndRejoins(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		leakCheck(t)
		table := makeTable(t, s, db)
		start := s.start(t)
		o := s.options(t, db)
		o.RingBytes = 64 << 10
		h := runHub(t, o, func() canal.Start { return start })
		slow, fast := sequence{sub: h.Subscribe(start)}, sequence{sub: h.Subscribe(start)}
		defer slow.sub.Close()
		defer fast.sub.Close()
		s.fill(t, table, 1, 5, 1000)
		h.await(t, s.end(t)) // who asks long before the shared reader is there reads on its own
		slow.take(t, 5)
		fast.take(t, 5)
		if p := h.Stats().Private; p != 0 {
			t.Fatalf("%d subscriptions read on their own, want none", p)
		}
		for i := range 10 {
			s.fill(t, table, 100+i*50, 50, 2000)
			h.await(t, s.end(t))
			fast.take(t, 50)
		}
		if got := h.Stats(); got.RingBytes > 64<<10 || got.Ring == 0 {
			t.Errorf("the ring holds %d bytes in %d transactions", got.RingBytes, got.Ring)
		}
		slow.take(t, 300)
		if p := h.Stats().Private; p != 1 {
			t.Errorf("%d subscriptions read on their own, want the slow one", p)
		}
		slow.take(t, 200)
		s.fill(t, table, 1000, 5, 10)
		h.await(t, s.end(t))
		slow.take(t, 5)
		if p := h.Stats().Private; p != 0 {
			t.Errorf("%d subscriptions read on their own once all have caught up", p)
		}
		fast.take(t, 5)
	})
}

func TestSubscriptionSurvivesTheSharedReader(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		leakCheck(t)
		table := makeTable(t, s, db)
		start := s.start(t)
		proxy := sandbox.ProxyTest(t, s.Addr())
		o := s.options(t, db)
		o.Address = proxy.Addr()
		o.Grace = 200 * time.Millisecond
		// Every Run begins at the same early start: the subscription must not see again what it has had.
		h := runHub(t, o, func() canal.Start { return start })
		q := sequence{sub: h.Subscribe(start)}
		defer q.sub.Close()
		for i := range 4 {
			s.fill(t, table, 1+i*100, 20, 100)
			h.await(t, s.end(t)) // so that it is the ring that gives
			q.take(t, 10)
			if err := proxy.Cut(); err != nil {
				t.Fatal(err)
			}
			s.fill(t, table, 50+i*100, 20, 100)
			<-h.errs
			q.take(t, 10) // what was in the ring
			if err := proxy.Heal(); err != nil {
				t.Fatal(err)
			}
			q.take(t, 20)
		}
	})
}

func TestKilledDumpIsTransient(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		table := makeTable(t, s, db)
		start := s.start(t)
		h := runHub(t, s.options(t, db), func() canal.Start { return start })
		q := sequence{sub: h.Subscribe(start)}
		defer q.sub.Close()
		s.fill(t, table, 1, 10, 10)
		q.take(t, 10)
		id := s.value(t, "SELECT MAX(ID) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'")
		failed := make(chan error, 1)
		go func() { failed <- <-h.errs }() // an error is there for a moment only
		s.exec(t, "KILL "+id)
		s.fill(t, table, 100, 10, 10)
		err := <-failed
		if f, ok := fault.As(err); !ok || !f.Class.Transient() {
			t.Errorf("a killed dump gives %v", err)
		}
		q.take(t, 10)
	})
}

func TestRestartedServerIsReadOn(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		table := makeTable(t, s, db)
		start := s.start(t)
		h := runHub(t, s.options(t, db), func() canal.Start { return start })
		q := sequence{sub: h.Subscribe(start)}
		defer q.sub.Close()
		s.fill(t, table, 1, 10, 10)
		q.take(t, 5)
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.fill(t, table, 100, 10, 10)
		q.take(t, 15)
		h.await(t, s.end(t))
	})
}

func TestHalfOpenConnectionIsNoticed(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		leakCheck(t)
		proxy := sandbox.ProxyTest(t, s.Addr())
		start := s.start(t)
		o := s.options(t, db)
		o.Address, o.HeartbeatPeriod, o.ReadTimeout = proxy.Addr(), 200*time.Millisecond, time.Second
		h := runHub(t, o, func() canal.Start { return start })
		h.await(t, s.end(t))
		begun := time.Now()
		if err := proxy.BlackHole(); err != nil {
			t.Fatal(err)
		}
		err := <-h.errs
		if f, ok := fault.As(err); !ok || f.Class != fault.Network {
			t.Errorf("a black hole gives %v", err)
		}
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("it was noticed after %s", took)
		}
	})
}

func TestStreamFaults(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		leakCheck(t)
		user := "reader_" + db
		s.exec(t, "CREATE USER "+user+"@'%' IDENTIFIED BY 'right'")
		table := makeTable(t, s, db)
		start := s.start(t)
		s.fill(t, table, 1, 1, 10)
		other := change.MariaDB
		if s.flavor == change.MariaDB {
			other = change.MySQL
		}
		for _, c := range []struct {
			name  string
			class fault.Class
			set   func(*canal.Options, *canal.Start)
		}{
			{"wrong password", fault.Login, func(o *canal.Options, _ *canal.Start) {
				o.User, o.Password = user, func() (string, error) { return "wrong", nil }
			}},
			{"no privilege", fault.Privilege, func(o *canal.Options, _ *canal.Start) {
				o.User, o.Password = user, func() (string, error) { return "right", nil }
			}},
			{"wrong flavor", fault.Configuration, func(o *canal.Options, s *canal.Start) {
				o.Flavor, s.Position = other, change.NewGTIDSet(other)
			}},
			{"a server that lost transactions", fault.Purged, func(_ *canal.Options, at *canal.Start) {
				last := local(s.mustRead(t, s.options(t, db), start))[0].GTID
				last.Number += 1000
				at.Position.Add(last)
			}},
			{"unreachable", fault.Network, func(o *canal.Options, _ *canal.Start) { o.Address = "127.0.0.1:1" }},
		} {
			t.Run(c.name, func(t *testing.T) {
				o, at := s.options(t, db), canal.Start{Position: start.Position.Clone()}
				o.Grace = 10 * time.Millisecond
				c.set(&o, &at)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				err := canal.NewHub(o).Run(ctx, at, nil)
				if f, ok := fault.As(err); !ok || f.Class != c.class || f.Remedy == "" {
					t.Errorf("got %v", err)
				}
				sub := canal.NewHub(o).Subscribe(at)
				defer sub.Close()
				if _, err := sub.Next(ctx); c.class != "" {
					if f, ok := fault.As(err); !ok || f.Class != c.class {
						t.Errorf("a subscription got %v", err)
					}
				}
			})
		}
	})
}

// The reader account needs no more than this.
func TestLeastPrivilegedReader(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		user := "least_" + db
		s.exec(t, "CREATE USER "+user+"@'%' IDENTIFIED BY 'right'", "GRANT REPLICATION SLAVE ON *.* TO "+user+"@'%'")
		table := makeTable(t, s, db)
		start := s.start(t)
		s.fill(t, table, 1, 1, 10)
		o := s.options(t, db)
		o.User, o.Password = user, func() (string, error) { return "right", nil }
		if got := len(local(s.mustRead(t, o, start))); got != 1 {
			t.Errorf("read %d transactions", got)
		}
	})
}

func TestPurgedBinlogIsFinal(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		table := makeTable(t, s, db)
		start := s.start(t)
		s.fill(t, table, 1, 3, 10)
		s.exec(t, "FLUSH BINARY LOGS")
		s.fill(t, table, 10, 3, 10)
		deadline := time.Now().Add(patience)
		for s.value(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'") != "0" ||
			s.firstLog(t) != s.end(t).File {
			if time.Now().After(deadline) {
				t.Fatal("the server does not purge its binlog")
			}
			s.exec(t, "FLUSH BINARY LOGS") // wakes dumps whose reader is gone
			s.exec(t, "PURGE BINARY LOGS TO '"+s.end(t).File+"'")
		}
		_, err := s.readTo(t, s.options(t, db), start)
		if f, ok := fault.As(err); !ok || f.Class != fault.Purged || f.Class.Transient() {
			t.Errorf("got %v", err)
		}
	})
}

func (s *source) firstLog(tb testing.TB) string {
	tb.Helper()
	rows, err := s.db.QueryContext(tb.Context(), "SHOW BINARY LOGS")
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	columns, _ := rows.Columns()
	into := make([]any, len(columns))
	for i := range into {
		into[i] = new(sql.RawBytes)
	}
	var first string
	into[0] = &first
	if !rows.Next() {
		tb.Fatalf("the server has no binlog: %v", rows.Err())
	}
	if err := rows.Scan(into...); err != nil {
		tb.Fatal(err)
	}
	return first
}

// The barrier of an applier waits for the place that the server names: the reader must come to it without a transaction.
func TestReachesTheEndOfAQuietBinlog(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		makeTable(t, s, db)
		for range 3 {
			start := s.start(t)
			if txs := s.mustRead(t, s.options(t, db), start); len(txs) != 0 {
				t.Errorf("read %d transactions where there are none", len(txs))
			}
			s.exec(t, "FLUSH BINARY LOGS")
		}
	})
}

func TestSkewedServerClockStops(t *testing.T) {
	on(t, sandbox.MariaDB118, func(t *testing.T, s *source, db string) {
		table := makeTable(t, s, db)
		start := s.start(t)
		s.exec(t, "SET TIMESTAMP=UNIX_TIMESTAMP()+3600", "INSERT INTO "+table+" VALUES (1,'x')")
		o := s.options(t, db)
		o.MaxClockSkew = 10 * time.Second
		txs, err := s.readTo(t, o, start)
		if f, ok := fault.As(err); !ok || f.Class != fault.ClockSkew || len(txs) != 0 {
			t.Errorf("read %d transactions, then %v", len(txs), err)
		}
	})
}

func TestStopsPromptly(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		leakCheck(t)
		start := s.start(t)
		h := runHub(t, s.options(t, db), func() canal.Start { return start })
		sub := h.Subscribe(start)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := sub.Next(ctx)
			failed <- err
		}()
		h.await(t, s.end(t))
		begun := time.Now()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("Next returned %v", err)
		}
		sub.Close()
		h.stop()
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("stopping took %s", took)
		}
	})
}
