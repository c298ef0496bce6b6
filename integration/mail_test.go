package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"replicator/config"
	"replicator/notify/notifytest"
	"replicator/sandbox"
)

// The contacts of both servers get one mail each about a conflict, by a mail server that wants TLS and a password, although
// the program is killed between its decision and the mail, and twice with the mail half sent.
func TestMailOncePerParty(t *testing.T) {
	for _, mode := range []string{config.SMTPImplicit, config.SMTPStartTLS} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			office := notifytest.Open(t, mode)
			c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB118)
			mail := office.Settings()
			c.extra = fmt.Sprintf("notify: {smtp: {address: %q, from: %q, username: %q, password: %q, tls: %s, ca: %q}}\n",
				mail.Address, mail.From, mail.Username, notifytest.Password, mail.TLS, mail.CA)
			for _, s := range c.sites {
				s.own = fmt.Sprintf(", contact: [%q]", contactOf(s))
			}
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			c.sites[0].exec(t, "INSERT INTO app.t VALUES (1, 'first')")
			c.awaitEqual(20*time.Second, "app.t")
			c.kill()
			c.sites[0].exec(t, "UPDATE app.t SET v = 'what east wrote' WHERE id = 1")
			<-time.After(1100 * time.Millisecond) // MariaDB tells times in seconds: the next write is to be the later one
			c.sites[1].exec(t, "UPDATE app.t SET v = 'what west wrote' WHERE id = 1")

			half := make(chan struct{}, 1)
			office.OnData(func() error { // the whole mail is there, and is not accepted
				select {
				case half <- struct{}{}:
				default:
				}
				return errors.New("not now")
			})
			c.start()
			await(t, 60*time.Second, func() error { return c.journaled(1) })
			c.kill() // between decision and sending, most likely
			for range 2 {
				c.start()
				select {
				case <-half:
				case <-time.After(slowness * 60 * time.Second):
					t.Fatal("no mail comes")
				}
				c.kill()
				c.abandonNotices()
			}
			office.OnData(nil)
			c.start()
			await(t, 60*time.Second, func() error { return c.recorded(len(c.sites)) })
			c.kill() // a mail that has been recorded is not sent again, whether the conflict has been marked or not
			c.abandonNotices()
			c.start()
			c.awaitLinks(30 * time.Second)
			await(t, 60*time.Second, c.allNotified)
			if err := c.told(office); err != nil {
				t.Error(err)
				for _, m := range office.All() {
					t.Logf("at %s to %s: %s %q\n%s", m.At.UTC().Format("15:04:05.000000"), m.To, m.ID(), m.Subject(t), m.Body)
				}
			}
			for _, m := range office.All() {
				for _, want := range []string{"what east wrote", "what west wrote", "replicator conflicts restore"} {
					if !strings.Contains(m.Body, want) {
						t.Errorf("the mail to %s does not say %q:\n%s", m.To, want, m.Body)
					}
				}
			}
		})
	}
}

func contactOf(s *site) string { return "dba-" + s.name + "@example.org" }

// journaled reports whether so many conflicts are in some journal.
func (c *cluster) journaled(want int) error {
	for _, s := range c.sites {
		var n int
		if err := s.db.QueryRow("SELECT COUNT(*) FROM replicator.conflict").Scan(&n); err != nil {
			return err
		}
		if n >= want {
			return nil
		}
	}
	return errors.New("no conflict is in a journal")
}

// abandonNotices lets the time pass after which the notices of a process that died are taken over.
func (c *cluster) abandonNotices() {
	c.tb.Helper()
	for _, s := range c.sites {
		s.exec(c.tb, "UPDATE replicator.notice SET claimed_at = claimed_at - INTERVAL 1 MINUTE WHERE sent_at IS NULL")
	}
}

// recorded reports whether so many mails are recorded as sent. The program can be killed then: a mail server's acceptance
// that it has not recorded yet it cannot know of later, and the mail would come again under the same Message-ID.
func (c *cluster) recorded(want int) error {
	sent := map[string]bool{}
	for _, s := range c.sites {
		rows, err := readRows(s.db.Query("SELECT party FROM replicator.notice WHERE id <> REPEAT('\\0', 8) AND sent_at IS NOT NULL"))
		if err != nil {
			return err
		}
		for _, row := range rows {
			sent[row["party"]] = true
		}
	}
	if len(sent) != want {
		return fmt.Errorf("%d mails are recorded as sent", len(sent))
	}
	return nil
}

// told reports whether everybody has one mail.
func (c *cluster) told(office *notifytest.Office) error {
	for _, s := range c.sites {
		if n := len(office.To(contactOf(s))); n != 1 {
			return fmt.Errorf("%s got %d mails", contactOf(s), n)
		}
	}
	if n := len(office.All()); n != len(c.sites) {
		return fmt.Errorf("%d mails were sent", n)
	}
	return nil
}

// allNotified reports whether the journal says that everybody has been told.
func (c *cluster) allNotified() error {
	out, err := c.output("conflicts", "list", "--json")
	if err != nil {
		return err
	}
	var entries []struct {
		ID       string `json:"id"`
		Notified bool   `json:"notified"`
	}
	if err := json.Unmarshal([]byte(out), &entries); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Notified {
			return fmt.Errorf("conflict %s is not notified", e.ID)
		}
	}
	if len(entries) != 1 {
		return fmt.Errorf("there are %d conflicts", len(entries))
	}
	return nil
}
