package server_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/config"
	"replicator/sandbox"
	"replicator/server"
)

// logged is a mesh of one sandbox server whose application keeps a change_log and times.
func logged(t *testing.T, s *sandbox.Server, more string) *config.Config {
	t.Helper()
	c := document(t, "root", s.Password(), s)
	text := "mesh: test\nservers:\n  s0: {endpoints: ['" + s.Addr() + "'], user: root, password: x}\n" +
		"  other: {endpoints: ['127.0.0.1:1'], user: x, password: x, own: false}\n" + more
	full, err := config.Parse([]byte(text), func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	c.Conflict, c.Tables = full.Conflict, full.Tables
	return c
}

const (
	onlyApp   = "tables: {include: ['app.*']}\n"
	changeLog = "conflict: {change_log: {table: app.change_log}}\n"
)

func TestChangeLogTable(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		exec(t, s.DB(), "CREATE DATABASE app")
		c := logged(t, s, onlyApp+changeLog)
		require.Equal(t, []string{"fail app.change_log: change_log", "warn tables"}, names(findingsOf(t, c, "s0")))
		exec(t, s.DB(), server.ChangeLogTable(change.TableName{Database: "app", Table: "change_log"})...)
		require.Empty(t, names(findingsOf(t, c, "s0")))

		conn, err := s.DB().Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		for _, q := range []string{
			"INSERT INTO app.change_log (user_id, `table`, record_id, comment) VALUES ('u', 'staff', '1', 'hired')",
			"INSERT INTO app.change_log (site, user_id) VALUES (77, 'v')",
			"SET @replicator_apply = 1",
			"INSERT INTO app.change_log (id, site, user_id) VALUES (1, 77, 'w')",
		} {
			_, err := conn.ExecContext(t.Context(), q)
			require.NoError(t, err, q)
		}
		var here, there int
		require.NoError(t, conn.QueryRowContext(t.Context(),
			"SELECT SUM(site = @@server_id AND timestamp > NOW() - INTERVAL 1 MINUTE), SUM(site = 77) FROM app.change_log").Scan(&here, &there))
		require.Equal(t, []int{2, 1}, []int{here, there})

		long := change.TableName{Database: "app", Table: "öäü`_0123456789_0123456789_0123456789_0123456789_0123456789_1234"}
		exec(t, s.DB(), server.ChangeLogTable(long)...)
	})
}

func TestCheckTimes(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		exec(t, s.DB(), "CREATE DATABASE app",
			"CREATE TABLE app.exact (id INT PRIMARY KEY, at TIMESTAMP(6) NULL)",
			"CREATE TABLE app.seconds (id INT PRIMARY KEY, at TIMESTAMP NULL)",
			"CREATE TABLE app.zoneless (id INT PRIMARY KEY, AT DATETIME(3))",
			"CREATE TABLE app.number (id INT PRIMARY KEY, at BIGINT)",
			"CREATE TABLE app.without (id INT PRIMARY KEY)",
			"CREATE TABLE app.without_too (id INT PRIMARY KEY)",
		)
		c := logged(t, s, "tables: {include: ['app.*'], rules: [{match: app.without, time_column: at}, {match: 'app.*', time_column: at}]}\n")
		require.Equal(t, []string{
			"fail app.without: time_column", "warn app.number: time_column", "warn app.seconds: time_column",
			"warn app.without_too: time_column", "warn app.zoneless: time_column",
		}, names(findingsOf(t, c, "s0")))
		exec(t, s.DB(), "DROP TABLE app.seconds, app.zoneless, app.number, app.without, app.without_too")

		c = logged(t, s, onlyApp+changeLog)
		const columns = "user_id INT, `table` VARCHAR(64), record_id INT, comment TEXT, timestamp TIMESTAMP(6) NULL"
		for _, shape := range []struct {
			columns string
			more    []string
			want    []string
		}{
			{"id INT AUTO_INCREMENT PRIMARY KEY, " + columns, nil, []string{"warn app.change_log: change_log key"}},
			{"id INT PRIMARY KEY, " + columns, nil, []string{"fail app.change_log: change_log key"}},
			{"id INT AUTO_INCREMENT, site INT, " + columns + ", PRIMARY KEY (id, site)", nil, []string{"warn app.change_log: change_log key"}},
			{"id CHAR(36) PRIMARY KEY, " + columns, nil, nil},
			{"id INT AUTO_INCREMENT PRIMARY KEY, user_id INT, `table` VARCHAR(64), timestamp DATE", nil, []string{
				"fail app.change_log: change_log", "warn app.change_log: change_log key",
			}},
			{"id INT AUTO_INCREMENT PRIMARY KEY, " + columns + ", UNIQUE (record_id)", []string{
				"CREATE TABLE app.detail (id INT PRIMARY KEY, log INT, FOREIGN KEY (log) REFERENCES app.change_log (id))",
				"CREATE TRIGGER app.fires BEFORE INSERT ON app.change_log FOR EACH ROW SET NEW.user_id = 1",
			}, []string{
				"fail app.change_log: change_log key", "fail app.change_log: trigger fires", "warn app.change_log: change_log key",
			}},
		} {
			exec(t, s.DB(), "CREATE TABLE app.change_log ("+shape.columns+")")
			exec(t, s.DB(), shape.more...)
			require.Equal(t, shape.want, names(findingsOf(t, c, "s0")), shape.columns)
			exec(t, s.DB(), "DROP TABLE IF EXISTS app.detail", "DROP TABLE app.change_log")
		}
	})
}
