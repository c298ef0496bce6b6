package notify

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/checkpoint"
	"replicator/config"
	"replicator/notify/notifytest"
)

var contacts = []string{"dba-east@example.org", "dba-west@example.org", "dba-north@example.org"}

// finding is what a comparison has found: two rows of one table, more of others.
func (w *world) finding(t *testing.T, on int, id byte, more ...FoundTable) {
	t.Helper()
	f := Finding{
		Began: noon, Servers: []string{"east", "west", "north"}, Incomplete: []FoundTable{{Database: "shop", Table: "away"}},
		Tables: append([]FoundTable{{Database: "shop", Table: "stock", Rows: 7, Keys: []json.RawMessage{[]byte(`{"id":1,"ssn":"x1"}`), []byte(`{"id":2,"ssn":"x2"}`)}}}, more...),
	}
	detail, err := json.Marshal(f)
	require.NoError(t, err)
	require.NoError(t, checkpoint.SaveFinding(t.Context(), w.db(on), [8]byte{id, 1}, noon, detail))
}

// told waits until nothing is left to be told of comparisons.
func (w *world) told(t *testing.T, on int) {
	t.Helper()
	eventually(t, func() bool { return w.count(t, on, "replicator.verification WHERE notified = 0") == 0 }, "the comparison is told")
}

// comparisonTold: what a comparison has found reaches the contacts of all servers and the webhook, once, and nothing of
// tables that are muted and columns that are redacted.
func comparisonTold(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, withUsers+`
tables: {rules: [{match: "shop.sessions", conflict: {mute: true}}, {match: "shop.stock", conflict: {redact: [ssn]}}]}
`)
	w.finding(t, east, 1, FoundTable{Database: "shop", Table: "sessions", Rows: 3}, FoundTable{Database: "shop", Table: "odd; name", Rows: 1})
	w.run(t, c, []int{east, west, north})
	w.told(t, east)
	stays(t, func() bool { return len(office.All()) == len(contacts) }, "each contact hears of it once")
	for _, address := range contacts {
		mails := office.To(address)
		require.Len(t, mails, 1, address)
		m := mails[0]
		require.Equal(t, "[shop] The servers differ", m.Subject(t))
		require.Contains(t, m.Body, "The servers of the mesh shop were compared, beginning at 2026-11-21 12:00:00.123456 UTC. They are not equal.")
		require.Contains(t, m.Body, "Table shop.stock: 7 rows differ\n  id = 1, ssn = (redacted)\n  id = 2, ssn = (redacted)\n  and 5 more\n")
		require.Contains(t, m.Body, "To look closer:  replicator verify shop.stock\n  To repair:       replicator resync table shop.stock --from A --to B\n")
		require.Contains(t, m.Body, "Table shop.odd; name: 1 row differs\n  To look closer:  replicator verify\n\n")
		require.Contains(t, m.Body, "The servers are east, west, north.\nNot compared, or not to the end: shop.away.\n")
		require.NotContains(t, m.Body, "sessions")
		require.NotContains(t, m.Body, "two changes of one row")
	}
	// The next comparison that finds something is told again; one of muted tables alone is not.
	w.fresh(t)
	f, err := json.Marshal(Finding{Began: noon, Servers: []string{"east"}, Tables: []FoundTable{{Database: "shop", Table: "sessions", Rows: 3}}})
	require.NoError(t, err)
	require.NoError(t, checkpoint.SaveFinding(t.Context(), w.db(east), [8]byte{9}, noon, f))
	w.told(t, east)
	require.Len(t, office.All(), len(contacts))
	w.finding(t, east, 2)
	w.told(t, east)
	require.Len(t, office.All(), 2*len(contacts))
	require.Equal(t, "[shop] The servers differ in shop.stock", office.To(contacts[0])[1].Subject(t))
}

// comparisonKilled: nobody misses what a comparison has found, or hears of it twice, because a process was killed.
func comparisonKilled(t *testing.T, w *world, where place) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, "")
	w.finding(t, east, 3)
	first := w.run(t, c, []int{east}, at(where, dies))
	<-first.done
	w.run(t, c, []int{east})
	w.told(t, east)
	stays(t, func() bool { return len(office.All()) == len(contacts) }, "each contact hears of it once")
	for _, address := range contacts {
		require.Contains(t, office.To(address)[0].Body, "Table shop.stock: 7 rows differ")
	}
}

// comparisonWaits: a mail server that is down delays it, and what comes up meanwhile goes with it.
func comparisonWaits(t *testing.T, w *world) {
	office := notifytest.New(t, config.SMTPStartTLS)
	c := w.configuration(t, office, "")
	w.finding(t, east, 4)
	d := w.run(t, c, []int{east, west})
	eventually(t, func() bool { return d.logs.FilterMessageSnippet("mails wait").Len() > 0 }, "the mail server is missed")
	w.journal(t, west, w.conflict(1))
	require.Equal(t, 1, w.count(t, east, "replicator.verification WHERE notified = 0"))
	office.Listen(t)
	w.told(t, east)
	w.settles(t, west)
	require.Eventually(t, func() bool { return len(office.All()) >= len(contacts) }, time.Minute, 20*time.Millisecond)
	all := ""
	for _, m := range office.To(contacts[west]) {
		all += m.Body
	}
	require.Contains(t, all, "Table shop.stock: 7 rows differ")
	require.Contains(t, all, "Row:   id = 1")
}
