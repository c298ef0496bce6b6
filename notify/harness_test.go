package notify

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/image"
	"replicator/journal"
	"replicator/notify/notifytest"
	"replicator/sandbox"
	"replicator/server"
)

// testPace is fast, but leaves room between its steps: a poll, a notice a second, a lease of two.
var testPace = Pace{Poll: 20 * time.Millisecond, Every: time.Second, Lease: 2 * time.Second, Rest: 100 * time.Millisecond}

const patienceOfTests = 60 * time.Second

// world is three real servers of three flavors: east, west and north.
type world struct {
	hosts   []*sandbox.Server
	servers []Server
	next    atomic.Int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{hosts: make([]*sandbox.Server, 3), servers: make([]Server, 3)}
	var g errgroup.Group
	for i, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011} {
		g.Go(func() (err error) {
			w.hosts[i], err = sandbox.Start(t.Context(), sandbox.Options{Flavor: flavor})
			return err
		})
	}
	require.NoError(t, g.Wait())
	for i, name := range []string{"east", "west", "north"} {
		s := w.hosts[i]
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		opened, err := server.Open(&config.Server{
			Name: name, Endpoints: []string{s.Addr()}, TLS: config.TLS{Mode: config.TLSPreferred},
			Account: config.Account{User: "root", Secret: config.NewSecret(s.Password())},
		}, server.Options{Timeout: 2 * time.Second})
		require.NoError(t, err)
		t.Cleanup(func() { _ = opened.Close() })
		conn, err := opened.DB().Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, checkpoint.Migrate(t.Context(), conn))
		conn.Close()
		w.servers[i] = Server{Name: name, ID: change.ServerID{byte(i + 1)}, DB: opened.DB(), Contact: []string{"dba-" + name + "@example.org"}}
		w.exec(t, i, "CREATE DATABASE personnel", "CREATE TABLE personnel.users (id INT PRIMARY KEY, email VARCHAR(200))",
			"INSERT INTO personnel.users VALUES (7, 'Ann@example.org'), (8, 'bob@example.org'), (9, NULL)")
	}
	return w
}

const east, west, north = 0, 1, 2

func (w *world) db(i int) *sql.DB { return w.servers[i].DB }

func (w *world) exec(t *testing.T, i int, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := w.db(i).ExecContext(t.Context(), s)
		require.NoError(t, err, s)
	}
}

// fresh empties the journals and notices.
func (w *world) fresh(t *testing.T) {
	t.Helper()
	for i := range w.servers {
		w.exec(t, i, "DELETE FROM replicator.conflict", "DELETE FROM replicator.notice", "DELETE FROM replicator.verification")
	}
}

func (w *world) count(t *testing.T, i int, where string) int {
	t.Helper()
	var n int
	require.NoError(t, w.db(i).QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+where).Scan(&n))
	return n
}

var stock = &change.Table{
	Name: change.TableName{Database: "shop", Table: "stock"},
	Columns: []change.Column{
		{Name: "id", Type: 3},
		{Name: "quantity", Type: 3},
		{Name: "note", Type: 15, Meta: 4000, Collation: 45, Nullable: true},
		{Name: "ssn", Type: 15, Meta: 400, Collation: 45, Nullable: true},
	},
	PrimaryKey: []change.KeyPart{{Column: 0}},
}

func stockRow(t *change.Table, id, quantity int64, note string) *journal.Row {
	return &journal.Row{Table: t, Values: []image.Value{
		{Kind: image.Int, Int: id},
		{Kind: image.Int, Int: quantity},
		{Kind: image.Text, Bytes: []byte(note)},
		{Kind: image.Text, Bytes: fmt.Appendf(nil, "secret-%d", quantity)},
	}}
}

// conflict is one that west's change lost to east's; nothing of it is in a journal yet.
func (w *world) conflict(id int64) *journal.Entry {
	n := w.next.Add(1)
	at := change.TimeOf(time.Now()) + change.Time(n)
	return &journal.Entry{
		Table: stock.Name, Key: change.Key{byte(id), byte(id >> 8), byte(id >> 16)}, KeyRow: stockRow(stock, id, 0, ""),
		Kind: journal.UpdateOriginDiffers, Policy: "last-writer-wins",
		Winner: journal.Side{Version: change.Version{Time: at + 1, Origin: w.servers[east].ID}, User: "7", Comment: "restocked", Row: stockRow(stock, id, 5, "new")},
		Loser:  journal.Side{Version: change.Version{Time: at, Origin: w.servers[west].ID}, User: "8", Comment: "sold two", Row: stockRow(stock, id, 3, "old")},
	}
}

func (w *world) journal(t *testing.T, i int, entries ...*journal.Entry) {
	t.Helper()
	require.NoError(t, journal.Write(t.Context(), w.db(i), journal.Limits{MaxValue: 1 << 20, MaxPacket: 16 << 20}, entries))
}

// configuration is that of a mesh which tells by mail, with more from a YAML text below the top level.
func (w *world) configuration(t *testing.T, office *notifytest.Office, more string) *config.Config {
	t.Helper()
	text := `
mesh: shop
servers:
  east: {endpoints: [east], user: r, password: x}
  west: {endpoints: [west], user: r, password: x}
` + more
	c, err := config.Parse([]byte(text), os.LookupEnv)
	require.NoError(t, err)
	if office != nil {
		c.Notify.SMTP = office.Settings()
	}
	return c
}

const withUsers = `
conflict:
  change_log: {table: personnel.change_log}
  users: {query: "SELECT email FROM personnel.users WHERE id = ?"}
`

// running is a desk in the place of a process.
type running struct {
	*Desk
	logs *observer.ObservedLogs
	stop context.CancelFunc
	done chan struct{}
}

type option func(*Options)

// at has f called at a place, once.
func at(p place, f func()) option {
	var once sync.Once
	return func(o *Options) {
		o.Reached = func(here place) {
			if here == p {
				once.Do(f)
			}
		}
	}
}

// run starts a desk that serves some of the servers.
func (w *world) run(t *testing.T, c *config.Config, owned []int, options ...option) *running {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	o := Options{Config: c, Servers: func() []Server { return w.servers }, Owner: checkpoint.NewOwner(), Log: zap.New(core), Pace: testPace}
	for _, f := range options {
		f(&o)
	}
	d, err := New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Desk: d, logs: logs, stop: cancel, done: make(chan struct{})}
	var wg sync.WaitGroup
	for _, i := range owned {
		wg.Go(func() { _ = d.Serve(ctx, w.servers[i].Name) })
	}
	go func() {
		defer close(r.done)
		d.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
		wg.Wait()
		if t.Failed() {
			for _, e := range logs.All() {
				t.Log(e.Level, e.Message, e.ContextMap())
			}
		}
	})
	return r
}

// eventually waits for something to become true.
func eventually(t *testing.T, f func() bool, what string) {
	t.Helper()
	require.Eventually(t, f, patienceOfTests, 20*time.Millisecond, what)
}

// settles waits until everything in the journals of some servers has been told.
func (w *world) settles(t *testing.T, servers ...int) {
	t.Helper()
	eventually(t, func() bool {
		for _, i := range servers {
			if w.count(t, i, "replicator.conflict WHERE notified = 0") > 0 {
				return false
			}
		}
		return true
	}, "everybody is told")
}

// stays proves that something remains as it is for a few polls and mails.
func stays(t *testing.T, f func() bool, what string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(3 * testPace.Every); ; {
		require.True(t, f(), what)
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}
