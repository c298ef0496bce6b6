package notify

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/journal"
	"replicator/notify/notifytest"
	"replicator/server"
)

var everybody = []string{"dba-east@example.org", "dba-west@example.org", "Ann@example.org", "bob@example.org"}

// TestDesk runs all scenarios on one set of servers.
func TestDesk(t *testing.T) {
	w := newWorld(t)
	for _, s := range []struct {
		name string
		f    func(*testing.T, *world)
	}{
		{"everybody over starttls", func(t *testing.T, w *world) { everybodyIsTold(t, w, config.SMTPStartTLS) }},
		{"everybody over implicit TLS", func(t *testing.T, w *world) { everybodyIsTold(t, w, config.SMTPImplicit) }},
		{"killed after the claim", func(t *testing.T, w *world) { killed(t, w, afterClaim) }},
		{"killed before sending", func(t *testing.T, w *world) { killed(t, w, beforeSend) }},
		{"killed after sending", func(t *testing.T, w *world) { killed(t, w, afterSend) }},
		{"mail server silent after its answer", silentAfterAnswer},
		{"one server slow to record", slowToRecord},
		{"recorded after a takeover", recordedLate},
		{"paused past its lease", paused},
		{"two processes", twoProcesses},
		{"mail server down", mailServerDown},
		{"wrong password", wrongPassword},
		{"slow mail server", slowMailServer},
		{"storm", storm},
		{"refused recipient", refusedRecipient},
		{"recipient delayed", delayedRecipient},
		{"redacted, muted, lost nothing", redactedAndMuted},
		{"long value", longValueLost},
		{"injection", injection},
		{"server down", serverDown},
		{"server down while it is recorded", downWhileRecorded},
		{"users that cannot be looked up", badUsersQuery},
		{"unknown origins", unknownOrigins},
		{"forgetting", forgetting},
		{"quiet", quiet},
		{"comparison", comparisonTold},
		{"comparison, killed after the claim", func(t *testing.T, w *world) { comparisonKilled(t, w, afterClaim) }},
		{"comparison, killed before sending", func(t *testing.T, w *world) { comparisonKilled(t, w, beforeSend) }},
		{"comparison, mail server down", comparisonWaits},
		{"webhook", hookTold},
		{"webhook storm", hookStorm},
	} {
		t.Run(s.name, func(t *testing.T) {
			w.fresh(t)
			s.f(t, w)
		})
	}
}

// everybodyIsTold: one conflict, journaled on two servers, reaches both contacts and both users once.
func everybodyIsTold(t *testing.T, w *world, mode string) {
	office := notifytest.Open(t, mode)
	e := w.conflict(1)
	w.journal(t, west, e)
	w.journal(t, north, e)
	w.run(t, w.configuration(t, office, withUsers), []int{east, west, north})
	w.settles(t, west, north)
	stays(t, func() bool { return len(office.All()) == len(everybody) }, "nobody hears of it twice")
	for _, address := range everybody {
		mails := office.To(address)
		require.Len(t, mails, 1, address)
		m := mails[0]
		require.Equal(t, "[shop] Replication conflict in shop.stock", m.Subject(t))
		require.Equal(t, "auto-generated", m.Header.Get("Auto-Submitted"))
		require.NotEmpty(t, m.Header.Get("References"))
		require.Contains(t, m.Body, "Row:   id = 1")
		require.Contains(t, m.Body, "both sides changed the row")
		require.Contains(t, m.Body, "Won:   the change made on east at "+e.Winner.Version.Time.Wall().Format("2006-01-02 15:04:05.000000 UTC")+" by user 7, who wrote: restocked")
		require.Contains(t, m.Body, "Lost:  the change made on west at "+e.Loser.Version.Time.Wall().Format("2006-01-02 15:04:05.000000 UTC")+" by user 8, who wrote: sold two")
		require.Regexp(t, `quantity +3 +5`, m.Body)
		require.Regexp(t, `note +old +new`, m.Body)
		require.Contains(t, m.Body, "To put back what was lost:  replicator conflicts restore "+e.ID().String()+" --columns quantity,note,ssn\n")
	}
	require.Equal(t, 1, office.Logins(), "one connection carries all of them")
	require.Equal(t, 4, w.count(t, west, "replicator.notice WHERE sent_at IS NOT NULL AND id <> REPEAT('\\0', 8)"), "notices are kept at the loser's origin")
}

// dies ends the goroutine of a desk at once, as a kill ends a process: what it holds in the servers stays as it is.
func dies() { runtime.Goexit() }

func killed(t *testing.T, w *world, where place) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, withUsers)
	w.journal(t, west, w.conflict(0), w.conflict(1), w.conflict(2)) // before, so that one message tells of all three
	first := w.run(t, c, []int{west}, at(where, dies))
	<-first.done
	w.journal(t, west, w.conflict(99))
	w.run(t, c, []int{west})
	w.settles(t, west)
	for _, address := range everybody {
		byID := map[string]int{}
		sent := 0
		for _, m := range office.To(address) {
			if byID[m.ID()]++; byID[m.ID()] == 1 {
				sent += m.Total()
			}
		}
		require.Equal(t, 4, sent, "%s hears of every conflict", address)
		if where != afterSend {
			require.Equal(t, 4, office.Counted(address), "%s hears of every conflict once", address)
		}
	}
	if where == afterSend {
		// The mail that the server had taken, but that had not been recorded, came again: under the same Message-ID.
		require.Equal(t, 4*4+3, office.Counted(everybody[0])+office.Counted(everybody[1])+office.Counted(everybody[2])+office.Counted(everybody[3]))
	}
}

// silentAfterAnswer: that a mail has arrived is recorded as soon as the mail server has said so, whatever it says next.
func silentAfterAnswer(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	speak := make(chan struct{})
	defer close(speak)
	office.AfterAnswer(func() { <-speak })
	e := w.conflict(1)
	e.Winner.Version.Origin = w.servers[west].ID // one party
	w.journal(t, west, e)
	w.run(t, w.configuration(t, office, ""), []int{west})
	eventually(t, func() bool { return len(office.All()) == 1 }, "the mail is sent")
	require.Eventually(t, func() bool { return w.count(t, west, "replicator.conflict WHERE notified = 0") == 0 }, sendTimeout/3, 20*time.Millisecond,
		"it is recorded")
}

// slowToRecord: a server that is slow to record that a mail has arrived holds up no other one, and one that has recorded it
// is enough: when the process dies then, the next does not send it again.
func slowToRecord(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, "")
	e := w.conflict(1)
	e.Winner.Version.Origin = w.servers[west].ID // one party
	w.journal(t, west, e)
	lock, err := w.db(east).BeginTx(t.Context(), nil) // of the servers with a head, the first
	require.NoError(t, err)
	defer func() { _ = lock.Rollback() }()
	first := w.run(t, c, []int{west}, at(afterSend, func() {
		_, err := lock.Exec("UPDATE replicator.notice SET claimed_at = claimed_at")
		require.NoError(t, err)
	}))
	eventually(t, func() bool { return len(office.All()) == 1 }, "the mail is sent")
	require.Eventually(t, func() bool {
		return w.count(t, west, "replicator.notice WHERE sent_at IS NULL") == 0 && w.count(t, north, "replicator.notice WHERE sent_at IS NULL") == 0
	}, statementTimeout/2, 20*time.Millisecond, "the others record it")
	require.Equal(t, 1, w.count(t, east, "replicator.notice WHERE sent_at IS NULL"), "one does not know of it")
	first.stop()
	<-first.done
	require.NoError(t, lock.Rollback())
	// The entry is open again, as when the process dies before it marks it.
	w.exec(t, west, "UPDATE replicator.conflict SET notified = 0")
	w.run(t, c, []int{west})
	w.settles(t, west)
	stays(t, func() bool { return len(office.All()) == 1 }, "it is not sent again")
}

// recordedLate: a process that wakes up after its lease still records what it sent, and so the one that has taken over does
// not send it again.
func recordedLate(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, "")
	e := w.conflict(1)
	e.Winner.Version.Origin = w.servers[west].ID // one party
	w.journal(t, west, e)
	asleep, wake, taken, send := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	w.run(t, c, []int{west}, at(afterSend, func() { close(asleep); <-wake }))
	<-asleep
	for i := range w.servers { // its lease is over, and it does not renew it
		w.exec(t, i, "UPDATE replicator.notice SET claimed_by = 'late', claimed_at = claimed_at - INTERVAL 1 HOUR WHERE id = REPEAT('\\0', 8)")
	}
	second := w.run(t, c, []int{west}, at(afterClaim, func() { close(taken); <-send }))
	<-taken
	require.Equal(t, 1, w.count(t, west, "replicator.notice WHERE sent_at IS NULL AND id <> REPEAT('\\0', 8)"))
	close(wake)
	eventually(t, func() bool { return w.count(t, west, "replicator.notice WHERE sent_at IS NULL") == 0 }, "it is recorded")
	close(send)
	w.settles(t, west)
	stays(t, func() bool { return len(office.All()) == 1 }, "it is not sent again")
	require.Zero(t, second.Stats.Sent.Load()+second.Stats.Failed.Load())
}

// paused: a process that stops before sending, and wakes up when another has sent, sends nothing.
func paused(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, "")
	asleep, wake := make(chan struct{}), make(chan struct{})
	w.run(t, c, []int{west}, at(afterClaim, func() { close(asleep); <-wake }))
	w.journal(t, west, w.conflict(1))
	<-asleep
	w.run(t, c, []int{west})
	w.settles(t, west)
	close(wake)
	stays(t, func() bool { return len(office.All()) == 2 }, "the sleeper's notice is void")
}

// twoProcesses serve servers with copies of the same conflicts: each party hears of each once, and of no more than one mail
// in a while.
func twoProcesses(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, withUsers)
	one := w.run(t, c, []int{west, east})
	two := w.run(t, c, []int{north})
	const conflicts = 60
	for i := range int64(conflicts) {
		e := w.conflict(i)
		if i%2 == 1 { // its notices are kept elsewhere
			e.Winner.Version.Origin, e.Loser.Version.Origin = e.Loser.Version.Origin, e.Winner.Version.Origin
		}
		for _, s := range []int{west, north, east} {
			w.journal(t, s, e)
		}
	}
	w.settles(t, west, north, east)
	for _, address := range everybody {
		require.Equal(t, conflicts, office.Counted(address), address)
		mails := office.To(address)
		for i := 1; i < len(mails); i++ {
			require.Greater(t, mails[i].At.Sub(mails[i-1].At), testPace.Every-50*time.Millisecond, "%s gets its mails one by one", address)
		}
	}
	require.Positive(t, one.Stats.Sent.Load()+two.Stats.Sent.Load())
}

func mailServerDown(t *testing.T, w *world) {
	office := notifytest.New(t, config.SMTPImplicit)
	d := w.run(t, w.configuration(t, office, withUsers), []int{west})
	for id := range int64(20) {
		w.journal(t, west, w.conflict(id))
	}
	eventually(t, func() bool { return d.logs.FilterMessage("the mail server cannot be used: mails wait").Len() > 0 }, "it is noticed")
	stays(t, func() bool { return w.count(t, west, "replicator.notice") == 0 }, "nothing is written while nothing can be sent")
	require.Equal(t, 1, d.logs.FilterMessage("the mail server cannot be used: mails wait").Len(), "it is said once")
	office.Listen(t)
	w.settles(t, west)
	for _, address := range everybody {
		require.Equal(t, 20, office.Counted(address), address)
	}
}

// wrongPassword: a login that is refused delays mails too, and no secret is shown.
func wrongPassword(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, "")
	c.Notify.SMTP.Password = config.NewSecret("wr0ng-passw0rd")
	d := w.run(t, c, []int{west})
	w.journal(t, west, w.conflict(1))
	eventually(t, func() bool { return d.logs.FilterMessage("the mail server cannot be used: mails wait").Len() > 0 }, "it is noticed")
	for _, e := range d.logs.All() {
		for _, v := range e.ContextMap() {
			require.NotContains(t, fmt.Sprint(v), "wr0ng")
		}
	}
	require.Equal(t, "login", d.logs.FilterMessage("the mail server cannot be used: mails wait").All()[0].ContextMap()["class"])
	require.Equal(t, 1, w.count(t, west, "replicator.conflict WHERE notified = 0"))
	d.stop()
	w.run(t, w.configuration(t, office, ""), []int{west})
	w.settles(t, west)
	require.Len(t, office.All(), 2)
}

// slowMailServer: while a mail server takes its time, longer than a lease, nobody else takes the notice over.
func slowMailServer(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	office.OnData(func() error { <-time.After(2 * testPace.Lease); return nil })
	c := w.configuration(t, office, "")
	one, two := w.run(t, c, []int{west}), w.run(t, c, []int{west})
	e := w.conflict(1)
	e.Winner.Version.Origin = w.servers[west].ID // one party: the other process has nothing else to do
	w.journal(t, west, e)
	w.settles(t, west)
	stays(t, func() bool { return len(office.All()) == 1 }, "one mail")
	require.Zero(t, one.Stats.Failed.Load()+two.Stats.Failed.Load())
}

// storm: a thousand conflicts make a few mails that can be read.
func storm(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	var entries []*journal.Entry
	for i := range int64(1000) {
		e := w.conflict(i % 7 * (i % 2)) // row 0 is the worst
		if i%10 == 0 {
			e.Kind = journal.UpdateDeleted
			e.Winner.Row = nil
		}
		entries = append(entries, e)
	}
	w.run(t, w.configuration(t, office, withUsers), []int{west})
	began := time.Now()
	for part := range slices.Chunk(entries, 100) {
		w.journal(t, west, part...)
	}
	few := 6 + int(time.Since(began)/testPace.Every) // meanwhile each may get one a second
	w.settles(t, west)
	for _, address := range everybody {
		require.Equal(t, 1000, office.Counted(address), address)
		mails := office.To(address)
		require.LessOrEqual(t, len(mails), few, "not one each")
		longest := slices.MaxFunc(mails, func(a, b notifytest.Mail) int { return a.Total() - b.Total() })
		require.Contains(t, longest.Body, "By table and kind:")
		require.Regexp(t, `\d+  shop\.stock: both sides changed the row`, longest.Body)
		require.Regexp(t, `Rows with the most conflicts:\n +\d+  shop\.stock, id = 0\n`, longest.Body)
		require.Contains(t, longest.Body, "All of them: replicator conflicts list")
		require.LessOrEqual(t, strings.Count(longest.Body, "\nConflict "), mailDetails)
		require.Less(t, len(longest.Body), 20_000)
	}
}

func refusedRecipient(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	office.Refuse("dba-west@example.org", 550)
	d := w.run(t, w.configuration(t, office, withUsers), []int{west})
	w.journal(t, west, w.conflict(1))
	w.settles(t, west)
	w.journal(t, west, w.conflict(2))
	w.settles(t, west)
	require.Equal(t, 2, office.Counted("dba-east@example.org"))
	require.Equal(t, 2, office.Counted("bob@example.org"))
	require.Zero(t, office.Counted("dba-west@example.org"))
	require.Equal(t, 1, d.logs.FilterMessage("a recipient is refused").Len(), "it is logged once")
	require.EqualValues(t, 2, d.Stats.Refused.Load())
	require.Equal(t, 2, w.count(t, west, "replicator.notice WHERE party = 'dba-west@example.org' AND message LIKE 'refused: %550%' AND id <> REPEAT('\\0', 8)"))
}

func delayedRecipient(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	office.Refuse("dba-west@example.org", 451)
	d := w.run(t, w.configuration(t, office, ""), []int{west})
	w.journal(t, west, w.conflict(1))
	eventually(t, func() bool { return office.Counted("dba-east@example.org") == 1 && d.Stats.Failed.Load() > 1 }, "the other is told")
	require.Equal(t, 1, w.count(t, west, "replicator.conflict WHERE notified = 0"))
	office.Refuse("dba-west@example.org", 0)
	w.settles(t, west)
	require.Equal(t, 1, office.Counted("dba-east@example.org"))
	require.Equal(t, 1, office.Counted("dba-west@example.org"))
}

func redactedAndMuted(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, `
tables:
  rules:
    - {match: "shop.quiet", conflict: {mute: true}}
    - {match: "shop.*", conflict: {redact: [SSN, id]}}
`)
	muted, equal, told := w.conflict(1), w.conflict(2), w.conflict(123456)
	muted.Table.Table = "quiet"
	equal.Loser.Row = equal.Winner.Row
	w.journal(t, west, muted, equal, told)
	w.run(t, c, []int{west})
	w.settles(t, west)
	stays(t, func() bool { return len(office.All()) == 2 }, "one conflict is told")
	for _, m := range office.All() {
		require.Contains(t, m.Body, "Conflict "+told.ID().String())
		require.Regexp(t, `ssn +\(redacted\) +\(redacted\)`, m.Body)
		require.Contains(t, m.Body, "id = (redacted)")
		require.NotContains(t, m.Body, "secret-")
		require.NotContains(t, m.Body, "123456")
	}
}

// longValueLost: where the journal did not keep a long value, the mail has the command for the other columns, and says so when
// there are none.
func longValueLost(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	partly, gone := w.conflict(1), w.conflict(2)
	for _, e := range []*journal.Entry{partly, gone} {
		e.Loser.Row.Values[2].Bytes = bytes.Repeat([]byte("x"), 1<<20+1)
	}
	gone.Winner.Row = nil
	w.journal(t, west, partly, gone)
	w.run(t, w.configuration(t, office, ""), []int{west})
	w.settles(t, west)
	command := "replicator conflicts restore " + partly.ID().String() + " --columns quantity,ssn"
	var said string
	for _, m := range office.To(w.servers[west].Contact[0]) {
		said += m.Body
	}
	require.Contains(t, said, "To put back the others:     "+command+"\n")
	require.NotContains(t, said, "conflicts restore "+gone.ID().String())
	require.Equal(t, 1, strings.Count(said, "cannot be put back by a command: the journal does not have all of it"))
}

// injection: nothing that stands in a database becomes a header, a recipient or a line of its own.
func injection(t *testing.T, w *world) {
	const evil = "x\r\nBcc: evil@example.org\r\n\r\nYou are fired.\n.\r\nMAIL FROM:<a@b>\u202e"
	office := notifytest.Open(t, config.SMTPStartTLS)
	w.exec(t, east, "INSERT INTO personnel.users VALUES (66, 'eve@example.org\r\nBcc: evil@example.org'), (67, 'a@b.org, c@d.org'), (68, '<script@x.org>')")
	defer w.exec(t, east, "DELETE FROM personnel.users WHERE id > 60")
	table := *stock
	table.Name.Table = evil
	table.Columns = slices.Clone(stock.Columns)
	table.Columns[1].Name = evil
	for i, user := range []string{"66", "67", "68", evil} {
		e := w.conflict(int64(i))
		e.Table = table.Name
		e.KeyRow = stockRow(&table, 1, 0, "")
		e.Winner.Row, e.Loser.Row = stockRow(&table, 1, 1, evil), stockRow(&table, 1, 2, "")
		e.Winner.User, e.Loser.User, e.Winner.Comment = user, "", evil
		w.journal(t, west, e)
	}
	w.run(t, w.configuration(t, office, withUsers), []int{west})
	w.settles(t, west)
	require.Zero(t, len(slices.DeleteFunc(office.All(), func(r notifytest.Mail) bool { return strings.HasPrefix(r.To, "dba-") })), "only the contacts have an address")
	for _, address := range everybody[:2] {
		require.Equal(t, 4, office.Counted(address))
	}
	for _, m := range office.All() {
		require.Empty(t, m.Header.Get("Bcc"))
		require.Len(t, m.Header["To"], 1)
		require.NotContains(t, m.Body, "\u202e")
		require.NotContains(t, m.Body, "\nBcc:")
		require.NotContains(t, m.Body, "\nYou are fired")
		require.NotContains(t, m.Body, "\n.")
		require.NotContains(t, m.Subject(t), "\n")
	}
}

// serverDown: notices wait for the server that keeps them, and nobody else waits.
func serverDown(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	w.run(t, w.configuration(t, office, ""), []int{east, west})
	require.NoError(t, w.hosts[north].Stop())
	away, here := w.conflict(1), w.conflict(2)
	away.Loser.Version.Origin = w.servers[north].ID
	w.journal(t, east, away, here)
	eventually(t, func() bool {
		return office.Counted("dba-west@example.org") == 1 && office.Counted("dba-east@example.org") == 1
	}, "what can be told is told")
	stays(t, func() bool { return office.Counted("dba-east@example.org") == 1 }, "the other waits")
	require.NoError(t, w.hosts[north].Restart(t.Context()))
	w.settles(t, east)
	require.Equal(t, 2, office.Counted("dba-east@example.org"))
	require.Equal(t, 1, office.Counted("dba-north@example.org"))
}

// downWhileRecorded: what has arrived does not arrive again because a server could not be told so, and what comes next does
// not wait for that server.
func downWhileRecorded(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := w.configuration(t, office, "")
	d := w.run(t, c, []int{west}, at(afterSend, func() { require.NoError(t, w.hosts[north].Stop()) }))
	w.journal(t, west, w.conflict(1))
	w.settles(t, west)
	w.journal(t, west, w.conflict(2))
	w.settles(t, west)
	require.Equal(t, 2, office.Counted("dba-east@example.org"))
	require.NoError(t, w.hosts[north].Restart(t.Context()))
	eventually(t, func() bool {
		return w.count(t, north, "replicator.notice WHERE sent_at IS NULL AND party = 'dba-east@example.org'") == 0
	}, "it is recorded late")
	d.stop()
	<-d.done
	w.run(t, c, []int{west})
	w.journal(t, west, w.conflict(3))
	w.settles(t, west)
	require.Equal(t, 3, office.Counted("dba-east@example.org"))
	require.Equal(t, 3, office.Counted("dba-west@example.org"))
}

// unknownOrigins: changes of which nobody knows who made them, and those of a server that has left the mesh.
func unknownOrigins(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	oldLoser, gone, nobody := w.conflict(1), w.conflict(2), w.conflict(3)
	oldLoser.Loser.Version = change.Version{}
	gone.Loser.Version.Origin = change.ServerID{99}
	nobody.Loser.Version, nobody.Winner.Version = change.Version{}, change.Version{}
	w.journal(t, west, oldLoser, gone, nobody)
	w.journal(t, north, oldLoser, gone, nobody)
	w.run(t, w.configuration(t, office, ""), []int{west, north})
	w.settles(t, west, north)
	require.Equal(t, 2, office.Counted("dba-east@example.org"))
	require.Len(t, office.All(), 1, "the others have nobody to be told")
	require.Contains(t, office.All()[0].Body, "an earlier change")
}

func forgetting(t *testing.T, w *world) {
	for i := range w.servers {
		w.exec(t, i, `INSERT INTO replicator.notice (id, party, claimed_by, claimed_at, sent_at) VALUES
 ('12345678', 'a@b', 'x', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) - INTERVAL 50 HOUR), ('12345678', 'c@d', 'x', UTC_TIMESTAMP(6), NULL),
 ('12345678', 'webhook', 'x', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) - INTERVAL 40 HOUR)`)
		require.NoError(t, forget(t.Context(), w.db(i), 45*time.Hour))
		require.Zero(t, w.count(t, i, "replicator.notice WHERE party = 'a@b'"))
		require.Equal(t, 2, w.count(t, i, "replicator.notice"))
	}
}

func badUsersQuery(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	d := w.run(t, w.configuration(t, office, strings.ReplaceAll(withUsers, "personnel.users", "personnel.nobody")), []int{west})
	w.journal(t, west, w.conflict(1), w.conflict(2))
	w.settles(t, west)
	require.Len(t, d.logs.FilterMessage("users cannot be looked up").All(), 2, "once for each server")
	require.Equal(t, 2, office.Counted("dba-east@example.org"))
}

// quiet: with nothing to tell, nothing is written.
func quiet(t *testing.T, w *world) {
	office := notifytest.Open(t, config.SMTPStartTLS)
	w.journal(t, west, w.conflict(1))
	w.run(t, w.configuration(t, office, ""), []int{east, west, north})
	w.settles(t, west)
	ends := func() (out []change.FilePosition) {
		for i := range w.servers {
			info, err := server.Probe(t.Context(), w.db(i))
			require.NoError(t, err)
			end, err := server.NewDialect(info).BinlogEnd(t.Context(), w.db(i))
			require.NoError(t, err)
			out = append(out, end)
		}
		return out
	}
	// The notice is recorded on every server before its conflict is marked.
	before := ends()
	stays(t, func() bool { return slices.Equal(before, ends()) }, "the binlogs do not grow")
	require.Len(t, office.All(), 2)
}

// TestNamesOfMessages: what is on its way when servers are out of reach is neither lost nor renamed without need.
func TestNamesOfMessages(t *testing.T) {
	p := party{key: "a@b"}
	a, b := &peer{}, &peer{}
	first := journal.ID{1}
	me := checkpoint.NewOwner()
	fresh := messageID("m", p.key, first[:])
	sent := func(name string) head { return head{exists: true, message: name, sentAt: "2026-01-01", owner: me[:]} }
	set := func(names ...string) map[string]bool {
		s := map[string]bool{}
		for _, n := range names {
			s[n] = true
		}
		return s
	}
	left := func(name string) head { return head{exists: true, message: name, owner: me[:]} }
	for name, c := range map[string]struct {
		heads    map[*peer]head
		left     map[string]bool // messages with conflicts that are not recorded as sent
		complete bool
		want     string
	}{
		"nothing before":                {map[*peer]head{a: {}, b: {}}, set(), true, fresh},
		"another arrived":               {map[*peer]head{a: sent("x"), b: sent("x")}, set(), true, fresh},
		"left behind":                   {map[*peer]head{a: left("x"), b: left("x")}, set("x"), true, "x"},
		"left behind, nothing in it":    {map[*peer]head{a: left("x"), b: sent("y")}, set(), true, fresh},
		"left behind, one out of reach": {map[*peer]head{a: left("x")}, set("x"), false, messageID("m", p.key, []byte("again x"))},
		"arrived, not recorded by all":  {map[*peer]head{a: sent("x"), b: left("x")}, set("x"), true, fresh},
		"its name is taken":             {map[*peer]head{a: sent(fresh)}, set(), true, messageID("m", p.key, []byte("again "+fresh))},
		"two left behind":               {map[*peer]head{a: left("y"), b: left("x")}, set("x", "y"), true, messageID("m", p.key, []byte("again x"))},
	} {
		m := &message{party: p}
		m.plan("m", c.heads, c.left, first, c.complete)
		require.Equal(t, c.want, m.id, name)
	}
}
