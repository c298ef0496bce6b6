package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/fault"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/journal"
	"replicator/sandbox"
	"replicator/server"
)

// journaled is a server with one conflict in its journal, which east lost.
func journaled(t *testing.T) (*sandbox.Server, journal.Server, *journal.Entry) {
	t.Helper()
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB118})
	conn, err := s.DB().Conn(t.Context())
	require.NoError(t, err)
	require.NoError(t, checkpoint.Migrate(t.Context(), conn))
	require.NoError(t, conn.Close())
	imagetest.Exec(t, s, "CREATE DATABASE hr", "CREATE TABLE hr.staff (id INT PRIMARY KEY, name VARCHAR(100)) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", "INSERT INTO hr.staff VALUES (1, 'won')")
	opened, err := server.Open(&config.Server{
		Name: "east", Endpoints: []string{s.Addr()}, Account: config.Account{User: "root", Secret: config.NewSecret(s.Password())},
		TLS: config.TLS{Mode: config.TLSDisabled},
	}, server.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = opened.Close() })
	table := &change.Table{
		Name: change.TableName{Database: "hr", Table: "staff"}, PrimaryKey: []change.KeyPart{{Column: 0}},
		Columns: []change.Column{{Name: "id", Type: 3}, {Name: "name", Type: 15, Meta: 400, Collation: 45, Nullable: true}},
	}
	row := func(name string) *journal.Row {
		return &journal.Row{Table: table, Values: []image.Value{{Kind: image.Int, Int: 1}, {Kind: image.Text, Bytes: []byte(name)}}}
	}
	e := &journal.Entry{
		Table: table.Name, KeyRow: row(""), Kind: journal.UpdateOriginDiffers, Policy: "last-writer-wins",
		Winner: journal.Side{Version: change.Version{Time: 2_000_000, Origin: change.ServerID{2}}, Row: row("won")},
		Loser:  journal.Side{Version: change.Version{Time: 1_000_000, Origin: change.ServerID{1}}, User: "ann", Comment: "spelling", Row: row("lost")},
		At:     time.Date(2026, 1, 31, 10, 0, 0, 5000, time.UTC),
	}
	require.NoError(t, journal.Write(t.Context(), opened.DB(), journal.Limits{MaxPacket: 1 << 20}, []*journal.Entry{e}))
	// The winning change has arrived.
	require.NoError(t, checkpoint.Beat(t.Context(), opened.DB(), change.Context{}.With(e.Winner.Version.Origin, e.Winner.Version.Time)))
	return s, journal.Server{Name: "east", DB: opened.DB(), ID: change.ServerID{1}}, e
}

// told is what a handler answered.
type told struct {
	code   int
	header http.Header
}

// ask sends one request to a handler, with headers in pairs.
func ask(t *testing.T, h http.Handler, method, path, body string, headers ...string) (told, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:8080"+path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return told{w.Code, w.Header()}, w.Body.String()
}

func TestConflicts(t *testing.T) {
	s, east, e := journaled(t)
	name := func() (text string) {
		require.NoError(t, s.DB().QueryRowContext(t.Context(), "SELECT name FROM hr.staff").Scan(&text))
		return text
	}
	down := journal.Server{Name: "down", Err: fault.New(fault.Network, "start it", "no route")}
	m := &steady{status: healthy(), journals: []journal.Server{east, down}}
	h, err := Handler(open(), m, sums)
	require.NoError(t, err)
	id := e.ID().String()

	a, body := ask(t, h, "GET", "/api/v1/conflicts?table=hr.staff&state=open&since=2026-01-31&limit=5", "")
	require.Equal(t, 200, a.code, body)
	require.Equal(t, "down", a.header.Get(UnreachableHeader))
	golden(t, "conflicts.json", body)
	for query, want := range map[string]string{
		"server=zz": `"there is no server \"zz\"","remedy":"name one of east, down"`, "table=hr": "hr", "state=lost": "state must be", "limit=x": `"limit must be between 1 and 10000"`, "limit=0": "limit must be", "table=hr.": "pattern",
	} {
		a, body = ask(t, h, "GET", "/api/v1/conflicts?"+query, "")
		require.Equal(t, 400, a.code, body)
		require.Contains(t, strings.NewReplacer("\n", "", ": \"", ":\"", "  ", "").Replace(body), want)
	}
	a, body = ask(t, h, "GET", "/api/v1/conflicts?table=h*.st*f&server=east", "")
	require.Equal(t, 200, a.code, body)
	require.Contains(t, body, id)
	a, body = ask(t, h, "GET", "/api/v1/conflicts?until=2026-01-31", "")
	require.Equal(t, 200, a.code)
	require.Equal(t, "[]\n", body)
	a, body = ask(t, h, "GET", "/api/v1/conflicts/"+id[:6], "")
	require.Equal(t, 200, a.code, body)
	golden(t, "conflict.json", body)

	path := "/api/v1/conflicts/" + id + "/restore"
	for _, refused := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://evil.example", "Content-Type", "application/json"},
	} {
		a, body = ask(t, h, "POST", path, "", refused...)
		require.Equal(t, 403, a.code, body)
	}
	a, body = ask(t, h, "POST", path, "on=east", "Content-Type", "application/x-www-form-urlencoded")
	require.Equal(t, 400, a.code, body)
	a, body = ask(t, h, "POST", path, `{"columns": ["id", "nome"]}`, "Content-Type", "application/json")
	require.Equal(t, 404, a.code, body)
	require.Contains(t, body, `no column \"nome\"`)
	for request, want := range map[string]string{
		`{"columns": []}`: "columns names no column", `{"dry_run": true} {}`: "one JSON document", `{"dry_run": true} x`: "one JSON document",
	} {
		a, body = ask(t, h, "POST", path, request, "Content-Type", "application/json")
		require.Equal(t, 400, a.code, body)
		require.Contains(t, body, want)
		require.Equal(t, "won", name())
	}
	a, body = ask(t, h, "POST", path, `{"dry_run": true}`+"\n", "Content-Type", "application/json")
	require.Equal(t, 200, a.code, body)
	a, body = ask(t, h, "POST", path, `{"dry_run": true}`, "Content-Type", "application/json")
	require.Equal(t, 200, a.code, body)
	golden(t, "dryrun.json", body)
	require.Equal(t, "won", name())
	a, body = ask(t, h, "POST", path, "")
	require.Equal(t, 200, a.code, body)
	require.Equal(t, "down", a.header.Get(UnreachableHeader))
	golden(t, "restored.json", body)
	require.Equal(t, "lost", name())

	closed, err := Handler(guarded(t), m, sums)
	require.NoError(t, err)
	a, _ = ask(t, closed, "POST", path, "")
	require.Equal(t, 401, a.code)
	m.journals = []journal.Server{down}
	a, body = ask(t, h, "GET", "/api/v1/conflicts", "")
	require.Equal(t, 502, a.code, body)
}

// TestConflictsText is what people read.
func TestConflictsText(t *testing.T) {
	_, east, e := journaled(t)
	servers := []journal.Server{east}
	record, _, err := journal.Show(t.Context(), servers, e.ID().String())
	require.NoError(t, err)
	var text strings.Builder
	require.NoError(t, WriteConflicts(&text, []journal.Document{record.Document(servers, nil)}, func(int) []string { return nil }))
	text.WriteString("\n")
	require.NoError(t, WriteConflict(&text, record.Shown(servers, nil), nil))
	for _, dry := range []bool{true, false, false} {
		x, err := journal.Restore(t.Context(), servers, record, journal.RestoreOptions{DryRun: dry})
		require.NoError(t, err)
		text.WriteString("\n")
		require.NoError(t, WriteRestoration(&text, x.Document(record)))
	}
	golden(t, "conflicts.txt", text.String())
}

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2026-01-31T10:00:00+01:00": "2026-01-31T09:00:00Z", "2026-01-31": "2026-01-31T00:00:00Z", "2026-01-31 10:00:00": "2026-01-31T10:00:00Z",
		"90m": "2026-03-01T10:30:00Z", "7d": "2026-02-22T12:00:00Z", "-1h": "", "soon": "", "": "",
	} {
		got, err := ParseMoment(text, now)
		if want == "" {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, got.UTC().Format(time.RFC3339), text)
	}
}

// TestRemedyText: what has been put back is told apart from what has not, and what still can be comes with its command.
func TestRemedyText(t *testing.T) {
	row := func(omitted ...int) *journal.Row {
		r := &journal.Row{
			Table: &change.Table{
				Name: change.TableName{Database: "hr", Table: "staff"}, PrimaryKey: []change.KeyPart{{Column: 0}},
				Columns: []change.Column{{Name: "id", Type: 3}, {Name: "name", Type: 3}, {Name: "photo", Type: 3}},
			},
			Values: []image.Value{{Kind: image.Int, Int: 1}, {Kind: image.Int, Int: 1}, {Kind: image.Int, Int: 1}}, Omitted: map[int]journal.Omission{},
		}
		for _, i := range omitted {
			r.Values[i], r.Omitted[i] = image.Value{}, journal.Omission{Bytes: 2 << 20}
		}
		return r
	}
	won := row()
	won.Values[1].Int, won.Values[2].Int = 2, 2
	rival := row()
	rival.Values[0].Int = 2
	const command = "replicator conflicts restore 1234"
	for name, c := range map[string]struct {
		s     journal.Shown
		want  []string
		added []string
	}{
		"open": {journal.Shown{Document: journal.Document{State: journal.Open, Restorable: true}, WinnerRow: won, LoserRow: row()}, []string{"restore what was lost: " + command + " --columns name,photo\n"}, nil},
		"sums": {journal.Shown{Document: journal.Document{State: journal.Open, Restorable: true}, WinnerRow: won, LoserRow: row()}, []string{"restore what was lost: " + command + " --columns name\n"}, []string{"photo"}},
		"added up": {journal.Shown{Document: journal.Document{State: journal.Open, Restorable: true, Kind: journal.UpdateOriginDiffers}, WinnerRow: won, LoserRow: row()}, []string{
			"\n*  name    2    1\n+  photo   2    1\n\n+ The changes of photo add up: nothing of them was lost.\n",
		}, []string{"Photo"}},
		"sums alone": {journal.Shown{Document: journal.Document{State: journal.Open, Restorable: true}, WinnerRow: won, LoserRow: row()}, []string{"The changes of these columns add up: name, photo. A restore sets them where --columns names them."}, []string{"photo", "Name"}},
		"gone":       {journal.Shown{Document: journal.Document{State: journal.Open, Restorable: true}, LoserRow: row()}, []string{"restore what was lost: " + command + "\n"}, []string{"photo"}},
		"removed":    {journal.Shown{Document: journal.Document{State: journal.Open, Restorable: true, Kind: journal.UpdateExists}, LoserRow: row()}, []string{"\nThe replicator removed the row, because another row has the same value of a unique key; nobody deleted it.\n"}, nil},
		"another row": {journal.Shown{Document: journal.Document{State: journal.Open, Restorable: true, Kind: journal.UpdateExists}, WinnerRow: rival, LoserRow: row()}, []string{
			"\n  COLUMN  WON  LOST\n  id      2    1\n  name    1    1\n",
			"nobody deleted it.\nThe other row is {\"id\":2}: while it has that value, a restore is refused.\nrestore what was lost: " + command + "\n",
		}, nil},
		"halted": {journal.Shown{Document: journal.Document{State: journal.Open, Policy: "halt", Restorable: true, Kind: journal.UpdateOriginDiffers}, WinnerRow: won, LoserRow: row()}, []string{
			"\nto win ", "\nto lose ", "COLUMN  TO WIN  TO LOSE\n", "A link waits until a person decides: replicator conflicts ack 1234 --keep winner|loser\n",
		}, nil},
		"orphan":       {journal.Shown{Document: journal.Document{State: journal.Open, Restorable: true, Kind: journal.ParentMissing}, LoserRow: row()}, []string{"\nThe replicator removed the row, because the row that it refers to is gone; nobody deleted it.\n"}, nil},
		"deleted":      {journal.Shown{Document: journal.Document{State: journal.Open, Restorable: true}, WinnerRow: won}, []string{"restore what was lost: " + command + "\n"}, nil},
		"partly":       {journal.Shown{Document: journal.Document{State: journal.Restored, Restored: []string{"name"}, Restorable: true}, WinnerRow: won, LoserRow: row()}, []string{"restored: name\n", "restore the other columns: " + command + " --columns photo\n"}, nil},
		"whole":        {journal.Shown{Document: journal.Document{State: journal.Restored, Restored: []string{"photo", "name"}, Restorable: true}, WinnerRow: won, LoserRow: row()}, []string{"restored\n", "What was lost has been restored."}, nil},
		"long value":   {journal.Shown{Document: journal.Document{State: journal.Open}, WinnerRow: won, LoserRow: row(2)}, []string{"restore the other columns: " + command + " --columns name\n"}, nil},
		"long, partly": {journal.Shown{Document: journal.Document{State: journal.Restored, Restored: []string{"name"}}, WinnerRow: won, LoserRow: row(2)}, []string{"restored: name\n", "what is missing cannot be restored"}, nil},
		"long key":     {journal.Shown{Document: journal.Document{State: journal.Open}, WinnerRow: won, LoserRow: row(0)}, []string{"what is missing cannot be restored"}, nil},
		"long, gone":   {journal.Shown{Document: journal.Document{State: journal.Open}, LoserRow: row(2)}, []string{"what is missing cannot be restored"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.s.ID, c.s.Columns = "1234", []string{"name", "photo"}
			var text strings.Builder
			require.NoError(t, WriteConflict(&text, c.s, c.added))
			for _, want := range c.want {
				require.Contains(t, text.String(), want)
			}
			text.Reset()
			require.NoError(t, WriteConflicts(&text, []journal.Document{c.s.Document}, func(int) []string { return c.added }))
			require.Equal(t, name == "added up", strings.Contains(text.String(), "name (added up: photo)\n"))
			require.Equal(t, name == "partly" || name == "long, partly", strings.Contains(text.String(), "restored: name  "))
		})
	}
	var text strings.Builder
	require.NoError(t, WriteRestoration(&text, journal.RestorationDocument{ID: "1234", Done: true, Restored: []string{"name"}, Left: []string{"photo"}, Journals: []string{"east"}}))
	require.Contains(t, text.String(), "these columns are restored: name; these are not: photo")
}

// TestCells: values that differ never look the same.
func TestCells(t *testing.T) {
	long := strings.Repeat("long ", 60)
	for name, c := range map[string]struct{ a, b, wantA, wantB string }{
		"short":       {"a", "b", "a", "b"},
		"equal":       {long, long, long[:59] + "…", long[:59] + "…"},
		"begin":       {"x" + long, "y" + long, "x" + long[:58] + "…", "y" + long[:58] + "…"},
		"end":         {long + "a", long + "b", "…" + long[len(long)-20:] + "a", "…" + long[len(long)-20:] + "b"},
		"longer":      {long, long + "more", "…" + long[len(long)-20:], "…" + long[len(long)-20:] + "more"},
		"like null":   {quoted("NULL"), null, `"NULL"`, "NULL"},
		"like no row": {quoted("(no row)"), noRow, `"(no row)"`, "(no row)"},
		"blanks":      {quoted("  "), quoted("   "), `"  "`, `"   "`},
		"control":     {quoted("a\tb"), quoted("a b"), `"a\tb"`, "a b"},
		"quoted":      {quoted(`"NULL"`), quoted("NULL"), `"\"NULL\""`, `"NULL"`},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := apart(c.a, c.b)
			require.Equal(t, c.wantA, a)
			require.Equal(t, c.wantB, b)
		})
	}
}
