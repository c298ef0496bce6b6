package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
	"replicator/server"
)

var both = []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118}

// start starts a server with the replicator's tables.
func start(t *testing.T, flavor sandbox.Flavor) *sandbox.Server {
	t.Helper()
	s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
	conn, err := s.DB().Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, checkpoint.Migrate(t.Context(), conn))
	return s
}

// reach makes the journal's view of a server, over sessions of package server.
func reach(t *testing.T, name string, s *sandbox.Server, id change.ServerID) Server {
	t.Helper()
	opened, err := server.Open(&config.Server{
		Name: name, Endpoints: []string{s.Addr()}, Account: config.Account{User: "root", Secret: config.NewSecret(s.Password())},
		TLS: config.TLS{Mode: config.TLSDisabled},
	}, server.Options{Connections: 4, Timeout: 5 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = opened.Close() })
	return Server{Name: name, DB: opened.DB(), ID: id}
}

const packet = 16 << 20

var limits = Limits{MaxValue: 1 << 20, MaxPacket: packet}

// staff is a table as its binlog would show it.
var staff = &change.Table{
	Name: change.TableName{Database: "hr", Table: "staff"},
	Columns: []change.Column{
		{Name: "id", Type: 3},
		{Name: "name", Type: 15, Meta: 400, Collation: 45, Nullable: true},
		{Name: "photo", Type: 252, Meta: 3, Collation: 63, Nullable: true},
	},
	PrimaryKey: []change.KeyPart{{Column: 0}},
}

func person(id int64, name string) *Row {
	return &Row{Table: staff, Values: []image.Value{{Kind: image.Int, Int: id}, {Kind: image.Text, Bytes: []byte(name)}, {}}}
}

var east, west = change.ServerID{1}, change.ServerID{2}

func at(second int) change.Version {
	return change.Version{Time: change.TimeOf(time.Unix(1_700_000_000+int64(second), 0)), Origin: east}
}

// clash is a conflict that east lost to west.
func clash(id int64, second int, winner, loser *Row) *Entry {
	e := &Entry{
		Table: staff.Name, Key: change.Key{byte(id), byte(id >> 8)}, KeyRow: person(id, ""), Kind: UpdateOriginDiffers,
		Policy: "last-writer-wins",
		Winner: Side{Version: change.Version{Time: at(second).Time + 1, Origin: west}, Row: winner},
		Loser:  Side{Version: at(second), GTID: change.GTID{Domain: 1, Server: 2, Number: 3}, User: "ann", Comment: "pay rise", Row: loser},
		At:     time.Unix(1_700_000_000+int64(second), 0),
	}
	return e
}

func write(t *testing.T, s Server, entries ...*Entry) {
	t.Helper()
	require.NoError(t, Write(t.Context(), s.DB, limits, entries))
}

func rows(t *testing.T, s Server, query string) (all []string) {
	t.Helper()
	r, err := s.DB.QueryContext(t.Context(), query)
	require.NoError(t, err)
	defer r.Close()
	for r.Next() {
		var text string
		require.NoError(t, r.Scan(&text))
		all = append(all, text)
	}
	require.NoError(t, r.Err())
	return all
}

// TestRowsSurvive: every value of every type comes out of the journal as it went in.
func TestRowsSurvive(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			s := start(t, flavor)
			table := imagetest.TypesFor("types.t", flavor)
			imagetest.Exec(t, s, "CREATE DATABASE types", "SET NAMES utf8mb4", table.Create())
			log := imagetest.Capture(t, s, func() { imagetest.Exec(t, s, table.Fill()...) })
			j := reach(t, "one", s, east)
			var entries []*Entry
			for i, ev := range log.Events {
				for k, r := range ev.Rows {
					values, err := image.Values(ev.Table, ev.After(r))
					require.NoError(t, err)
					row := &Row{Table: ev.Table, Values: values}
					entries = append(entries, &Entry{
						Table: ev.Table.Name, Key: change.Key{byte(i), byte(k)}, KeyRow: row, Kind: UpdateDeleted, Policy: "last-writer-wins",
						Loser: Side{Version: at(i), Row: row},
					})
				}
			}
			require.NotEmpty(t, entries)
			require.NoError(t, Write(t.Context(), j.DB, Limits{MaxPacket: packet}, entries))
			for _, e := range entries {
				r, failed, err := Show(t.Context(), []Server{j}, e.ID().String())
				require.NoError(t, err)
				require.Empty(t, failed)
				require.True(t, r.Restorable)
				require.Nil(t, r.Winner.Row)
				require.Equal(t, fmt.Sprintf(`{"id":%d}`, e.KeyRow.Values[0].Int), string(r.Key))
				for i := range e.Loser.Row.Values {
					sameValue(t, e.Loser.Row.Table.Columns[i].Name, e.Loser.Row.Values[i], r.Loser.Row.Values[i])
				}
				mine, theirs := *e.Loser.Row.Table, *r.Loser.Row.Table
				mine.MapEvent, mine.Layout, theirs.Layout = nil, nil, nil
				require.Equal(t, fmt.Sprintf("%#v", mine), fmt.Sprintf("%#v", theirs))
				require.True(t, json.Valid(mustJSON(t, r.Loser.Row)))
			}
		})
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return b
}

func sameValue(t *testing.T, column string, want, got image.Value) {
	t.Helper()
	if want.Kind != got.Kind || want.Int != got.Int || want.Uint != got.Uint || math.Float64bits(want.Float) != math.Float64bits(got.Float) ||
		!bytes.Equal(want.Bytes, got.Bytes) {
		t.Errorf("column %s: %.200v, want %.200v", column, got, want)
	}
	if n, err := image.ParseJSON(want.Document); err == nil && want.Document != nil && !n.IsPlain() && !bytes.Equal(want.Document, got.Document) {
		t.Errorf("column %s: the document differs", column)
	}
}

// TestWrite: what is written once stays; equal rows are no loss; what is too long is left out and named.
func TestWrite(t *testing.T) {
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) {
			j := reach(t, "one", start(t, flavor), east)
			first := clash(1, 1, person(1, "Wén"), person(1, "Ann\x00 'quoted'"))
			write(t, j, first, clash(2, 2, person(2, "same"), person(2, "same")), clash(3, 3, nil, nil), clash(4, 4, person(4, "kept"), nil))
			again := clash(1, 1, person(1, "other"), person(1, "other than that"))
			write(t, j, again, first)
			require.Equal(t, []string{
				`open ["name"] 1`, `acknowledged [] 1`, `acknowledged [] 0`, `open ["id","name","photo"] 1`,
			}, rows(t, j, "SELECT CONCAT(state, ' ', `columns`, ' ', restorable) FROM replicator.conflict ORDER BY decided_at"))
			r, _, err := Show(t.Context(), []Server{j}, first.ID().String()[:5])
			require.NoError(t, err)
			require.Equal(t, "Ann\x00 'quoted'", string(r.Loser.Row.Values[1].Bytes))
			require.Equal(t, "Wén", string(r.Winner.Row.Values[1].Bytes))
			require.Equal(t, Party{Version: at(1), GTID: "1-2-3", User: "ann", Comment: "pay rise", Row: r.Loser.Row}, r.Loser)
			require.Equal(t, first.At.UTC(), r.Time)

			long := clash(5, 5, person(5, "x"), person(5, "y"))
			long.Loser.Row.Values[2] = image.Value{Kind: image.Binary, Bytes: bytes.Repeat([]byte{7}, 1<<20+1)}
			write(t, j, long)
			r, _, err = Show(t.Context(), []Server{j}, long.ID().String())
			require.NoError(t, err)
			require.False(t, r.Restorable)
			sum := sha256.Sum256(long.Loser.Row.Values[2].Bytes)
			require.Equal(t, map[int]Omission{2: {Bytes: 1<<20 + 1, SHA256: hex.EncodeToString(sum[:])}}, r.Loser.Row.Omitted)
			require.Equal(t, `{"id":5,"name":"y","photo":{"omitted":{"bytes":1048577,"sha256":"`+hex.EncodeToString(sum[:])+`"}}}`, string(mustJSON(t, r.Loser.Row)))
		})
	}
}

// TestWriteFits: no statement is larger than the server takes, whatever the rows hold.
func TestWriteFits(t *testing.T) {
	j := reach(t, "one", start(t, sandbox.MariaDB118), east)
	_, err := j.DB.ExecContext(t.Context(), "SET GLOBAL max_allowed_packet = 1048576")
	require.NoError(t, err)
	j.DB.SetMaxIdleConns(0) // sessions have the setting of when they began
	var entries []*Entry
	for i := range int64(40) {
		e := clash(i, int(i), person(i, "x"), person(i, strings.Repeat("y", 50_000)))
		if i == 7 {
			e.Loser.Row.Values[2] = image.Value{Kind: image.Binary, Bytes: make([]byte, 900_000)}
		}
		entries = append(entries, e)
	}
	require.NoError(t, Write(t.Context(), j.DB, Limits{MaxValue: 1 << 20, MaxPacket: 1 << 20}, entries))
	require.Equal(t, []string{"39"}, rows(t, j, "SELECT SUM(restorable) FROM replicator.conflict"))
	require.Equal(t, []string{"40"}, rows(t, j, "SELECT COUNT(*) FROM replicator.conflict"))
}

// TestDiffering compares rows of servers that write the same in different ways.
func TestDiffering(t *testing.T) {
	row := func(c change.Column, v image.Value) *Row {
		c.Name = "v"
		return &Row{Table: &change.Table{Columns: []change.Column{c}}, Values: []image.Value{v}}
	}
	text := func(k image.Kind, s string) image.Value { return image.Value{Kind: k, Bytes: []byte(s)} }
	for _, c := range []struct {
		a, b *Row
		same bool
	}{
		{row(change.Column{}, image.Value{}), row(change.Column{}, image.Value{}), true},
		{row(change.Column{}, image.Value{}), row(change.Column{}, text(image.Text, "")), false},
		{row(change.Column{Type: 3}, image.Value{Kind: image.Int, Int: 5}), row(change.Column{Type: 8}, image.Value{Kind: image.Uint, Uint: 5}), true},
		{row(change.Column{Type: 3}, image.Value{Kind: image.Int, Int: -1}), row(change.Column{Type: 8}, image.Value{Kind: image.Uint, Uint: math.MaxUint64}), false},
		{row(change.Column{}, text(image.Number, "1.50")), row(change.Column{}, text(image.Number, "1.5")), true},
		{row(change.Column{}, text(image.Number, "100")), row(change.Column{}, text(image.Number, "1")), false},
		{row(change.Column{}, text(image.Time, "10:00:00")), row(change.Column{}, text(image.Time, "10:00:00.000")), true},
		{row(change.Column{}, text(image.Text, "a")), row(change.Column{}, text(image.Text, "A")), false},
		{row(change.Column{}, text(image.JSON, `{"a": 1}`)), row(change.Column{}, text(image.Text, `{"a":1}`)), true},
		{row(change.Column{}, text(image.JSON, `{"a": 1}`)), row(change.Column{}, text(image.Text, `{"a":1.0}`)), false},
		{
			row(change.Column{Type: 247, Labels: []string{"x", "y"}, Collation: 45}, image.Value{Kind: image.Uint, Uint: 2}),
			row(change.Column{Type: 247, Labels: []string{"y"}, Collation: 45}, image.Value{Kind: image.Uint, Uint: 1}), true,
		},
	} {
		if got := len(Differing(c.a, c.b)) == 0; got != c.same {
			t.Errorf("%v and %v: same %t, want %t", c.a.Values, c.b.Values, got, c.same)
		}
	}
	require.Equal(t, []string{"id", "name", "photo"}, Differing(nil, person(1, "a")))
	require.Nil(t, Differing(nil, nil))
	renamed := *staff
	renamed.Columns = slices.Clone(staff.Columns)
	renamed.Columns[2].Name = "picture"
	require.Nil(t, Differing(person(1, "a"), &Row{Table: &renamed, Values: person(1, "a").Values}))
}

func tables(t *testing.T, text string) config.Pattern {
	t.Helper()
	p, err := config.ParsePattern(text)
	require.NoError(t, err)
	return p
}

// TestListTables: a pattern finds the tables that it would match in the configuration.
func TestListTables(t *testing.T) {
	names := []change.TableName{
		{Database: "app", Table: "players"},
		{Database: "app", Table: "play_list"},
		{Database: "app", Table: "playXlist"},
		{Database: "apple", Table: "Players"},
		{Database: "app", Table: `100%|\n`},
		{Database: "a.b", Table: "players*"},
	}
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) {
			j := reach(t, "one", start(t, flavor), east)
			for i, name := range names {
				e := clash(int64(i), i, person(1, "a"), person(1, "b"))
				e.Table = name
				write(t, j, e)
			}
			for _, text := range []string{
				"app.pla*", "*.players", "app.play_list", "app.*ay_*", "app.*", "*.*", "app*.*layers", "app.100%*", "app.`100%|\\n`", "`a.b`.`players*`",
				"`a.b`.*", "a*.p*s*", "app.pla", "*.*%*", "nothing.*",
			} {
				p := tables(t, text)
				records, failed := List(t.Context(), []Server{j}, Filter{Table: p})
				require.Empty(t, failed)
				var want, got []change.TableName
				for _, name := range names {
					if p.Matches(name) {
						want = append(want, name)
					}
				}
				for _, r := range records {
					got = append(got, r.Table)
				}
				require.ElementsMatch(t, want, got, text)
			}
		})
	}
}

// TestListOfServerAway: what a server has done that cannot be asked is found in the others' journals; and where its identity
// is not known, what no known server has done.
func TestListOfServerAway(t *testing.T) {
	one := reach(t, "one", start(t, sandbox.MariaDB118), west)
	mine, former := clash(1, 1, person(1, "a"), person(1, "b")), clash(2, 2, person(2, "a"), person(2, "b"))
	former.Loser.Version.Origin = change.ServerID{9}
	own := clash(3, 3, person(3, "a"), person(3, "b"))
	own.Loser.Version.Origin, own.Winner.Version = west, change.Version{}
	write(t, one, mine, former, own)
	for away, want := range map[Server][]ID{
		{Name: "away", Err: context.DeadlineExceeded, ID: east}: {mine.ID()},
		{Name: "away", Err: context.DeadlineExceeded}:           {former.ID(), mine.ID()},
		{Name: "away"}: nil, // it takes no part yet
	} {
		servers := []Server{one, away}
		if away.Err == nil {
			servers[1].DB = reach(t, "away", start(t, sandbox.MariaDB118), east).DB
		}
		records, failed := List(t.Context(), servers, Filter{Server: "away"})
		require.Equal(t, away.Err != nil, len(failed) == 1)
		var got []ID
		for _, d := range Documents(records, servers, failed) {
			require.Equal(t, []string{"away"}, d.Unreachable)
			if away.ID == east {
				require.Equal(t, "away", *d.Loser.Origin)
			}
		}
		for _, r := range records {
			got = append(got, r.ID)
		}
		require.Equal(t, want, got)
	}
}

// TestListOfLateEntries: a conflict counts from when it was noticed first, wherever it was noticed later.
func TestListOfLateEntries(t *testing.T) {
	one, two := reach(t, "one", start(t, sandbox.MySQL97), east), reach(t, "two", start(t, sandbox.MariaDB118), west)
	const early, late = 4, 6
	var ids []string // the newest first
	for i := range early + late {
		e := clash(int64(i), i, person(int64(i), "a"), person(int64(i), "b"))
		ids = append([]string{e.ID().String()}, ids...)
		write(t, one, e)
		if i < early {
			e.At = e.At.Add(time.Minute)
			write(t, two, e)
		}
	}
	list := func(f Filter) (found []string) {
		records, failed := List(t.Context(), []Server{one, two}, f)
		require.Empty(t, failed)
		for _, r := range records {
			found = append(found, r.ID.String())
		}
		return found
	}
	for n := 1; n <= len(ids); n++ {
		require.Equal(t, ids[:n], list(Filter{Limit: n}))
	}
	first := at(0).Time.Wall()
	require.Empty(t, list(Filter{Since: first.Add(time.Minute / 2)}))
	require.Equal(t, ids[late:], list(Filter{Server: "two", Until: first.Add(3*time.Second + time.Second/2), Limit: 100}))
	require.Equal(t, ids[late+1:late+3], list(Filter{Until: first.Add(2*time.Second + time.Second/2), Limit: 2}))
}

// TestList merges the copies of two servers, and goes on without a third.
func TestList(t *testing.T) {
	one, two := reach(t, "one", start(t, sandbox.MySQL97), east), reach(t, "two", start(t, sandbox.MariaDB118), west)
	down := Server{Name: "down", Err: context.DeadlineExceeded}
	var ids []string
	for i := range 6 {
		e := clash(int64(i), i, person(int64(i), "a"), person(int64(i), "b"))
		ids = append([]string{e.ID().String()}, ids...)
		if i != 1 {
			write(t, one, e)
		}
		if i >= 1 && i <= 4 {
			e.Loser.User, e.Winner.GTID = "", change.GTID{Domain: 9, Server: 9, Number: 9}
			e.At = e.At.Add(-time.Millisecond)
			write(t, two, e)
		}
	}
	all := []Server{one, two, down}
	list := func(f Filter) (found []string) {
		records, failed := List(t.Context(), all, f)
		require.Len(t, failed, 1)
		require.Equal(t, "down", failed[0].Server)
		for _, r := range records {
			found = append(found, r.ID.String())
		}
		return found
	}
	require.Equal(t, ids, list(Filter{}))
	require.Equal(t, ids[:2], list(Filter{Limit: 2}))
	require.Equal(t, ids, list(Filter{Table: tables(t, "hr.staff")}))
	require.Equal(t, ids, list(Filter{Table: tables(t, "*.sta*")}))
	require.Empty(t, list(Filter{Table: tables(t, "hr.other")}))
	require.Equal(t, ids, list(Filter{Server: "two"})) // it won all of them
	require.Empty(t, list(Filter{Server: "down"}))
	require.Equal(t, ids[:2], list(Filter{Since: at(4).Time.Wall().Add(-time.Second / 2)}))
	require.Equal(t, ids[4:], list(Filter{Until: at(2).Time.Wall().Add(-time.Second / 2)}))

	records, _ := List(t.Context(), all, Filter{Limit: 3})
	require.Equal(t, []string{"one"}, records[0].Servers)
	require.Equal(t, []string{"one", "two"}, records[1].Servers)
	require.Equal(t, "ann", records[1].Loser.User)
	require.Equal(t, "9-9-9", records[1].Winner.GTID)
	require.Equal(t, at(4).Time.Wall().Add(-time.Millisecond), records[1].Time)

	told, failed := SetState(t.Context(), all, records[1].ID, Acknowledged)
	require.Equal(t, []string{"one", "two"}, told)
	require.Len(t, failed, 1)
	told, _ = SetState(t.Context(), []Server{one}, records[2].ID, Restored)
	require.Equal(t, []string{"one"}, told)
	_, _ = SetState(t.Context(), []Server{one}, records[2].ID, Acknowledged)
	require.Equal(t, []string{ids[1]}, list(Filter{State: Acknowledged}))
	require.Equal(t, []string{ids[2]}, list(Filter{State: Restored}), "two still has it open")
	require.NotContains(t, list(Filter{State: Open}), ids[2])

	counts, failed := Count(t.Context(), all)
	require.Len(t, failed, 1)
	require.Equal(t, Counts{Open: 4, Total: 6, Exact: true}, counts)

	found := func(servers []Server, f Filter, want int, exactly bool) {
		t.Helper()
		n, exact := Found(t.Context(), servers, f)
		require.Equal(t, want, n)
		require.Equal(t, exactly, exact)
	}
	found(all, Filter{Limit: 2}, 6, false)
	found(all[:2], Filter{Limit: 2}, 6, true)
	found(all[:2], Filter{Limit: 1, State: Open}, 4, true)
	found(all[:2], Filter{Since: at(4).Time.Wall().Add(-time.Second / 2)}, 2, true)

	_, _, err := Show(t.Context(), all, "zz")
	require.ErrorContains(t, err, "is no conflict's id")
	_, _, err = Show(t.Context(), []Server{one, two}, "0123456789abcdef")
	require.ErrorContains(t, err, "there is no conflict")
	_, _, err = Show(t.Context(), all, "0123456789abcdef")
	require.ErrorContains(t, err, "no server that could be asked")
	showsByDigits(t, all, ids)
}

// showsByDigits: the first digits of an id do where they are unique.
func showsByDigits(t *testing.T, all []Server, ids []string) {
	t.Helper()
	for digit := range 16 {
		prefix := fmt.Sprintf("%x", digit)
		n := 0
		for _, id := range ids {
			if strings.HasPrefix(id, prefix) {
				n++
			}
		}
		_, _, err := Show(t.Context(), all, prefix)
		switch n {
		case 0:
			require.Error(t, err)
		case 1:
			require.NoError(t, err)
		default:
			require.ErrorContains(t, err, "several conflicts")
		}
	}
}

// TestCountMany: very many conflicts are estimated from a sample of their ids.
func TestCountMany(t *testing.T) {
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) {
			j := reach(t, "one", start(t, flavor), east)
			limit := "cte_max_recursion_depth"
			if flavor.MariaDB() {
				limit = "max_recursive_iterations"
			}
			conn, err := j.DB.Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			const many = 3 * sampleRows
			for _, q := range []string{
				"SET SESSION " + limit + " = 1000000", "SET SESSION sql_mode = ''",
				fmt.Sprintf("INSERT INTO replicator.conflict (id, decided_at, key_columns, `columns`, state) WITH RECURSIVE n AS (SELECT 0 i UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT UNHEX(LEFT(SHA2(i, 256), 16)), UTC_TIMESTAMP(), '{}', '[]', IF(i MOD 3, 'open', 'acknowledged') FROM n", many-1),
			} {
				_, err := conn.ExecContext(t.Context(), q)
				require.NoError(t, err)
			}
			c, failed := Count(t.Context(), []Server{j})
			require.Empty(t, failed)
			require.False(t, c.Exact)
			require.InEpsilon(t, many, c.Total, 0.03)
			require.InEpsilon(t, many*2/3, c.Open, 0.03)
			n, exact := Found(t.Context(), []Server{j}, Filter{})
			require.Equal(t, sampleRows, n)
			require.False(t, exact)
		})
	}
}

// TestTrim deletes the oldest, and what is open last.
func TestTrim(t *testing.T) {
	for _, flavor := range both {
		t.Run(string(flavor), func(t *testing.T) {
			j := reach(t, "one", start(t, flavor), east)
			for i := range int64(10) {
				e := clash(i, 0, person(i, "a"), person(i, "b"))
				e.At = time.Now().Add(-time.Duration(10-i) * time.Hour)
				write(t, j, e)
				if i%2 == 0 {
					_, _ = SetState(t.Context(), []Server{j}, e.ID(), Acknowledged)
				}
			}
			left := func() string {
				return strings.Join(rows(t, j, "SELECT CONCAT(key_columns, LEFT(state, 1)) FROM replicator.conflict ORDER BY seq"), " ")
			}
			trim := func(keep time.Duration, most int64) int64 {
				n, err := Trim(t.Context(), j.DB, keep, most)
				require.NoError(t, err)
				return n
			}
			require.Zero(t, trim(0, 0))
			require.Zero(t, trim(11*time.Hour, 10))
			require.Equal(t, int64(3), trim(7*time.Hour+time.Minute, 10))
			require.Equal(t, `{"id":3}o {"id":4}a {"id":5}o {"id":6}a {"id":7}o {"id":8}a {"id":9}o`, left())
			require.Equal(t, int64(2), trim(7*time.Hour+time.Minute, 5))
			require.Equal(t, `{"id":3}o {"id":5}o {"id":7}o {"id":8}a {"id":9}o`, left())
			require.Equal(t, int64(3), trim(0, 2))
			require.Equal(t, `{"id":7}o {"id":9}o`, left())
			require.Equal(t, int64(2), trim(time.Minute, 1))
			require.Empty(t, left())
		})
	}
}

// BenchmarkWrite writes what a hot row loses in a second.
func BenchmarkWrite(b *testing.B) {
	for _, flavor := range both {
		b.Run(string(flavor), func(b *testing.B) {
			s := sandbox.StartTest(b, sandbox.Options{Flavor: flavor})
			conn, err := s.DB().Conn(b.Context())
			require.NoError(b, err)
			defer conn.Close()
			require.NoError(b, checkpoint.Migrate(b.Context(), conn))
			second := 0
			for b.Loop() {
				var entries []*Entry
				for range 1000 {
					second++
					entries = append(entries, clash(1, second, person(1, "won"), person(1, "lost")))
				}
				require.NoError(b, Write(b.Context(), conn, limits, entries))
			}
			b.ReportMetric(float64(second)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

// FuzzDecodeRow: whatever stands in the journal is read or refused, and what was read is written the same.
func FuzzDecodeRow(f *testing.F) {
	seed, _, err := person(1, "Wén").encode(0)
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte(`{"columns":[{"name":"e","type":247,"labels_base64":["6Q=="]}],"values":[{"uint":"9"}],"primary_key":[{"column":0}]}`))
	f.Add([]byte(`{"columns":[{"name":"b","type":252}],"values":[{"omitted":{"bytes":7,"sha256":"00"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRow(b)
		if err != nil || r == nil {
			return
		}
		again, _, err := r.encode(0)
		require.NoError(t, err)
		second, err := DecodeRow(again)
		require.NoError(t, err)
		for i, v := range r.Values {
			if !math.IsNaN(v.Float) && !same(r, i, second, i) { // no server holds a NaN
				t.Errorf("column %d differs", i)
			}
		}
		_, err = r.MarshalJSON()
		if err != nil && !strings.Contains(err.Error(), "invalid number") {
			t.Error(err)
		}
	})
}
