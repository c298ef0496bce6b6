package verify

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/sandbox"
	"replicator/server"
)

// pair is two servers between which nothing is replicated: whatever a test makes different stays so.
type pair struct {
	hosts   []*sandbox.Server
	servers []Server
	notes   []string
}

func newPair(t *testing.T, flavors ...sandbox.Flavor) *pair {
	t.Helper()
	p := &pair{}
	for i, flavor := range flavors {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
		p.hosts = append(p.hosts, s)
		name := []string{"east", "west"}[i]
		opened := p.open(t, name, s, "root", s.Password())
		conn, err := opened.Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, checkpoint.Migrate(t.Context(), conn))
		conn.Close()
		info, err := server.Probe(t.Context(), opened)
		require.NoError(t, err)
		p.servers = append(p.servers, Server{Name: name, DB: opened, ID: change.ServerID{byte(i + 1)}, Flavor: info.Flavor, Dialect: server.NewDialect(info)})
		p.exec(t, i, "CREATE DATABASE app")
	}
	return p
}

func (p *pair) open(t *testing.T, name string, s *sandbox.Server, user, password string) *sql.DB {
	t.Helper()
	opened, err := server.Open(&config.Server{
		Name: name, Endpoints: []string{s.Addr()}, TLS: config.TLS{Mode: config.TLSPreferred},
		Account: config.Account{User: user, Secret: config.NewSecret(password)},
	}, server.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = opened.Close() })
	return opened.DB()
}

func (p *pair) exec(t *testing.T, i int, statements ...string) {
	t.Helper()
	for _, q := range statements {
		_, err := p.servers[i].DB.ExecContext(t.Context(), q)
		require.NoError(t, err, q)
	}
}

// fill makes a table of n rows on both servers.
func (p *pair) fill(t *testing.T, table string, n int) {
	t.Helper()
	for i := range p.servers {
		p.exec(t, i, "CREATE OR REPLACE VIEW app.ten AS SELECT 0 i UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9",
			"DROP TABLE IF EXISTS "+table,
			"CREATE TABLE "+table+" (id INT, s VARCHAR(20) COLLATE utf8mb4_general_ci, n INT NOT NULL, PRIMARY KEY (s, id)) CHARACTER SET utf8mb4",
			fmt.Sprintf("INSERT INTO %s SELECT id, CONCAT('Key ', id %% 7), 0 FROM (SELECT a.i + 10 * b.i + 100 * c.i + 1000 * d.i + 10000 * e.i AS id FROM app.ten a, app.ten b, app.ten c, app.ten d, app.ten e) x WHERE id < %d", table, n))
	}
}

func (p *pair) options(tables ...string) Options {
	return Options{
		Match: func(n change.TableName) bool { return slices.Contains(tables, n.String()) },
		Scope: strings.Join(tables, " "), Limit: 100,
		Note: func(text string) { p.notes = append(p.notes, text) },
	}
}

func (p *pair) run(t *testing.T, o Options) Report {
	t.Helper()
	p.notes = nil
	r, err := Run(t.Context(), p.servers, nil, o)
	require.NoError(t, err)
	return r
}

func (p *pair) count(t *testing.T, where string) (n int) {
	t.Helper()
	require.NoError(t, p.servers[0].DB.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM replicator.verification WHERE "+where).Scan(&n))
	return n
}

func keysOf(t *testing.T, table *Table) (keys []string) {
	t.Helper()
	for i := range table.Differences {
		keys = append(keys, table.Differences[i].Any().KeyText())
	}
	slices.Sort(keys)
	return keys
}

// TestComparisons runs all of them on one pair of servers of each flavor.
func TestComparisons(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		p := newPair(t, flavor, flavor)
		for name, f := range map[string]func(*testing.T, *pair){
			"a row that never stands still": neverStandsStill,
			"quick ends at a difference":    quickEnds,
			"quick does not cry wolf":       quickWaits,
			"ended and gone on with":        endedAndGoneOnWith,
			"begun anew":                    begunAnew,
			"two at once":                   twoAtOnce,
			"nothing can be kept":           nothingKept,
		} {
			t.Run(string(flavor)+" "+name, func(t *testing.T) { f(t, p) })
		}
	}
}

// neverStandsStill: a row that is changed before every look is neither called equal nor different.
func neverStandsStill(t *testing.T, p *pair) {
	p.fill(t, "app.hot", 100)
	o := p.options("app.hot")
	o.Rounds = 4
	n := 0
	o.Progress = func(Progress) {
		n++
		p.exec(t, n%2, "UPDATE app.hot SET n = n + 1 WHERE id = 7")
	}
	p.exec(t, 1, "UPDATE app.hot SET n = 100 WHERE id = 7")
	r := p.run(t, o)
	require.Len(t, r.Tables, 1)
	require.ErrorContains(t, r.Tables[0].Err, `1 rows differ and are changed all the time, one of them {"s":"Key 0","id":7}; remedy: compare again when less is written`)
	require.Zero(t, r.Tables[0].Total)
	require.Nil(t, r.Tables[0].Equal())
	require.Greater(t, n, o.Rounds, "it was looked at in every round")
	require.Less(t, n, 4*o.Rounds, "and in no more")
	require.Zero(t, p.count(t, "kind = 'result' AND table_name = 'hot'"), "nothing is known of it")

	// With one round more than the changes last, the difference is certain.
	o.Rounds, n = 30, 0
	o.Progress = func(Progress) {
		if n++; n < 6 {
			p.exec(t, n%2, "UPDATE app.hot SET n = n + 1 WHERE id = 7")
		}
	}
	r = p.run(t, o)
	require.NoError(t, r.Tables[0].Err)
	require.Equal(t, int64(1), r.Tables[0].Total)
	require.Equal(t, 1, p.count(t, "kind = 'result' AND table_name = 'hot' AND is_equal = 0"))
}

const many = 16_000

// quickEnds: a quick comparison reads no further than to the piece with the first difference.
func quickEnds(t *testing.T, p *pair) {
	p.fill(t, "app.many", many)
	p.exec(t, 1, "UPDATE app.many SET n = 1 WHERE id IN (14, 7007, 15991)") // 'Key 0' are the first
	o := p.options("app.many")
	o.Quick = true
	r := p.run(t, o)
	require.Equal(t, new(bool), r.Tables[0].Equal())
	require.Empty(t, r.Tables[0].Differences)
	require.LessOrEqual(t, slices.Max(r.Tables[0].Rows), int64(2000), "it ended early")
	d, err := r.Document([]string{"east", "west"})
	require.NoError(t, err)
	require.Nil(t, d.Tables[0].Total)

	full := p.run(t, p.options("app.many"))
	require.Equal(t, int64(3), full.Tables[0].Total)
	require.Equal(t, []int64{many, many}, full.Tables[0].Rows)
}

// quickWaits: what is equal when it is looked at again ends nothing.
func quickWaits(t *testing.T, p *pair) {
	p.fill(t, "app.many", many)
	o := p.options("app.many")
	o.Quick = true
	made := 0
	o.Progress = func(g Progress) {
		if g.Open > 0 {
			made++
			p.exec(t, 1, "UPDATE app.many SET n = 0 WHERE n <> 0")
		}
	}
	p.exec(t, 1, "UPDATE app.many SET n = 1 WHERE id IN (14, 7007, 15991)")
	r := p.run(t, o)
	require.True(t, *r.Tables[0].Equal())
	require.Equal(t, []int64{many, many}, r.Tables[0].Rows)
	require.Positive(t, made)
}

// endedAndGoneOnWith: a comparison is ended at random places again and again. In the end all that differs has been found,
// once, and not much more has been read than there is.
func endedAndGoneOnWith(t *testing.T, p *pair) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		p.fill(t, "app.many", many)
		p.fill(t, "app.more", 5_000)
		p.fill(t, "app.none", 0)
		var want []string
		for range 20 {
			id := r.IntN(many)
			p.exec(t, r.IntN(2), fmt.Sprintf("UPDATE app.many SET n = n + 1 WHERE id = %d", id))
			want = append(want, fmt.Sprintf(`{"s":"Key %d","id":%d}`, id%7, id))
		}
		slices.Sort(want)
		want = slices.Compact(want)
		ended, counted := 0, map[string]int64{}
		for {
			o := p.options("app.many", "app.more", "app.none")
			o.Limit = 12 // of the others no key is kept
			ctx, cancel := context.WithCancel(t.Context())
			last := map[string]int64{}
			at := r.IntN(14)
			o.Progress = func(g Progress) {
				name := g.Table.Table
				if before, known := last[name]; known {
					counted[name] += g.Rows - before
				}
				last[name] = g.Rows
				if at--; at < 0 && ended < 8 {
					cancel()
				}
			}
			o.pause, o.open = time.Nanosecond, 5 // some are settled on the way
			report, err := Run(ctx, p.servers, nil, o)
			cancel()
			if err != nil {
				require.ErrorIs(t, err, context.Canceled)
				ended++
				continue
			}
			require.Equal(t, []int64{many, many}, report.Tables[0].Rows)
			require.Equal(t, []int64{5000, 5000}, report.Tables[1].Rows)
			require.Equal(t, int64(len(want)), report.Tables[0].Total)
			require.Len(t, report.Tables[0].Differences, 12)
			require.Subset(t, want, keysOf(t, &report.Tables[0]))
			require.Len(t, slices.Compact(keysOf(t, &report.Tables[0])), 12)
			require.True(t, *report.Tables[1].Equal())
			require.True(t, *report.Tables[2].Equal())
			break
		}
		require.Greater(t, ended, 2)
		require.Less(t, counted["many"], int64(many+9*2000), "what was compared is not compared again")
		require.Zero(t, p.count(t, "kind = 'progress'"), "nothing is left of it")
		require.Equal(t, 1, p.count(t, "kind = 'result' AND table_name = 'many' AND is_equal = 0"))
		require.Equal(t, 2, p.count(t, "kind = 'result' AND table_name IN ('more', 'none') AND is_equal = 1"))
	}
}

// end runs a comparison that is ended after it has compared so many rows.
func (p *pair) end(t *testing.T, o Options, rows int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.pause = time.Nanosecond
	o.Progress = func(g Progress) {
		if g.Rows >= rows {
			cancel()
		}
	}
	_, err := Run(ctx, p.servers, nil, o)
	require.ErrorIs(t, err, context.Canceled)
	require.Positive(t, p.count(t, "kind = 'progress' AND table_name <> ''"))
}

// begunAnew: what an earlier comparison has left is not used where it may be wrong, and that is said.
func begunAnew(t *testing.T, p *pair) {
	p.fill(t, "app.many", many)
	p.fill(t, "app.more", 100)
	for name, c := range map[string]struct {
		change func(*Options)
		said   string
		kept   bool // it goes on
	}{
		"the same":      {func(*Options) {}, "going on where an earlier comparison ended", true},
		"another scope": {func(o *Options) { o.Scope = "app.*" }, "", false},
		"other options": {func(o *Options) { o.Limit = 7 }, "", false},
		"as asked for":  {func(o *Options) { o.Anew = true }, "begins at the beginning: so it was asked for", false},
		"other tables":  {func(o *Options) { o.Match = p.options("app.many", "app.more").Match }, "begins at the beginning: the tables are others now", false},
		"too long ago": {func(*Options) {
			p.exec(t, 0, "UPDATE replicator.verification SET saved_at = saved_at - INTERVAL 1441 MINUTE")
		}, "begins at the beginning: that was too long ago", false},
		"unreadable": {func(*Options) {
			p.exec(t, 0, "UPDATE replicator.verification SET detail = '{' WHERE table_name = 'many'")
		}, "begins at the beginning: what it has left cannot be read", false},
		"other definitions": {func(*Options) { p.exec(t, 1, "ALTER TABLE app.many MODIFY n BIGINT NOT NULL") }, "app.many is compared from the beginning: its definition has changed", false},
	} {
		t.Run(name, func(t *testing.T) {
			p.exec(t, 0, "DELETE FROM replicator.verification")
			p.fill(t, "app.many", many)
			p.end(t, p.options("app.many"), many/2)
			p.exec(t, 1, "UPDATE app.many SET n = 7 WHERE s = 'Key 0' AND id = 7") // in the part that was compared
			o := p.options("app.many")
			c.change(&o)
			r := p.run(t, o)
			require.Contains(t, strings.Join(p.notes, "\n"), c.said)
			require.Equal(t, c.kept, *r.Tables[0].Equal(), "what changes in the part that was compared is seen where that is compared again")
		})
	}
	p.run(t, p.options("app.many"))
	require.Zero(t, p.count(t, "kind = 'progress' AND saved_at < UTC_TIMESTAMP() - INTERVAL 1 DAY"), "what is too old has been removed")
}

// twoAtOnce: while a comparison is under way, a second one of the same begins at the beginning, and leaves to the first what
// that has recorded; one of another scope has its own.
func twoAtOnce(t *testing.T, p *pair) {
	p.fill(t, "app.many", many)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half, ended := make(chan struct{}), make(chan error, 1)
	first := p.options("app.many")
	first.pause = time.Nanosecond
	var once bool
	first.Progress = func(g Progress) {
		if g.Rows >= many/2 && !once {
			once = true
			close(half)
			<-ctx.Done()
		}
	}
	first.Note = nil
	go func() {
		_, err := Run(ctx, p.servers, nil, first)
		ended <- err
	}()
	<-half
	before := p.count(t, "kind = 'progress' AND table_name = 'many'")
	require.Equal(t, 1, before)
	r := p.run(t, p.options("app.many"))
	require.True(t, *r.Tables[0].Equal())
	require.Contains(t, strings.Join(p.notes, "\n"), "the same comparison is under way elsewhere")
	other := p.options("app.many")
	other.Scope = "app.man*"
	p.end(t, other, many/4)
	require.Equal(t, 2, p.count(t, "kind = 'progress' AND table_name = 'many'"))
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	p.run(t, p.options("app.many"))
	require.Contains(t, strings.Join(p.notes, "\n"), "going on where an earlier comparison ended")
	require.Equal(t, 1, p.count(t, "kind = 'progress' AND table_name = 'many'"), "the other one is still there")
	p.run(t, other)
	require.Contains(t, strings.Join(p.notes, "\n"), "going on where an earlier comparison ended")
	require.Zero(t, p.count(t, "kind = 'progress'"))
}

// nothingKept: an account that may only read can compare, and it is said that nothing is kept.
func nothingKept(t *testing.T, p *pair) {
	p.fill(t, "app.more", 5_000)
	p.exec(t, 0, "DELETE FROM replicator.verification")
	p.exec(t, 1, "UPDATE app.more SET n = 1 WHERE id = 77")
	for _, privileges := range []string{"GRANT SELECT ON *.* TO looker", "GRANT SELECT ON app.* TO looker"} {
		o, readers := p.options("app.more"), slices.Clone(p.servers)
		for i := range readers {
			p.exec(t, i, "DROP USER IF EXISTS looker", "CREATE USER looker IDENTIFIED BY 'l00k'", privileges)
			if readers[i].Flavor == change.MySQL {
				p.exec(t, i, "GRANT REPLICATION CLIENT ON *.* TO looker")
			} else {
				p.exec(t, i, "GRANT BINLOG MONITOR ON *.* TO looker")
			}
			readers[i].DB = p.open(t, readers[i].Name, p.hosts[i], "looker", "l00k")
		}
		p.notes = nil
		r, err := Run(t.Context(), readers, nil, o)
		require.NoError(t, err)
		require.NoError(t, r.Tables[0].Err)
		require.Equal(t, int64(1), r.Tables[0].Total)
		require.Contains(t, strings.Join(p.notes, "\n"), "could not be gone on with if it were ended")
		require.Contains(t, strings.Join(p.notes, "\n"), "what was found is not kept on east")
		require.Contains(t, strings.Join(p.notes, "\n"), "what was found is not kept on west")
		require.Zero(t, p.count(t, "kind <> 'x'"))

		o.Conclude = func(context.Context, checkpoint.Querier, *Report) error { return nil }
		_, err = Run(t.Context(), readers, nil, o)
		require.ErrorContains(t, err, "record what the comparison has found on east", "what depends on it has not been done")
	}
}
