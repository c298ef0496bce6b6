package notify

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/config"
	"replicator/journal"
)

// receiver is a real HTTP server that keeps what it gets.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	bodies [][]byte
	signed []string
	ids    []string
}

func newReceiver(t *testing.T, status int) *receiver {
	r := &receiver{status: status}
	r.Server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		body, _ := io.ReadAll(in.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bodies = append(r.bodies, body)
		r.signed = append(r.signed, in.Header.Get(SignatureHeader))
		r.ids = append(r.ids, in.Header.Get(DeliveryHeader))
		out.WriteHeader(r.status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.bodies, r.signed, r.ids = status, nil, nil, nil
}

func (r *receiver) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.bodies)
}

// body is what a receiver reads of a request.
type body struct {
	ID        string `json:"id"`
	Mesh      string `json:"mesh"`
	Total     int    `json:"total"`
	Conflicts []struct {
		ID     string         `json:"id"`
		Table  string         `json:"table"`
		Key    map[string]any `json:"key"`
		Kind   string         `json:"kind"`
		Winner struct {
			Server string    `json:"server"`
			Time   time.Time `json:"time"`
			User   string    `json:"user"`
		} `json:"winner"`
		Columns []struct {
			Name   string `json:"name"`
			Winner any    `json:"winner"`
			Loser  any    `json:"loser"`
		} `json:"columns"`
		Restore string `json:"restore"`
	} `json:"conflicts"`
}

func (r *receiver) read(t *testing.T) (out []body) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, raw := range r.bodies {
		require.Equal(t, Sign([]byte("s3cret"), raw), r.signed[i])
		var b body
		require.NoError(t, json.Unmarshal(raw, &b))
		require.Equal(t, r.ids[i], b.ID)
		out = append(out, b)
	}
	return out
}

func (w *world) hookConfiguration(t *testing.T, url string) *config.Config {
	c := w.configuration(t, nil, `
tables: {rules: [{match: "shop.*", conflict: {redact: [ssn]}}]}
`)
	c.Notify.Webhook = config.Webhook{URL: url, Secret: config.NewSecret("s3cret")}
	return c
}

// hookTold: a webhook that fails at first gets every conflict once, signed.
func hookTold(t *testing.T, w *world) {
	r := newReceiver(t, http.StatusInternalServerError)
	d := w.run(t, w.hookConfiguration(t, r.URL+"/hook?token=t0ken"), []int{west, north})
	e := w.conflict(1)
	w.journal(t, west, e)
	w.journal(t, north, e)
	eventually(t, func() bool { return r.requests() >= 2 }, "it is tried again")
	first := r.read(t)
	require.Equal(t, first[0].ID, first[1].ID, "under the same id")
	r.answer(http.StatusNoContent)
	w.settles(t, west, north)
	stays(t, func() bool { return r.requests() == 1 }, "it is told once")
	b := r.read(t)[0]
	require.Equal(t, first[0].ID, b.ID)
	require.Equal(t, "shop", b.Mesh)
	require.Equal(t, 1, b.Total)
	c := b.Conflicts[0]
	require.Equal(t, e.ID().String(), c.ID)
	require.Equal(t, "shop.stock", c.Table)
	require.EqualValues(t, 1, c.Key["id"])
	require.Equal(t, "update_origin_differs", c.Kind)
	require.Equal(t, "east", c.Winner.Server)
	require.Equal(t, e.Winner.Version.Time.Wall(), c.Winner.Time)
	require.Equal(t, "7", c.Winner.User)
	require.Len(t, c.Columns, 3)
	require.Equal(t, "ssn", c.Columns[2].Name)
	require.Equal(t, redacted, c.Columns[2].Loser)
	require.EqualValues(t, 3, c.Columns[0].Loser)
	require.Equal(t, "replicator conflicts restore "+c.ID+" --columns quantity,note,ssn", c.Restore)
	for _, e := range d.logs.All() {
		for _, v := range e.ContextMap() {
			if text, ok := v.(string); ok {
				require.False(t, strings.Contains(text, "t0ken") || strings.Contains(text, "s3cret"), text)
			}
		}
	}
}

// hookStorm: many conflicts come in several requests, each conflict once.
func hookStorm(t *testing.T, w *world) {
	r := newReceiver(t, http.StatusOK)
	const conflicts = 2 * hookEntries
	var entries []*journal.Entry
	for i := range int64(conflicts) {
		entries = append(entries, w.conflict(i))
	}
	w.journal(t, west, entries...)
	w.journal(t, north, entries...)
	c := w.hookConfiguration(t, r.URL)
	w.run(t, c, []int{west})
	w.run(t, c, []int{north})
	w.settles(t, west, north)
	seen := map[string]int{}
	for _, b := range r.read(t) {
		require.LessOrEqual(t, b.Total, hookEntries)
		require.Len(t, b.Conflicts, b.Total)
		for _, c := range b.Conflicts {
			seen[c.ID]++
		}
	}
	require.Len(t, seen, conflicts)
	for id, n := range seen {
		require.Equal(t, 1, n, id)
	}
}
