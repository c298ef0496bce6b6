package integration

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"replicator/sandbox"
)

// TestCompressedLinks lets four servers replicate, all but one over compressed connections: small changes from each, and
// from both flavors one above what a packet holds. The servers say what their connections use.
func TestCompressedLinks(t *testing.T) {
	t.Parallel()
	visible := []string{"--performance-schema=ON", "--max-allowed-packet=256M"}
	c := newClusterOf(t,
		sandbox.Options{Flavor: sandbox.MySQL97, Args: visible},
		sandbox.Options{Flavor: sandbox.MariaDB118, Args: visible},
		sandbox.Options{Flavor: sandbox.MySQL97, Args: visible},
		sandbox.Options{Flavor: sandbox.MariaDB1011, Args: visible})
	c.sites[0].own = ", compress: zstd"
	c.sites[2].own = ", compress: false"                    // what a server says counts more than what is said for all
	c.extra = "apply: {compress: true}\nlease: {ttl: 1m}\n" // nothing is sent while 16 MiB are compressed, on a busy machine for long
	c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v LONGTEXT) CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci")
	c.start()
	c.awaitLinks(60 * time.Second)
	for i, s := range c.sites {
		for k := range 20 {
			s.exec(t, "INSERT INTO app.t VALUES (?, ?)", i*100+k, strings.Repeat(fmt.Sprint(s.name, k), 50*k))
		}
	}
	for i, s := range c.sites[:2] {
		s.exec(t, "INSERT INTO app.t VALUES (?, REPEAT('0123456789abcdef', ?))", i*100+50, 20<<20/16)
	}
	c.awaitEqual(60*time.Second, "app.t")
	status, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	// Of the binlog's connection and of the others, as MySQL calls it; MariaDB says no more than ON.
	want := map[string][2]string{"east": {"zstd", "zlib"}, "west": {"zlib", "zlib"}, "north": {"none", "none"}, "south": {"zlib", "zlib"}}
	for _, s := range status.Servers {
		if s.Compression.Reader == nil || s.Compression.Apply == nil {
			t.Fatalf("%s: unknown compression", s.Name)
		}
		if got := [2]string{*s.Compression.Reader, *s.Compression.Apply}; got != want[s.Name] {
			t.Errorf("%s: status says %v, want %v", s.Name, got, want[s.Name])
		}
	}
	for _, s := range c.sites {
		for i, dump := range []bool{true, false} {
			used := want[s.name][i]
			if s.server.Flavor().MariaDB() && used != "none" {
				used = "ON"
			}
			if got := s.compression(t, dump); got != used {
				t.Errorf("%s: the server says %q (dump: %t), want %q", s.name, got, dump, used)
			}
		}
	}
}

// compression is what a server says of the program's connections: of the dump, or of all others.
func (s *site) compression(tb testing.TB, dump bool) string {
	tb.Helper()
	not, variable := "", "Compression_algorithm"
	if !dump {
		not = "NOT "
	}
	if s.server.Flavor().MariaDB() {
		variable = "Compression"
	}
	var value sql.NullString
	err := s.db.QueryRow(`SELECT GROUP_CONCAT(DISTINCT VARIABLE_VALUE) FROM performance_schema.status_by_thread
		JOIN performance_schema.threads USING (THREAD_ID)
		WHERE PROCESSLIST_USER = 'replicator' AND PROCESSLIST_COMMAND `+not+`LIKE 'Binlog Dump%' AND VARIABLE_NAME = ?`, variable).Scan(&value)
	if err != nil {
		tb.Fatalf("%s: %v", s.name, err)
	}
	if value.String == "" && value.Valid { // MySQL of a plain connection
		return "none"
	}
	return value.String
}
