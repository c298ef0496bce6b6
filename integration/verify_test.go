package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"replicator/image/imagetest"
	"replicator/sandbox"
	"replicator/verify"
)

// TestVerify compares servers that are written to all the time: it finds what was planted behind the replicator's back, and
// nothing else.
func TestVerify(t *testing.T) {
	t.Parallel()
	for name, flavors := range usually(map[string][]sandbox.Flavor{
		"mysql": {sandbox.MySQL97, sandbox.MySQL97, sandbox.MySQL97},
		"mixed": {sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011},
	}, "mysql") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavors...)
			types := imagetest.TypesFor("app.types", flavors...).Without("z_text", "z_blob") // links refuse COMPRESSED
			shared := c.createShared()
			c.everywhere(types.Create(), bigTable, wordTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			east := c.sites[0]
			imagetest.Exec(t, east.server, types.Fill()...)
			fillBig(t, east)
			for i := range 300 {
				east.exec(t, "INSERT INTO app.words VALUES (?, ?, ?)", fmt.Sprintf("Wort %d", i), i%7, "v")
			}
			c.awaitEqual(60*time.Second, "app.big", "app.words")

			ctx, stop := context.WithCancel(t.Context())
			var writers sync.WaitGroup
			for i, s := range c.sites {
				writers.Go(func() { s.writeShared(ctx, t, rand.New(rand.NewPCG(1, uint64(i)))) })
				writers.Go(func() { s.writeBig(ctx, t, rand.New(rand.NewPCG(2, uint64(i)))) })
			}
			for range 3 {
				if d := c.verify(t); d.Equal == nil || !*d.Equal {
					t.Fatalf("nothing differs for good, and this was found: %s", brief(d))
				}
			}
			want := c.plant(t)
			for _, args := range [][]string{nil, {"app.big"}} {
				c.expectFound(t, c.verify(t, args...), want, len(args) > 0)
			}
			quick := c.verify(t, "--quick", "app.big", "app.shared")
			if quick.Equal == nil || *quick.Equal || len(quick.Tables) != 2 || len(quick.Tables[0].Differences) != 0 || !*quick.Tables[1].Equal {
				t.Errorf("quick: %s", brief(quick))
			}
			stop()
			writers.Wait()
			c.awaitEqual(60*time.Second, shared...)
			c.expectFound(t, c.verify(t), want, false)
		})
	}
}

const (
	bigTable = `CREATE TABLE app.big (id BIGINT UNSIGNED PRIMARY KEY, v VARCHAR(60), n INT, d DECIMAL(20,6), at DATETIME(6), b VARBINARY(40))
 CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci`
	wordTable = `CREATE TABLE app.words (w VARCHAR(60), n INT, v TEXT, PRIMARY KEY (w, n)) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci`
	bigRows   = 30_000
)

func fillBig(t *testing.T, s *site) {
	t.Helper()
	const each = 1000
	for first := 0; first < bigRows; first += each {
		var b strings.Builder
		for id := first; id < first+each; id++ {
			if id > first {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "(%d,'wert %[1]d',%[1]d,%[1]d.5,'2024-01-01 00:00:00.%06[1]d',X'%08[1]X')", id)
		}
		s.exec(t, "INSERT INTO app.big VALUES "+b.String())
	}
}

// writeBig changes rows all over app.big, but for those whose number ends in 7.
func (s *site) writeBig(ctx context.Context, t *testing.T, r *rand.Rand) {
	for range paced(ctx) {
		id := r.IntN(bigRows)
		if id%10 == 7 {
			id++
		}
		var err error
		switch r.IntN(8) {
		case 0:
			_, err = s.db.Exec("DELETE FROM app.big WHERE id = ?", id)
		case 1, 2:
			_, err = s.db.Exec("REPLACE INTO app.big VALUES (?, ?, ?, 1, NOW(6), NULL)", id, s.name, r.IntN(1000))
		default:
			_, err = s.db.Exec("UPDATE app.big SET n = n + 1, v = ? WHERE id = ?", s.name, id)
		}
		if err != nil && !contention(err) {
			t.Errorf("on %s: %v", s.name, err)
			return
		}
	}
}

// plant makes differences that no binlog tells of, and returns the rows that differ: by table, the keys as verify prints
// them.
func (c *cluster) plant(t *testing.T) map[string][]string {
	t.Helper()
	want := map[string][]string{}
	hidden := func(s *site, query string, args ...any) {
		t.Helper()
		if n := s.hidden(t, query, args...); n != 1 {
			t.Fatalf("%s: %d rows", query, n)
		}
	}
	big := func(id int) { want["app.big"] = append(want["app.big"], fmt.Sprintf(`{"id":"%d"}`, id)) }
	changes := []string{
		"v = 'planted'", "v = NULL", "n = n + 1", "d = d + 0.000001", "at = at + INTERVAL 1 MICROSECOND", "b = X'00'", "v = CONCAT(v, ' ')",
		"d = -d", "b = ''",
	}
	for i, s := range c.sites {
		for j, change := range changes {
			id := 7 + 10*(i+10*j)
			hidden(s, "UPDATE app.big SET "+change+" WHERE id = ?", id)
			big(id)
		}
		for j := range 5 {
			id := 20_007 + 10*(i+10*j)
			hidden(s, "DELETE FROM app.big WHERE id = ?", id)
			big(id)
			id = bigRows + 7 + 10*(i+10*j)
			hidden(s, "INSERT INTO app.big (id, v) VALUES (?, 'extra')", id)
			big(id)
		}
		hidden(s, "UPDATE app.words SET v = 'V' WHERE w = ? AND n = ?", fmt.Sprintf("wort %d", i), i%7)
		want["app.words"] = append(want["app.words"], fmt.Sprintf(`{"w":"Wort %d","n":%d}`, i, i%7))
		hidden(s, "INSERT INTO app.words VALUES ('extra', ?, NULL)", i)
		want["app.words"] = append(want["app.words"], fmt.Sprintf(`{"w":"extra","n":%d}`, i))
	}
	hidden(c.sites[1], "UPDATE app.types SET SMALLINT_c = 99 WHERE id = 1")
	want["app.types"] = []string{`{"id":1}`}
	return want
}

// hidden runs a statement of which no binlog tells, and returns how many rows it changed.
func (s *site) hidden(t *testing.T, query string, args ...any) int64 {
	t.Helper()
	conn, err := s.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, q := range []string{"SET sql_log_bin = 0", "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"} {
		if _, err := conn.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	result, err := conn.ExecContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	if _, err := conn.ExecContext(t.Context(), "SET sql_log_bin = 1"); err != nil {
		t.Fatal(err)
	}
	return n
}

// verify compares, and demands an exit code that says what the document does.
func (c *cluster) verify(t *testing.T, args ...string) (d verify.Document) {
	t.Helper()
	cmd := exec.Command(c.binary, append([]string{"verify", "--json", "--limit", "1000", "--config", c.dir + "/replicator.yaml"}, args...)...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if json.Unmarshal(out, &d) != nil {
		t.Fatalf("verify: %v\n%s%s", err, out, complaints.String())
	}
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	if want := map[bool]int{true: 0, false: 3}[d.Equal != nil && *d.Equal]; code != want {
		t.Fatalf("verify: exit code %d, want %d: %s%s", code, want, brief(d), complaints.String())
	}
	t.Logf("verified %d tables in %.1f s", len(d.Tables), d.Seconds)
	return d
}

func brief(d verify.Document) string {
	var b strings.Builder
	for _, x := range d.Tables {
		if x.Equal != nil && *x.Equal {
			continue
		}
		fmt.Fprintf(&b, "%s: %d rows shown", x.Table, len(x.Differences))
		if x.Error != nil {
			b.WriteString(", " + *x.Error)
		}
		for i, one := range x.Differences {
			if i < 5 {
				fmt.Fprintf(&b, "; %s %s %s", one.Kind, one.Key, one.Columns)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// expectFound demands the wanted differences and no others.
func (c *cluster) expectFound(t *testing.T, d verify.Document, want map[string][]string, bigOnly bool) {
	t.Helper()
	for _, table := range d.Tables {
		var got []string
		for _, x := range table.Differences {
			var key bytes.Buffer
			if err := json.Compact(&key, x.Key); err != nil {
				t.Fatal(err)
			}
			got = append(got, key.String())
			if len(x.Servers) != len(c.sites) || x.Kind == "changed" && len(x.Columns) == 0 {
				t.Errorf("%s: %s is shown with %d servers and columns %s", table.Table, x.Key, len(x.Servers), x.Columns)
			}
		}
		expected := slices.Sorted(slices.Values(want[table.Table]))
		slices.Sort(got)
		if !slices.EqualFunc(got, expected, strings.EqualFold) || *table.Total != fmt.Sprint(len(expected)) {
			t.Errorf("%s: %s differences, want %d\nfound  %s\nwanted %s", table.Table, *table.Total, len(expected), got, expected)
		}
	}
	if bigOnly != (len(d.Tables) == 1) {
		t.Errorf("%d tables were compared", len(d.Tables))
	}
}

// TestVerifyIncomplete: what cannot be compared is said, and is not taken for equal.
func TestVerifyIncomplete(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MariaDB118, sandbox.MariaDB118)
	c.extra = "conflict:\n  change_log: {table: app.log}\n"
	c.everywhere("CREATE DATABASE app", plainTable,
		`CREATE TABLE app.log (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT, `+"`"+`table`+"`"+` VARCHAR(200), record_id VARCHAR(200),
 comment TEXT, `+"`"+`timestamp`+"`"+` DATETIME(6)) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci`)
	c.start()
	c.awaitLinks(30 * time.Second)
	east, west := c.sites[0], c.sites[1]
	east.exec(t, "INSERT INTO app.t VALUES (1, 'a')")
	c.awaitEqual(20*time.Second, "app.t")
	out, err := c.try("verify")
	if err != nil || !strings.Contains(out, "skipped: each server numbers its rows") || !strings.Contains(out, "1 equal, 0 differ, 1 skipped, 0 incomplete") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, names := range [][]string{{"app.none"}, {"app.t", "app.none"}} {
		if out, err := c.try(append([]string{"verify"}, names...)...); err == nil || !strings.Contains(out, "no replicated table is called app.none") {
			t.Errorf("%v\n%s", err, out)
		}
	}
	west.exec(t, "ALTER TABLE app.t ADD COLUMN more INT")
	if out, err = c.try("verify", "app.t"); err != nil || !strings.Contains(out, "not compared: column more (west)") {
		t.Errorf("%v\n%s", err, out)
	}
	c.stop()
	east.exec(t, "UPDATE app.t SET v = 'under way' WHERE id = 1")
	west.exec(t, "CREATE TABLE app.alone (id INT PRIMARY KEY)")
	out, err = c.try("verify", "--patience", "1s")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "link east→west has not applied") ||
		!strings.Contains(out, "east does not have table app.alone") || !strings.Contains(out, "0 equal, 0 differ, 1 skipped, 2 incomplete") {
		t.Errorf("%v\n%s", err, out)
	}
}
