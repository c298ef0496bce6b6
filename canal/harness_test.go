package canal_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"replicator/canal"
	"replicator/change"
	"replicator/checkpoint"
	"replicator/sandbox"
)

// Servers are started once for all tests of the package; each test works in a database of its own, from the position
// where it began.
var sources = map[sandbox.Flavor]func() (*source, error){}

func TestMain(m *testing.M) {
	var mu sync.Mutex
	var started []*sandbox.Server
	for _, f := range sandbox.Flavors {
		sources[f] = sync.OnceValues(func() (*source, error) {
			s, err := startSource(f)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				started = append(started, s.Server)
			}
			return s, err
		})
	}
	code := m.Run()
	for _, s := range started {
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// source is a server whose binlog is read.
type source struct {
	*sandbox.Server
	db       *sql.DB
	flavor   change.Flavor
	identity change.ServerID
}

func startSource(f sandbox.Flavor) (*source, error) {
	ctx := context.Background()
	server, err := sandbox.Start(ctx, sandbox.Options{Flavor: f, Name: "canal-" + string(f)})
	if err != nil {
		return nil, err
	}
	s := &source{Server: server, db: server.DB(), flavor: change.MySQL, identity: change.NewServerID()}
	if f.MariaDB() {
		s.flavor = change.MariaDB
	}
	conn, err := s.db.Conn(ctx)
	if err == nil {
		err = errors.Join(checkpoint.Migrate(ctx, conn), conn.Close())
	}
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return s, nil
}

// onEach runs a test on every flavor, with an empty database of the test's name.
func onEach(t *testing.T, f func(t *testing.T, s *source, db string)) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) { on(t, flavor, f) })
	}
}

func on(t testing.TB, flavor sandbox.Flavor, f func(t *testing.T, s *source, db string)) {
	t.Helper()
	f(t.(*testing.T), sourceOf(t, flavor), database(t, sourceOf(t, flavor)))
}

func sourceOf(tb testing.TB, flavor sandbox.Flavor) *source {
	tb.Helper()
	s, err := sources[flavor]()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

var databases atomic.Int64

func database(tb testing.TB, s *source) string {
	tb.Helper()
	name := fmt.Sprintf("canal_%d", databases.Add(1))
	s.exec(tb, "CREATE DATABASE "+name)
	return name
}

// leakCheck fails the test when goroutines of the reader outlive it.
func leakCheck(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("github.com/go-sql-driver/mysql.(*mysqlConn).startWatcher.func1"),
			goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
	})
}

func (s *source) exec(tb testing.TB, statements ...string) {
	tb.Helper()
	s.session(tb, func(run func(string)) {
		for _, statement := range statements {
			run(statement)
		}
	})
}

// session runs statements on one connection.
func (s *source) session(tb testing.TB, f func(run func(string))) {
	tb.Helper()
	conn, err := s.db.Conn(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	// A session's settings end with it.
	defer func() {
		_ = conn.Raw(func(any) error { return errSpent })
		_ = conn.Close()
	}()
	f(func(statement string) {
		tb.Helper()
		if _, err := conn.ExecContext(tb.Context(), statement); err != nil {
			tb.Fatalf("%.120s: %v", statement, err)
		}
	})
}

var errSpent = driver.ErrBadConn

func (s *source) value(tb testing.TB, query string) string {
	tb.Helper()
	var v sql.NullString
	if err := s.db.QueryRowContext(tb.Context(), query).Scan(&v); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return v.String
}

// position is where the server's binlog ends now.
func (s *source) position(tb testing.TB) change.GTIDSet {
	tb.Helper()
	query := "SELECT @@global.gtid_executed"
	if s.flavor == change.MariaDB {
		query = "SELECT @@global.gtid_binlog_pos"
	}
	p, err := change.ParseGTIDSet(s.flavor, s.value(tb, query))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func (s *source) end(tb testing.TB) change.FilePosition {
	tb.Helper()
	query := "SHOW BINARY LOG STATUS"
	if s.flavor == change.MariaDB {
		query = "SHOW MASTER STATUS"
	}
	rows, err := s.db.QueryContext(tb.Context(), query)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	columns, _ := rows.Columns()
	var p change.FilePosition
	into := make([]any, len(columns))
	for i := range into {
		into[i] = new(sql.RawBytes)
	}
	into[0], into[1] = &p.File, &p.Offset
	if !rows.Next() {
		tb.Fatalf("the server says nothing of its binlog: %v", rows.Err())
	}
	if err := rows.Scan(into...); err != nil {
		tb.Fatal(err)
	}
	return p
}

func (s *source) start(tb testing.TB) canal.Start {
	return canal.Start{Position: s.position(tb)}
}

func (s *source) options(tb testing.TB, db string) canal.Options {
	return canal.Options{
		Name: s.Name(), Address: s.Addr(), User: "root", Password: func() (string, error) { return s.Password(), nil },
		Flavor: s.flavor, Identity: s.identity, StateDir: tb.TempDir(), Weigher: noWeigher{},
		Match: func(n change.TableName) bool { return n.Database == db && !strings.HasPrefix(n.Table, "skip") },
	}
}

// noWeigher fails: the tables of these tests have keys that need no weights.
type noWeigher struct{}

func (noWeigher) Weights(context.Context, uint16, [][]byte) ([][]byte, error) {
	return nil, errors.New("no key of these tests has a collation")
}

// recorder is a Feed that keeps what it gets.
type recorder struct {
	mu      sync.Mutex
	txs     []*change.Transaction
	reached change.FilePosition
	news    chan struct{}
}

func newRecorder() *recorder { return &recorder{news: make(chan struct{}, 1)} }

func (r *recorder) Transaction(tx *change.Transaction) error {
	r.mu.Lock()
	r.txs = append(r.txs, tx)
	r.mu.Unlock()
	r.tell()
	return nil
}

func (r *recorder) Reached(p change.FilePosition) {
	r.mu.Lock()
	if p.Compare(r.reached) < 0 {
		panic(fmt.Sprintf("the reader went back from %s to %s", r.reached, p))
	}
	r.reached = p
	r.mu.Unlock()
	r.tell()
}

func (r *recorder) tell() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// until waits until done says so.
func (r *recorder) until(ctx context.Context, done func() bool) error {
	for {
		r.mu.Lock()
		ok := done()
		r.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-r.news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// patience is long: the machine may be a slow one, and busy.
const patience = 2 * time.Minute

// readTo runs a hub from start until its feed has reached where the server's binlog ends now, and returns the
// transactions. An error of the hub is returned.
func (s *source) readTo(tb testing.TB, o canal.Options, start canal.Start) ([]*change.Transaction, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	end := s.end(tb)
	feed := newRecorder()
	h := canal.NewHub(o)
	failed := make(chan error, 1)
	go func() {
		err := h.Run(ctx, start, feed)
		cancel()
		failed <- err
	}()
	waited := feed.until(ctx, func() bool { return feed.reached.Compare(end) >= 0 })
	cancel()
	if err := <-failed; waited != nil {
		return feed.txs, err
	}
	return feed.txs, nil
}

func (s *source) mustRead(tb testing.TB, o canal.Options, start canal.Start) []*change.Transaction {
	tb.Helper()
	txs, err := s.readTo(tb, o, start)
	if err != nil {
		tb.Fatal(err)
	}
	return txs
}

// running is a hub that runs in the background, and is run again after every failure.
type running struct {
	*canal.Hub
	feed   *recorder
	errs   chan error // of each Run
	cancel context.CancelFunc
	done   chan struct{}
}

func runHub(tb testing.TB, o canal.Options, start func() canal.Start) *running {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	r := &running{Hub: canal.NewHub(o), feed: newRecorder(), errs: make(chan error), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for ctx.Err() == nil {
			r.feed.mu.Lock()
			r.feed.reached = change.FilePosition{}
			r.feed.mu.Unlock()
			err := r.Run(ctx, start(), r.feed)
			select {
			case r.errs <- err:
			case <-time.After(50 * time.Millisecond): // nobody asks: this is the pause before the next attempt
			}
		}
	}()
	tb.Cleanup(r.stop)
	return r
}

// await waits until the feed has reached p.
func (r *running) await(tb testing.TB, p change.FilePosition) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := r.feed.until(ctx, func() bool { return r.feed.reached.Compare(p) >= 0 }); err != nil {
		tb.Fatalf("wait until the reader has come to %s: %v", p, err)
	}
}

func (r *running) stop() {
	r.cancel()
	<-r.done
}

func next(tb testing.TB, s *canal.Subscription) *change.Transaction {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	tx, err := s.Next(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	return tx
}

// local drops the transactions that change no replicated rows.
func local(txs []*change.Transaction) []*change.Transaction {
	var out []*change.Transaction
	for _, tx := range txs {
		if tx.Kind == change.Local {
			out = append(out, tx)
		}
	}
	return out
}
