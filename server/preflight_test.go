package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/fault"
	"replicator/sandbox"
	"replicator/server"
)

// names lists the failed and warned checks: "fail name" or "fail table: name", once each, in order.
func names(findings []server.Finding) []string {
	var all []string
	for _, f := range bad(findings) {
		text := string(f.State) + " "
		if f.Table != "" {
			text += f.Table + ": "
		}
		if text += f.Name; !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	slices.Sort(all)
	return all
}

func preflight(t *testing.T, c *config.Config) []server.Finding {
	t.Helper()
	var servers []*server.Server
	for _, s := range c.Servers {
		servers = append(servers, open(t, s))
	}
	findings := server.Preflight(t.Context(), servers, c)
	for _, f := range findings {
		require.Equal(t, f.State == server.Pass, f.Remedy == "", f)
		require.Equal(t, f.State == server.Pass, f.Class == "", f)
		require.NotEmpty(t, f.Message)
	}
	return findings
}

// TestBadSettings starts servers that are set up wrongly in every way.
func TestBadSettings(t *testing.T) {
	both := []string{
		"--binlog-format=MIXED", "--binlog-row-image=MINIMAL", "--binlog-row-metadata=MINIMAL", "--binlog-ignore-db=replicator",
		"--slave-exec-mode=IDEMPOTENT", "--max-allowed-packet=1M", "--binlog-expire-logs-seconds=3600", "--read-only=ON",
	}
	common := []string{
		"fail binlog_format", "fail binlog_row_image", "fail binlog_row_metadata", "fail marker schema in binlog",
		"warn binlog retention", "warn max_allowed_packet",
	}
	for flavor, c := range map[sandbox.Flavor]struct{ args, want []string }{
		sandbox.MySQL97: {
			[]string{
				"--gtid-mode=OFF_PERMISSIVE", "--enforce-gtid-consistency=WARN", "--binlog-row-value-options=PARTIAL_JSON",
				"--super-read-only=ON", "--replica-exec-mode=IDEMPOTENT",
			},
			[]string{
				"fail binlog_row_value_options", "fail enforce_gtid_consistency", "fail gtid_mode", "fail read_only",
				"fail replica_exec_mode",
			},
		},
		sandbox.MariaDB118: {
			[]string{"--gtid-strict-mode=OFF", "--slave-run-triggers-for-rbr=YES", "--slave-exec-mode=IDEMPOTENT"},
			[]string{"fail slave_exec_mode", "fail slave_run_triggers_for_rbr", "warn gtid_strict_mode"},
		},
		sandbox.MariaDB1011: {
			[]string{"--gtid-strict-mode=OFF", "--slave-run-triggers-for-rbr=LOGGING", "--slave-exec-mode=IDEMPOTENT"},
			[]string{"fail slave_exec_mode", "fail slave_run_triggers_for_rbr", "warn gtid_strict_mode"},
		},
	} {
		t.Run(string(flavor), func(t *testing.T) {
			args := slices.DeleteFunc(slices.Clone(both), func(a string) bool {
				return flavor == sandbox.MySQL97 && strings.HasPrefix(a, "--slave")
			})
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor, Args: append(args, c.args...)})
			want := append(slices.Clone(common), c.want...)
			want = append(want, "warn tables")
			slices.Sort(want)
			d := document(t, "root", s.Password(), s)
			require.Equal(t, want, names(findingsOf(t, d, "s0")))
		})
	}
}

func TestBinlogOff(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB1011} {
		args := []string{"--skip-log-bin"}
		if flavor == sandbox.MySQL97 {
			args = append(args, "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--log-replica-updates=OFF")
		}
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor, Args: args})
		found := names(findingsOf(t, document(t, "root", s.Password(), s), "s0"))
		require.Contains(t, found, "fail log_bin", flavor)
		require.Contains(t, found, "fail marker schema in binlog", flavor)
	}
}

// TestBetweenServers looks at what must differ and what must agree.
func TestBetweenServers(t *testing.T) {
	a := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB1011, Name: "a"})
	var id string
	require.NoError(t, a.DB().QueryRowContext(t.Context(), "SELECT @@server_id").Scan(&id))
	b := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB1011, Name: "b", Args: []string{
		"--server-id=" + id, "--lower-case-table-names=1", "--max-allowed-packet=32M",
	}})
	password := "same"
	c := document(t, "all", password, a, b)
	for _, s := range []*sandbox.Server{a, b} {
		require.NoError(t, s.CreateAccount(t.Context(), "all", password, "ALL PRIVILEGES ON *.*"))
		conn, err := s.DB().Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, checkpoint.Migrate(t.Context(), conn))
		identity := checkpoint.Identity{ID: change.ServerID{1}, Mesh: "test", Position: change.NewGTIDSet(change.MariaDB), ServerUUID: "x", Settings: c.FoldSettings()}
		_, err = checkpoint.GiveBirth(t.Context(), conn, change.MariaDB, identity)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)")
	}
	require.Equal(t, []string{
		"fail identity", "fail lower_case_table_names", "fail server_id", "warn identity", "warn max_allowed_packet",
	}, names(preflight(t, c)))

	// The remedy for the identity: it cures both findings.
	s := open(t, c.Server("s1"))
	old, renewed, err := s.RenewIdentity(t.Context())
	require.NoError(t, err)
	require.Equal(t, change.ServerID{1}, old)
	require.NotEqual(t, old, renewed)
	require.NotContains(t, names(preflight(t, c)), "fail identity")
	c.Mesh = "another"
	require.Contains(t, names(preflight(t, c)), "fail identity")
}

// TestWithoutTables: a server that is to be cloned is no reason against the mesh, until it has been a part of it.
func TestWithoutTables(t *testing.T) {
	const password = "same"
	a := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB1011, Name: "a"})
	b := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB118, Name: "b"})
	c := document(t, "all", password, a, b)
	for _, s := range []*sandbox.Server{a, b} {
		require.NoError(t, s.CreateAccount(t.Context(), "all", password, "ALL PRIVILEGES ON *.*"))
		exec(t, s.DB(), "CREATE DATABASE app")
	}
	exec(t, a.DB(), "CREATE TABLE app.t (id INT PRIMARY KEY)")
	findings := preflight(t, c)
	require.Equal(t, []string{"warn tables"}, names(findings))
	i := slices.IndexFunc(findings, func(f server.Finding) bool { return strings.Contains(f.Remedy, "replicator clone --from s0 --to s1;") })
	require.GreaterOrEqual(t, i, 0)
	require.Equal(t, "s1 has none of the replicated tables, and s0 has 1: it takes no part yet", findings[i].Message)

	conn, err := b.DB().Conn(t.Context())
	require.NoError(t, err)
	require.NoError(t, checkpoint.Migrate(t.Context(), conn))
	identity := checkpoint.Identity{ID: change.ServerID{1}, Mesh: "test", Position: change.NewGTIDSet(change.MariaDB), ServerUUID: "x", Settings: c.FoldSettings()}
	_, err = checkpoint.GiveBirth(t.Context(), conn, change.MariaDB, identity)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.Contains(t, names(preflight(t, c)), "fail app.t: definition")
}

// TestInitConnect looks behind the global settings: init_connect applies to accounts without administration rights.
func TestInitConnect(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB1011} {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY)",
			"SET GLOBAL init_connect = 'SET SESSION binlog_row_image = MINIMAL'")
		exec(t, s.DB(), server.Grants(flavorOf(s), server.GrantRequest{User: "repl", Password: "p", Databases: []string{"app"}})...)
		rights := "SESSION_VARIABLES_ADMIN"
		if flavor == sandbox.MariaDB1011 {
			rights = "BINLOG ADMIN"
		}
		exec(t, s.DB(), "GRANT "+rights+" ON *.* TO repl")
		require.Equal(t, []string{"fail session"}, names(findingsOf(t, document(t, "repl", "p", s), "s0")), flavor)
	}
}

func TestUnreachable(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB1011})
	exec(t, s.DB(), "CREATE DATABASE app")
	c := document(t, "root", s.Password(), s)
	findings := preflight(t, c)
	require.Equal(t, []string{"fail connect", "warn tables"}, names(findings))
	i := slices.IndexFunc(findings, func(f server.Finding) bool { return f.State == server.Fail })
	require.True(t, findings[i].Incomplete)
	require.Equal(t, fault.Network, findings[i].Class)
	require.Equal(t, "other", findings[i].Server)
	require.ErrorContains(t, server.Err(findings), "server other: connect: ")
}

// TestServerLeavesDuringCheck: a server that goes away between two of the questions about a table says nothing about the
// table, and no person is needed.
func TestServerLeavesDuringCheck(t *testing.T) {
	var servers []*sandbox.Server
	for _, flavor := range []sandbox.Flavor{sandbox.MariaDB118, sandbox.MariaDB1011} {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
		require.NoError(t, s.CreateAccount(t.Context(), "all", "same", "ALL PRIVILEGES ON *.*"))
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE TABLE app.t (v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY)")
		servers = append(servers, s)
	}
	c := document(t, "all", "same", servers...)
	var subjects []*server.Subject
	for _, s := range c.Servers {
		subject := server.Examine(t.Context(), open(t, s), c)
		subject.ReadTables(t.Context(), c)
		subjects = append(subjects, subject)
	}
	require.Empty(t, names(server.CheckLink(t.Context(), subjects[0], subjects[1])))
	require.NoError(t, servers[0].Kill())
	findings := server.CheckLink(t.Context(), subjects[0], subjects[1])
	i := slices.IndexFunc(findings, func(f server.Finding) bool { return f.Table == "app.t" && f.State == server.Fail })
	require.GreaterOrEqual(t, i, 0)
	require.Equal(t, fault.Network, findings[i].Class, findings[i].Message)
}

// TestTablesBetweenServers compares definitions on all pairs of flavors: equal ones must pass, the others fail one by one.
func TestTablesBetweenServers(t *testing.T) {
	password := "same"
	var servers []*sandbox.Server
	for i, flavor := range sandbox.Flavors {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor, Args: []string{
			"--auto-increment-increment=3", fmt.Sprintf("--auto-increment-offset=%d", i+1),
		}})
		require.NoError(t, s.CreateAccount(t.Context(), "all", password, "ALL PRIVILEGES ON *.*"))
		exec(t, s.DB(), "CREATE DATABASE app")
		servers = append(servers, s)
	}
	everywhere := func(statements ...string) {
		for _, s := range servers {
			exec(t, s.DB(), statements...)
		}
	}
	everywhere(`CREATE TABLE app.same (
 id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, b TINYINT(1) NOT NULL, z INT(5) UNSIGNED ZEROFILL, n DECIMAL(20,4) NOT NULL,
 v VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL, l CHAR(3) CHARACTER SET latin1,
 e ENUM('a','B') CHARACTER SET latin1, s SET('x','y') CHARACTER SET latin1, y YEAR, bits BIT(9), f FLOAT, d DOUBLE,
 dt DATETIME(6), ts TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), t TIME(2),
 bl LONGBLOB, bi BINARY(16), vb VARBINARY(30), tx TEXT CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci, g GEOMETRY, twice BIGINT AS (b * 2) VIRTUAL,
 PRIMARY KEY (id, v(10)), UNIQUE KEY one (n, v), UNIQUE KEY two (l)) ENGINE=InnoDB`,
		"CREATE TABLE app.parent (id INT PRIMARY KEY)",
		`CREATE TABLE app.child (id INT PRIMARY KEY, p INT, q INT, KEY (p), KEY (q),
 CONSTRAINT a FOREIGN KEY (p) REFERENCES app.parent (id) ON DELETE CASCADE ON UPDATE SET NULL,
 CONSTRAINT b FOREIGN KEY (q) REFERENCES app.parent (id))`,
		`CREATE TRIGGER app.guarded BEFORE INSERT ON app.child FOR EACH ROW
 SET NEW.q = IF(@replicator_apply IS NULL, COALESCE(NEW.q, NEW.p), NEW.q)`)
	c := document(t, "all", password, servers...)
	require.Empty(t, names(preflight(t, c)))
	exec(t, servers[2].DB(), "SET GLOBAL auto_increment_offset = 2")
	require.Equal(t, []string{"warn auto_increment"}, names(preflight(t, c)))

	everywhere("DROP TABLE app.child")
	everywhere("CREATE DATABASE elsewhere", "CREATE TABLE elsewhere.p (id INT PRIMARY KEY)",
		"CREATE TABLE app.orphan (id INT PRIMARY KEY, CONSTRAINT up FOREIGN KEY (id) REFERENCES elsewhere.p (id))",
		"CREATE TABLE app.plain (id INT PRIMARY KEY)", "CREATE TABLE app.nokey (id INT)",
		"CREATE TABLE app.myisam (id INT PRIMARY KEY) ENGINE=MyISAM",
		"CREATE TABLE app.fires (id INT PRIMARY KEY, v INT)", "CREATE TRIGGER app.f BEFORE INSERT ON app.fires FOR EACH ROW SET NEW.v=1")
	my, m11, m10 := servers[0].DB(), servers[1].DB(), servers[2].DB()
	exec(t, my, "CREATE TABLE app.missing (id INT PRIMARY KEY)", "CREATE TABLE app.j (id INT PRIMARY KEY, j JSON)",
		"CREATE TABLE app.coll (v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci PRIMARY KEY)",
		"CREATE TABLE app.loose (id INT PRIMARY KEY, v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci)")
	for _, db := range []int{1, 2} {
		exec(t, servers[db].DB(), "CREATE TABLE app.j (id INT PRIMARY KEY, j JSON)",
			"CREATE TABLE app.coll (v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY)",
			"CREATE TABLE app.loose (id INT PRIMARY KEY, v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci)")
	}
	exec(t, m11, "CREATE SEQUENCE app.seq", "CREATE TABLE app.versioned (id INT PRIMARY KEY) WITH SYSTEM VERSIONING",
		"CREATE TABLE app.squeezed (id INT PRIMARY KEY, v TEXT COMPRESSED)")
	exec(t, my, "CREATE TABLE app.differs (id INT PRIMARY KEY, u INT, v INT, w VARCHAR(20) CHARACTER SET latin1, x INT, UNIQUE (u))")
	exec(t, m11, "CREATE TABLE app.differs (id INT PRIMARY KEY, v INT, u INT, w VARCHAR(20) CHARACTER SET latin1, x INT, UNIQUE (u))")
	exec(t, m10, "CREATE TABLE app.differs (id INT, u INT NOT NULL, v BIGINT, w VARCHAR(20) CHARACTER SET utf8mb4, x INT AS (v) STORED, PRIMARY KEY (id, u))")

	found := preflight(t, c)
	require.Equal(t, []string{
		"fail app.coll: column v", "fail app.differs: column u", "fail app.differs: column v", "fail app.differs: column w",
		"fail app.differs: column x", "fail app.differs: columns", "fail app.differs: primary key", "fail app.differs: unique keys",
		"fail app.fires: trigger f", "fail app.missing: definition", "fail app.myisam: engine", "fail app.nokey: primary key",
		"fail app.seq: definition", "fail app.seq: table type", "fail app.squeezed: column v", "fail app.squeezed: definition",
		"fail app.versioned: definition", "fail app.versioned: table type", "warn app.j: column j",
		"warn app.orphan: foreign key up", "warn auto_increment",
	}, names(found))
	told := map[string]bool{}
	for _, f := range found {
		if text := fmt.Sprint(f); f.Table == "app.j" && f.State == server.Warn {
			require.False(t, told[text], "twice: %s", text)
			told[text] = true
		}
	}
	require.Len(t, told, 4, "MySQL beside either MariaDB, and both of them beside MySQL")
	for _, f := range found { // between the two MariaDBs rows are replayed, which fires no triggers
		if f.Table == "app.fires" && f.State == server.Fail {
			require.Contains(t, fmt.Sprint(f), "s0")
		}
	}
}
