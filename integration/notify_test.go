package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/config"
	"replicator/notify"
	"replicator/notify/notifytest"
	"replicator/sandbox"
)

// TestBothPartiesAreTold: a conflict on a real mesh of two flavors reaches the contacts of both servers, both users and the
// webhook, each once, although the program is killed while it writes to them.
func TestBothPartiesAreTold(t *testing.T) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	hook := newHook(t)
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB118)
	east, west := c.sites[0], c.sites[1]
	east.own, west.own = `, contact: ["dba-east@example.org"]`, `, contact: ["dba-west@example.org"]`
	smtp := office.Settings()
	c.env = []string{"SMTP_PASSWORD=" + notifytest.Password}
	c.extra = fmt.Sprintf(`conflict:
  change_log: {table: app.change_log}
  users: {query: "SELECT email FROM app.users WHERE id = ?"}
notify:
  smtp: {address: %q, from: %q, username: %q, password: "${SMTP_PASSWORD}", tls: starttls, ca: %q}
  webhook: {url: %q, secret: k3y}
`, smtp.Address, smtp.From, smtp.Username, smtp.CA, hook.server.URL)
	for _, s := range c.sites {
		s.exec(t, "CREATE DATABASE app")
		s.exec(t, "CREATE TABLE app.stock (id INT PRIMARY KEY, quantity INT, note VARCHAR(100) CHARACTER SET utf8mb4)")
		s.exec(t, "CREATE TABLE app.users (id INT PRIMARY KEY, email VARCHAR(100))")
		s.exec(t, "CREATE TABLE app.change_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id INT, `table` VARCHAR(64), record_id VARCHAR(64), comment VARCHAR(200), `timestamp` TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6))")
		s.exec(t, "INSERT INTO app.users VALUES (1, 'ann@example.org'), (2, 'bob@example.org')")
		s.exec(t, "INSERT INTO app.stock VALUES (7, 10, 'as before')")
	}
	c.start()
	c.awaitLinks(time.Minute)
	require.Len(t, strings.Split(c.proveMail(t), "mail to "), 3)
	tests := len(office.All())

	// The program dies when the first mail has arrived whole, and is not accepted yet.
	killed, dead := make(chan struct{}), make(chan struct{})
	var once sync.Once
	office.OnData(func() error {
		once.Do(func() { close(killed) })
		<-dead // nothing else is sent before it dies
		return errors.New("cut off")
	})
	change := func(s *site, user, quantity int, comment string) {
		tx, err := s.db.Begin()
		require.NoError(t, err)
		_, err = tx.Exec("UPDATE app.stock SET quantity = ?, note = ? WHERE id = 7", quantity, comment)
		require.NoError(t, err)
		_, err = tx.Exec("INSERT INTO app.change_log (user_id, `table`, record_id, comment) VALUES (?, 'stock', '7', ?)", user, comment)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
	}
	require.NoError(t, west.proxy.Cut())
	change(east, 1, 5, "sold five")
	change(west, 2, 12, "found two")
	require.NoError(t, west.proxy.Heal())
	select {
	case <-killed:
	case <-time.After(slowness * time.Minute):
		t.Fatal("no mail is sent")
	}
	c.kill()
	close(dead)
	office.OnData(nil)
	c.start()

	await(t, 2*time.Minute, c.everybodyIsTold)
	require.Len(t, office.All(), tests+4)
	for _, address := range []string{"dba-east@example.org", "dba-west@example.org", "ann@example.org", "bob@example.org"} {
		mails := office.To(address)
		m := mails[len(mails)-1]
		require.Equal(t, 1, m.Total())
		require.Contains(t, m.Body, "Table: app.stock")
		require.Contains(t, m.Body, "Row:   id = 7")
		require.Contains(t, m.Body, "by user 1, who wrote: sold five")
		require.Contains(t, m.Body, "by user 2, who wrote: found two")
		require.Regexp(t, `quantity +(5 +12|12 +5)`, m.Body)
	}
	for _, id := range hook.told(t, 1) {
		require.Contains(t, office.To("ann@example.org")[0].Body, "replicator conflicts restore "+id)
	}
	require.NotContains(t, c.log.tail(10_000), notifytest.Password)
	require.NotContains(t, c.log.tail(10_000), "k3y")
	require.Less(t, c.stop(), 10*time.Second)
}

// proveMail runs check --test-mail and returns what it says of mails.
func (c *cluster) proveMail(t *testing.T) string {
	t.Helper()
	var said []string
	cmd := exec.Command(c.binary, "check", "--test-mail", "--config", filepath.Join(c.dir, "replicator.yaml"))
	cmd.Env = append(os.Environ(), c.env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "mail to ") || strings.Contains(line, "webhook") || strings.Contains(line, "users.query") {
			require.True(t, strings.HasPrefix(line, "pass"), line)
			said = append(said, line)
		}
	}
	return strings.Join(said, "")
}

// everybodyIsTold fails while a journal has an entry of which somebody has not heard.
func (c *cluster) everybodyIsTold() error {
	n := 0
	for _, s := range c.sites {
		var one int
		if err := s.db.QueryRow("SELECT COUNT(*) FROM replicator.conflict WHERE notified = 0").Scan(&one); err != nil {
			return err
		}
		n += one
	}
	if n > 0 {
		return fmt.Errorf("%d entries are not told", n)
	}
	return nil
}

// hook is a program that takes webhooks.
type hook struct {
	server *httptest.Server
	mu     sync.Mutex
	heard  map[string]int // how often, by conflict
	wrong  int            // with a wrong signature
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{heard: map[string]int{}}
	h.server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var b struct{ Conflicts []struct{ ID string } }
		h.mu.Lock()
		defer h.mu.Unlock()
		if json.Unmarshal(body, &b) != nil || r.Header.Get(notify.SignatureHeader) != notify.Sign([]byte("k3y"), body) {
			h.wrong++
		}
		for _, c := range b.Conflicts {
			h.heard[c.ID]++
		}
	}))
	t.Cleanup(h.server.Close)
	return h
}

// told demands that so many conflicts have been heard of, each once, and returns their ids.
func (h *hook) told(t *testing.T, conflicts int) []string {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.heard, "") // of check --test-mail
	require.Zero(t, h.wrong)
	require.Len(t, h.heard, conflicts)
	var ids []string
	for id, n := range h.heard {
		require.Equal(t, 1, n, id)
		ids = append(ids, id)
	}
	return ids
}
