package server_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
	"replicator/sandbox"
	"replicator/server"
)

// eachFlavor runs a test on one real server of every flavor.
func eachFlavor(t *testing.T, f func(t *testing.T, s *sandbox.Server)) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			f(t, sandbox.StartTest(t, sandbox.Options{Flavor: flavor}))
		})
	}
}

// settings is the configuration of a sandbox server under root.
func settings(name string, s *sandbox.Server) *config.Server {
	c := &config.Server{
		Name: name, Endpoints: []string{s.Addr()}, Own: true, TLS: config.TLS{Mode: config.TLSPreferred},
		Account: config.Account{User: "root", Secret: config.NewSecret(s.Password())},
	}
	c.Reader = &c.Account
	return c
}

func open(t *testing.T, c *config.Server) *server.Server {
	t.Helper()
	s, err := server.Open(c, server.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func exec(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := db.ExecContext(t.Context(), s)
		require.NoError(t, err, s)
	}
}

func TestSessions(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		db := open(t, settings("s", s)).DB()
		ctx := t.Context()
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, d DATETIME, f FLOAT)")
		exec(t, db, "INSERT INTO app.t VALUES (0, '2023-02-31', 16777216)", "INSERT INTO app.t VALUES (1, '0000-00-00', 1)")
		var id int
		var date string
		var float float64
		require.NoError(t, db.QueryRowContext(ctx, "SELECT id, d, f FROM app.t WHERE id = ?", 0).Scan(&id, &date, &float))
		require.Equal(t, "2023-02-31 00:00:00", date)
		require.Equal(t, 16777216.0, float)
		result, err := db.ExecContext(ctx, "UPDATE app.t SET f = 1 WHERE id = 1")
		require.NoError(t, err)
		found, err := result.RowsAffected()
		require.NoError(t, err)
		require.EqualValues(t, 1, found, "rows found are counted, not rows changed")
		var zone, isolation string
		variable := "transaction_isolation"
		if s.Flavor() == sandbox.MariaDB1011 {
			variable = "tx_isolation"
		}
		require.NoError(t, db.QueryRowContext(ctx, "SELECT @@time_zone, @@"+variable).Scan(&zone, &isolation))
		require.Equal(t, "+00:00", zone)
		require.Equal(t, "READ-COMMITTED", isolation)
		_, err = db.ExecContext(ctx, "INSERT INTO app.t (id) VALUES ('x')")
		require.Error(t, err, "strict mode")
	})
}

func TestProbeAndDialect(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		ctx := t.Context()
		srv := open(t, settings("s", s))
		info, err := server.Probe(ctx, srv.DB())
		require.NoError(t, err)
		require.Equal(t, s.Flavor().MariaDB(), info.Flavor == change.MariaDB)
		require.True(t, strings.HasPrefix(info.Version, strings.SplitN(string(s.Flavor()), "-", 2)[1]+"."), info.Version)
		require.NotEmpty(t, info.UUID)
		require.NotZero(t, info.ServerID)

		d := server.NewDialect(info)
		before, err := d.BinlogEnd(ctx, srv.DB())
		require.NoError(t, err)
		covered, err := d.Position(ctx, srv.DB())
		require.NoError(t, err)
		exec(t, s.DB(), "CREATE DATABASE app")
		after, err := d.BinlogEnd(ctx, srv.DB())
		require.NoError(t, err)
		require.Positive(t, after.Compare(before))
		now, err := d.Position(ctx, srv.DB())
		require.NoError(t, err)
		require.True(t, now.Covers(covered) && !covered.Covers(now))
		purged, err := d.Purged(ctx, srv.DB())
		require.NoError(t, err)
		require.True(t, now.Covers(purged) && !purged.Covers(now))

		conn, err := srv.DB().Conn(ctx)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, d.ApplySession(ctx, conn, server.Session{LockWait: 1500 * time.Millisecond, Wait: 10 * time.Second}))
		var lock, wait, guard int
		require.NoError(t, conn.QueryRowContext(ctx,
			"SELECT @@innodb_lock_wait_timeout, @@wait_timeout, @replicator_apply").Scan(&lock, &wait, &guard))
		require.Equal(t, []int{2, 10, 1}, []int{lock, wait, guard})
		if statement := d.AfterFormat(); statement != "" {
			_, err = conn.ExecContext(ctx, statement)
			require.NoError(t, err)
		}
		_, err = conn.ExecContext(ctx, d.ReplayNames())
		require.NoError(t, err)
		var results string
		require.NoError(t, conn.QueryRowContext(ctx, "SELECT @@character_set_results").Scan(&results))
		require.Equal(t, "binary", results)
		replay, err := d.CanReplay(ctx, srv.DB())
		require.NoError(t, err)
		require.True(t, replay)

		clock, err := server.ReadClock(ctx, srv.DB())
		require.NoError(t, err)
		require.Less(t, clock.Ahead.Abs(), clock.RoundTrip+time.Millisecond, "both clocks are this machine's")

		reader, err := srv.Reader(ctx)
		require.NoError(t, err)
		require.Equal(t, s.Port(), int(reader.Port))
	})
}

func TestTables(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		ctx := t.Context()
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE DATABASE other", "CREATE TABLE other.x (id INT PRIMARY KEY)",
			"CREATE TABLE app.parent (id INT PRIMARY KEY) ENGINE=InnoDB",
			`CREATE TABLE app.child (b VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL, a INT UNSIGNED NOT NULL,
			 parent INT, twice INT AS (a * 2) STORED, e ENUM('A','b') NOT NULL,
			 at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
			 PRIMARY KEY (a, b(5)), UNIQUE KEY u (e, parent), KEY (twice),
			 CONSTRAINT fk FOREIGN KEY (parent) REFERENCES app.parent (id) ON DELETE CASCADE) ENGINE=InnoDB`,
			"CREATE TRIGGER app.tr BEFORE INSERT ON app.child FOR EACH ROW SET NEW.e = 'b'",
			"CREATE VIEW app.v AS SELECT 1")
		db := open(t, settings("s", s)).DB()
		tables, err := server.Tables(ctx, db, func(n change.TableName) bool { return n.Database == "app" })
		require.NoError(t, err)
		require.Len(t, tables, 2)
		child := tables[0]
		require.Equal(t, "app.child", child.Name.String())
		require.Equal(t, "BASE TABLE", child.Kind)
		require.Equal(t, "InnoDB", child.Engine)
		require.Equal(t, []server.KeyPart{{Column: 1}, {Column: 0, Prefix: 5}}, child.PrimaryKey)
		require.Equal(t, []server.UniqueKey{{Name: "u", Parts: []server.KeyPart{{Column: 4}, {Column: 2}}}}, child.UniqueKeys)
		require.Equal(t, []server.ForeignKey{{
			Name: "fk", Columns: []string{"parent"}, Parent: change.TableName{Database: "app", Table: "parent"},
			ParentColumns: []string{"id"}, OnUpdate: child.ForeignKeys[0].OnUpdate, OnDelete: "CASCADE",
		}}, child.ForeignKeys)
		require.Len(t, child.Triggers, 1)
		require.False(t, child.Triggers[0].Guarded())
		b := child.Columns[0]
		require.Equal(t, "varchar(20) latin1 latin1_bin 47 false", fmt.Sprint(b.Type, " ", b.Charset, " ", b.Collation, " ",
			b.CollationID, " ", b.Nullable))
		require.True(t, child.Columns[3].Generated)
		require.False(t, child.Columns[5].Generated)
		require.True(t, child.Columns[5].AutoUpdate)
		require.Equal(t, "enum('A','b')", child.Columns[4].Type)

		one, err := server.OneTable(ctx, db, child.Name)
		require.NoError(t, err)
		require.Equal(t, child, one)
		none, err := server.OneTable(ctx, db, change.TableName{Database: "app", Table: "none"})
		require.NoError(t, err)
		require.Nil(t, none)

		derived := map[string]bool{
			"id INT PRIMARY KEY, a INT, KEY (a), UNIQUE (a)":     false,
			"id INT PRIMARY KEY, t TEXT, KEY (t(10))":            false,
			"id INT PRIMARY KEY, a INT, g INT AS (a) STORED":     true,
			"id INT PRIMARY KEY, a INT, g INT AS (a) VIRTUAL":    true,
			"id INT PRIMARY KEY, t TEXT, FULLTEXT KEY (t)":       true,
			"id INT PRIMARY KEY, p POINT NOT NULL, SPATIAL (p)":  true,
			"id INT PRIMARY KEY, a INT, KEY (a), KEY ((a + 1))":  true,
			"id INT PRIMARY KEY, t TEXT, UNIQUE KEY (t) -- hash": true,
		}
		for columns, want := range derived {
			if s.Flavor().MariaDB() && strings.Contains(columns, "((") || !s.Flavor().MariaDB() && strings.HasSuffix(columns, "hash") {
				continue
			}
			exec(t, s.DB(), "CREATE TABLE app.derived ("+columns+"\n) ENGINE=InnoDB")
			table, err := server.OneTable(ctx, db, change.TableName{Database: "app", Table: "derived"})
			require.NoError(t, err)
			require.Equal(t, want, table.Derived, columns)
			exec(t, s.DB(), "DROP TABLE app.derived")
		}
	})
}

func TestRotatedPassword(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB1011})
	require.NoError(t, s.CreateAccount(t.Context(), "app", "first", "SELECT ON *.*"))
	file := t.TempDir() + "/password"
	write := func(text string) { require.NoError(t, writeFile(file, text)) }
	write("wrong\n")
	c := settings("s", s)
	c.Account = config.Account{User: "app", PasswordFile: file}
	srv := open(t, c)
	err := srv.DB().PingContext(t.Context())
	require.Equal(t, fault.Login, server.Classify(err))
	f := server.Fault(err, "log in")
	require.Contains(t, f.Remedy, "password")
	write("first\n")
	require.NoError(t, srv.DB().PingContext(t.Context()))
}

func TestNextEndpoint(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB1011})
	dead := sandbox.ProxyTest(t, s.Addr())
	require.NoError(t, dead.Cut())
	c := settings("s", s)
	c.Endpoints = []string{dead.Addr(), s.Addr()}
	srv := open(t, c)
	require.NoError(t, srv.DB().PingContext(t.Context()))
	require.Equal(t, s.Addr(), srv.Endpoint())
}

// TestClassifyRealErrors meets the errors on real servers: numbers are easily wrong in a table.
func TestClassifyRealErrors(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		ctx := t.Context()
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v INT NOT NULL)",
			"INSERT INTO app.t VALUES (1, 1)")
		require.NoError(t, s.CreateAccount(ctx, "few", "few", "SELECT ON app.*"))
		db := open(t, settings("s", s)).DB()
		c := settings("s", s)
		c.Account = config.Account{User: "few", Secret: config.NewSecret("few")}
		few := open(t, c)
		classOf := func(db server.Querier, statement string) fault.Class {
			_, err := db.ExecContext(ctx, statement)
			require.Error(t, err, statement)
			return server.Classify(err)
		}
		require.Equal(t, fault.Row, classOf(db, "INSERT INTO app.t VALUES (1, 2)"))
		_, err := db.ExecContext(ctx, "INSERT INTO app.t VALUES (1, 2)")
		require.True(t, server.IsDuplicateKey(err))
		require.False(t, server.IsMissingRow(err))
		require.Equal(t, fault.Row, classOf(db, "INSERT INTO app.t VALUES (2, NULL)"))
		require.Equal(t, fault.Definition, classOf(db, "INSERT INTO app.none VALUES (1)"))
		require.Equal(t, fault.Definition, classOf(db, "INSERT INTO app.t (x) VALUES (1)"))
		require.Equal(t, fault.Privilege, classOf(few.DB(), "DELETE FROM app.t"))
		require.Equal(t, fault.Privilege, classOf(few.DB(), "BINLOG ''"))
		require.Equal(t, fault.Privilege, classOf(few.DB(), "CREATE DATABASE replicator"))
		require.Equal(t, fault.Bug, classOf(db, "SELEC"))

		locked, err := s.DB().BeginTx(ctx, nil)
		require.NoError(t, err)
		_, err = locked.ExecContext(ctx, "UPDATE app.t SET v = 2 WHERE id = 1")
		require.NoError(t, err)
		conn, err := db.Conn(ctx)
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.ExecContext(ctx, "SET SESSION innodb_lock_wait_timeout = 1")
		require.NoError(t, err)
		require.Equal(t, fault.Busy, classOf(conn, "UPDATE app.t SET v = 3 WHERE id = 1"))
		require.NoError(t, locked.Rollback())

		exec(t, s.DB(), "SET GLOBAL read_only = ON", "GRANT INSERT ON app.* TO few")
		require.NoError(t, few.Close())
		again := open(t, c)
		require.Equal(t, fault.ReadOnly, classOf(again.DB(), "INSERT INTO app.t VALUES (5, 5)"))
		exec(t, s.DB(), "SET GLOBAL read_only = OFF")

		var id int64
		require.NoError(t, conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id))
		exec(t, s.DB(), fmt.Sprintf("KILL %d", id))
		require.True(t, slices.Contains([]fault.Class{fault.Network, fault.Unavailable}, classOf(conn, "SELECT 1")))

		expired, cancel := context.WithTimeout(ctx, time.Nanosecond)
		defer cancel()
		require.Equal(t, fault.Network, server.Classify(db.PingContext(expired)))
		require.NoError(t, s.Kill())
		require.Equal(t, fault.Network, server.Classify(open(t, settings("s", s)).DB().PingContext(ctx)))
	})
}
