package server_test

import (
	"database/sql/driver"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/config"
	"replicator/sandbox"
	"replicator/server"
)

func flavorOf(s *sandbox.Server) change.Flavor {
	if s.Flavor().MariaDB() {
		return change.MariaDB
	}
	return change.MySQL
}

// document is a mesh of sandbox servers under an account, for the tables of database app.
func document(t *testing.T, user, password string, servers ...*sandbox.Server) *config.Config {
	t.Helper()
	text := "mesh: test\ntables: {include: ['app.*']}\nservers:\n"
	for i, s := range servers {
		text += fmt.Sprintf("  s%d: {endpoints: ['%s'], user: %s, password: '%s'}\n", i, s.Addr(), user, password)
	}
	if len(servers) == 1 { // the second is never asked
		text += "  other: {endpoints: ['127.0.0.1:1'], user: x, password: x, own: false}\n"
	}
	c, err := config.Parse([]byte(text), func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	return c
}

// findingsOf examines one server as a mesh configured it.
func findingsOf(t *testing.T, c *config.Config, name string) []server.Finding {
	t.Helper()
	s := open(t, c.Server(name))
	subject := server.Examine(t.Context(), s, c)
	subject.ReadTables(t.Context(), c)
	return subject.Findings
}

func bad(findings []server.Finding) []server.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f server.Finding) bool {
		durability := f.Name == "sync_binlog" || f.Name == "innodb_flush_log_at_trx_commit" // off in the sandbox
		return f.State == server.Pass || durability
	})
}

// TestGrants proves that an account with the printed grants can do everything, and that the check names each privilege
// that is left out.
func TestGrants(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v INT) ENGINE=InnoDB",
			"INSERT INTO app.t VALUES (1, 1)")
		request := server.GrantRequest{User: "repl", Password: `p'a"s\s`, Databases: []string{"app"}}
		exec(t, s.DB(), server.Grants(flavorOf(s), request)...)

		c := document(t, "repl", `x`, s)
		account := &c.Server("s0").Account
		account.Secret = config.NewSecret(request.Password)
		require.Empty(t, bad(findingsOf(t, c, "s0")))
		tryEverything(t, open(t, c.Server("s0")), flavorOf(s))

		// Leave out one privilege after the other.
		granted := regexp.MustCompile(`(?m)^GRANT (.+) ON (.+) TO (.+)$`)
		for _, statement := range server.Grants(flavorOf(s), request) {
			m := granted.FindStringSubmatch(statement)
			if m == nil {
				continue
			}
			for privilege := range strings.SplitSeq(m[1], ", ") {
				exec(t, s.DB(), fmt.Sprintf("REVOKE %s ON %s FROM %s", privilege, m[2], m[3]))
				found := slices.ContainsFunc(findingsOf(t, c, "s0"), func(f server.Finding) bool {
					return f.State != server.Pass && strings.Contains(f.Remedy, "GRANT "+privilege+" ON")
				})
				require.True(t, found, "%s on %s is missing and not named", privilege, m[2])
				exec(t, s.DB(), fmt.Sprintf("GRANT %s ON %s TO %s", privilege, m[2], m[3]))
			}
		}
		require.Empty(t, bad(findingsOf(t, c, "s0")))
	})
}

// tryEverything does what applying needs, with nothing but the account's grants.
func tryEverything(t *testing.T, s *server.Server, f change.Flavor) {
	ctx := t.Context()
	info, err := server.Probe(ctx, s.DB())
	require.NoError(t, err)
	require.Equal(t, f, info.Flavor)
	d := server.NewDialect(info)
	conn, err := s.DB().Conn(ctx)
	require.NoError(t, err)
	defer conn.Close()
	defer func() { _ = conn.Raw(func(any) error { return driver.ErrBadConn }) }() // the server ends such a session soon
	require.NoError(t, d.ApplySession(ctx, conn, server.Session{}))
	replay, err := d.CanReplay(ctx, conn)
	require.NoError(t, err)
	require.True(t, replay)
	_, err = d.BinlogEnd(ctx, conn)
	require.NoError(t, err)
	_, err = d.Purged(ctx, conn)
	require.NoError(t, err)
	for _, statement := range []string{
		"CREATE DATABASE replicator", "CREATE TABLE replicator.x (id INT PRIMARY KEY)", "ALTER TABLE replicator.x ADD v INT",
		"CREATE INDEX v ON replicator.x (v)", "INSERT INTO replicator.x VALUES (1, 1)", "DELETE FROM replicator.x",
		"DROP TABLE replicator.x", "BEGIN", "SELECT id FROM app.t WHERE id = 1 FOR UPDATE", "UPDATE app.t SET v = 2",
		"DELETE FROM app.t", "INSERT INTO app.t VALUES (1, 1)", "COMMIT",
	} {
		_, err := conn.ExecContext(ctx, statement)
		require.NoError(t, err, statement)
	}
	tail(t, s, f)
	if f == change.MariaDB {
		var annotate bool
		require.NoError(t, conn.QueryRowContext(ctx, "SELECT @@binlog_annotate_row_events").Scan(&annotate))
		require.False(t, annotate)
	}
}

// tail reads the first events of the binlog as a replica does.
func tail(t *testing.T, s *server.Server, f change.Flavor) {
	reader, err := s.Reader(t.Context())
	require.NoError(t, err)
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: 4_000_000_000, Flavor: f.String(), Host: reader.Host, Port: reader.Port, User: reader.User,
		Password: reader.Password, TLSConfig: reader.TLS, Dialer: reader.Dial, DisableRetrySync: true,
		Logger: slog.New(slog.DiscardHandler),
	})
	defer syncer.Close()
	stream, err := syncer.StartSync(mysql.Position{Name: "binlog.000001", Pos: 4})
	require.NoError(t, err)
	for {
		event, err := stream.GetEvent(t.Context())
		require.NoError(t, err)
		if event.Header.EventType == replication.FORMAT_DESCRIPTION_EVENT {
			return
		}
	}
}

// TestReaderAccount uses a second account for the binlog, and roles.
func TestReaderAccount(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		request := server.GrantRequest{User: "app", Password: "a", Reader: "tail", ReaderPassword: "b", Databases: []string{"app"}}
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)")
		exec(t, s.DB(), server.Grants(flavorOf(s), request)...)
		c := document(t, "app", "a", s)
		c.Server("s0").Reader = &config.Account{User: "tail", Secret: config.NewSecret("b")}
		require.Empty(t, bad(findingsOf(t, c, "s0")))
		exec(t, s.DB(), "REVOKE REPLICATION SLAVE ON *.* FROM tail")
		found := bad(findingsOf(t, c, "s0"))
		require.Len(t, found, 1)
		require.Equal(t, "reader privileges", found[0].Name)
		require.Contains(t, found[0].Message, "tail has no REPLICATION SLAVE")
		exec(t, s.DB(), "CREATE ROLE r", "GRANT REPLICATION SLAVE ON *.* TO r", "GRANT r TO tail")
		if s.Flavor().MariaDB() {
			exec(t, s.DB(), "SET DEFAULT ROLE r FOR tail")
		} else {
			exec(t, s.DB(), "SET DEFAULT ROLE r TO tail")
		}
		require.Empty(t, bad(findingsOf(t, c, "s0")))
		if !s.Flavor().MariaDB() {
			return
		}
		exec(t, s.DB(), "REVOKE r FROM tail")
		require.Len(t, bad(findingsOf(t, c, "s0")), 1)
		exec(t, s.DB(), "GRANT REPLICATION SLAVE ON *.* TO PUBLIC")
		require.Empty(t, bad(findingsOf(t, c, "s0")), "what everybody has counts")
	})
}
