package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/config"
	"replicator/mesh"
	"replicator/notify/notifytest"
	"replicator/sandbox"
	"replicator/verify"
)

// TestVerifyIsKilled kills verify again and again while it walks through a table. The same command goes on where it was: it
// finds what was planted, before the kills and after them, and does not read again what it had read.
func TestVerifyIsKilled(t *testing.T) {
	t.Parallel()
	for name, flavors := range usually(map[string][]sandbox.Flavor{
		"mysql":   {sandbox.MySQL97, sandbox.MySQL97},
		"mariadb": {sandbox.MariaDB118, sandbox.MariaDB118},
	}, "mariadb") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavors...)
			c.everywhere("CREATE DATABASE app", bigTable, plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			east, west := c.sites[0], c.sites[1]
			fillBig(t, east)
			c.awaitEqual(60*time.Second, "app.big")
			var want []string
			for i, id := range []int{7, 9_001, 9_002, 21_007, 29_990} {
				require.Equal(t, int64(1), c.sites[i%2].hidden(t, "UPDATE app.big SET v = 'planted' WHERE id = ?", id))
				want = append(want, fmt.Sprintf(`{"id":"%d"}`, id))
			}
			for _, s := range c.sites { // so that there is time to kill
				require.NoError(t, s.proxy.Latency(30*time.Millisecond, 0))
			}
			before, reached, r := west.rowsRead(t), int64(0), rand.New(rand.NewPCG(3, uint64(len(name))))
			const kills = 2
			for range kills {
				reached = c.killVerify(t, reached+r.Int64N(bigRows/(kills+1)))
			}
			d, said := c.verifyOn(t, "app.big", "app.t")
			require.Contains(t, said, "going on where an earlier comparison ended")
			read := west.rowsRead(t) - before
			t.Logf("killed %d times, last at %d of %d rows; west read %d rows", kills, reached, bigRows, read)
			require.Less(t, read, int64(2*bigRows))
			var found []string
			for _, x := range d.Tables[0].Differences {
				found = append(found, strings.Join(strings.Fields(string(x.Key)), ""))
			}
			slices.Sort(found)
			slices.Sort(want)
			require.Equal(t, want, found)
			require.Equal(t, fmt.Sprint(len(want)), *d.Tables[0].Total)
			require.Equal(t, fmt.Sprint(bigRows), *d.Tables[0].Rows["west"])
			require.True(t, *d.Tables[1].Equal)
			for _, s := range c.sites {
				var progress, results int
				require.NoError(t, s.db.QueryRow("SELECT COALESCE(SUM(kind = 'progress'), 0), COALESCE(SUM(kind = 'result'), 0) FROM replicator.verification").Scan(&progress, &results))
				require.Zero(t, progress, s.name)
				require.Equal(t, 2, results, s.name)
			}
			await(t, 20*time.Second, func() error { return c.showsVerified("app.big", false) })
			require.NoError(t, c.showsVerified("app.t", true))
			out, err := c.try("status")
			require.NoError(t, err)
			require.Regexp(t, `app\.big +replay .*DIFFERS, `, out)
			require.Regexp(t, `app\.t .*equal, `, out)
			c.stop()
			out, err = c.try("status", "--json")
			require.NoError(t, err)
			require.Regexp(t, `(?s)"table": "app.big",[^}]*"verified_equal": false`, out)
		})
	}
}

// killVerify runs verify until it has recorded that it has compared more than so many rows, kills it, and returns how many
// it had recorded then.
func (c *cluster) killVerify(t *testing.T, rows int64) int64 {
	t.Helper()
	cmd := exec.Command(c.binary, "verify", "--config", c.dir+"/replicator.yaml", "--json", "--limit", "1000", "app.t", "app.big")
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var reached int64
	awaitSoon(t, 60*time.Second, func() error {
		select {
		case err := <-ended:
			t.Fatalf("verify came to its end at %d rows before it was killed: %v", reached, err)
		default:
		}
		var detail []byte
		_ = c.sites[0].db.QueryRow("SELECT detail FROM replicator.verification WHERE kind = 'progress' AND table_name = 'big'").Scan(&detail)
		var step struct{ Rows []int64 }
		_ = json.Unmarshal(detail, &step)
		if len(step.Rows) > 0 {
			reached = step.Rows[1]
		}
		if reached <= rows {
			return fmt.Errorf("it is at %d rows, want more than %d", reached, rows)
		}
		return nil
	})
	require.NoError(t, cmd.Process.Kill())
	<-ended
	return reached
}

// verifyOn runs verify to its end, and returns besides what it says on the way.
func (c *cluster) verifyOn(t *testing.T, tables ...string) (d verify.Document, said string) {
	t.Helper()
	cmd := exec.Command(c.binary, append([]string{"verify", "--config", c.dir + "/replicator.yaml", "--json", "--limit", "1000"}, tables...)...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit) && exit.ExitCode() == 3, "%v: %s%s", err, out, complaints.String())
	require.NoError(t, json.Unmarshal(out, &d), string(out))
	return d, complaints.String()
}

// rowsRead is how many rows the server has handed out to anybody.
func (s *site) rowsRead(t *testing.T) (n int64) {
	t.Helper()
	rows, err := readRows(s.db.Query("SHOW GLOBAL STATUS LIKE 'Handler_read_next'"))
	require.NoError(t, err)
	_, err = fmt.Sscan(rows[0]["Value"], &n)
	require.NoError(t, err)
	return n
}

func (c *cluster) showsVerified(table string, equal bool) error {
	s, err := c.status()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Tables, func(x mesh.TableStatus) bool { return x.Table == table })
	if i < 0 || s.Tables[i].VerifiedEqual == nil || s.Tables[i].VerifiedAt == nil || *s.Tables[i].VerifiedEqual != equal {
		return fmt.Errorf("status does not show that %s is equal: %v, in %+v", table, equal, s.Tables)
	}
	return nil
}

// TestVerifyOnSchedule: the process compares the servers by itself, tells the contacts once what differs, and a restart
// neither leaves a comparison out nor repeats it.
func TestVerifyOnSchedule(t *testing.T) {
	t.Parallel()
	office := notifytest.Open(t, config.SMTPStartTLS)
	c := newCluster(t, sandbox.MariaDB118, sandbox.MySQL97)
	mail := office.Settings()
	c.extra = fmt.Sprintf("verify: {every: 24h}\nnotify: {smtp: {address: %q, from: %q, username: %q, password: %q, tls: %s, ca: %q}}\n",
		mail.Address, mail.From, mail.Username, notifytest.Password, mail.TLS, mail.CA)
	for _, s := range c.sites {
		s.own = fmt.Sprintf(", contact: [%q]", contactOf(s))
	}
	c.everywhere("CREATE DATABASE app", plainTable)
	c.start()
	east, west := c.sites[0], c.sites[1]
	logs := func(text string, times int) {
		t.Helper()
		await(t, time.Minute, func() error {
			if n := strings.Count(c.log.String(), text); n < times {
				return fmt.Errorf("%q stands %d times in the log", text, n)
			}
			return nil
		})
	}
	logs("the servers are equal", 1)
	c.awaitLinks(30 * time.Second)
	east.exec(t, "INSERT INTO app.t VALUES (1, 'a'), (2, 'b')")
	c.awaitEqual(20*time.Second, "app.t")
	require.Equal(t, int64(1), west.hidden(t, "UPDATE app.t SET v = 'planted' WHERE id = 2"))
	due := func() {
		east.exec(t, "UPDATE replicator.verification SET began_at = began_at - INTERVAL 25 HOUR WHERE kind = 'schedule'")
	}
	c.stop()
	due()
	c.start() // what has become due meanwhile is not left out
	logs("the servers differ", 1)
	await(t, time.Minute, func() error { return c.told(office) })
	for _, m := range office.All() {
		require.Equal(t, "[test] The servers differ in app.t", m.Subject(t))
		require.Contains(t, m.Body, "Table app.t: 1 row differs\n  id = 2\n")
		require.Contains(t, m.Body, "replicator verify app.t\n")
		require.Contains(t, m.Body, "replicator resync table app.t --from A --to B\n")
	}
	await(t, 20*time.Second, func() error {
		var untold int
		err := east.db.QueryRow("SELECT COUNT(*) FROM replicator.verification WHERE notified = 0").Scan(&untold)
		if err == nil && untold > 0 {
			err = fmt.Errorf("%d findings are not told", untold)
		}
		return err
	})
	await(t, 20*time.Second, func() error { return c.showsVerified("app.t", false) })
	c.kill()
	c.start() // nothing is due
	c.awaitLinks(30 * time.Second)
	require.Equal(t, int64(1), west.hidden(t, "UPDATE app.t SET v = 'b' WHERE id = 2"))
	due()
	logs("the servers are equal", 2)
	await(t, 20*time.Second, func() error { return c.showsVerified("app.t", true) })
	require.Equal(t, 3, strings.Count(c.log.String(), "the servers are compared"), "as often as it was due")
	require.NoError(t, c.told(office), "nobody hears of it twice")
}
