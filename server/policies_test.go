package server_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/checkpoint"
	"replicator/fault"
	"replicator/sandbox"
	"replicator/server"
)

func TestCheckPolicies(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		exec(t, s.DB(), "CREATE DATABASE app",
			"CREATE TABLE app.good (id INT PRIMARY KEY, n BIGINT NOT NULL)",
			"CREATE TABLE app.unsigned (id INT PRIMARY KEY, n INT UNSIGNED NOT NULL)",
			"CREATE TABLE app.nullable (id INT PRIMARY KEY, n DECIMAL(10,2))",
			"CREATE TABLE app.inexact (id INT PRIMARY KEY, n DOUBLE NOT NULL)",
			"CREATE TABLE app.unique_too (id INT PRIMARY KEY, n INT NOT NULL UNIQUE)",
			"CREATE TABLE app.keyed (id INT PRIMARY KEY, n INT NOT NULL, u INT UNIQUE)",
			"CREATE TABLE app.child (id INT PRIMARY KEY, n INT NOT NULL, FOREIGN KEY (id) REFERENCES app.good (id))",
			"CREATE TABLE app.without (id INT PRIMARY KEY)",
		)
		c := logged(t, s, "tables: {include: ['app.*'], rules: [{match: 'app.*', conflict: {add: [n]}}]}\n")
		require.Equal(t, []string{
			"fail app.child: add n", "fail app.inexact: add n", "fail app.keyed: add n", "fail app.nullable: add n", "fail app.unique_too: add n", "fail app.unsigned: add n",
			"fail app.without: add n",
		}, names(findingsOf(t, c, "s0")))

		exec(t, s.DB(), "CREATE DATABASE deep",
			"CREATE TABLE deep.a (id INT PRIMARY KEY)",
			"CREATE TABLE deep.b (id INT PRIMARY KEY, a INT, CONSTRAINT ba FOREIGN KEY (a) REFERENCES deep.a (id) ON DELETE CASCADE)",
			"CREATE TABLE deep.c (id INT PRIMARY KEY, b INT, CONSTRAINT cb FOREIGN KEY (b) REFERENCES deep.b (id) ON DELETE CASCADE)",
			"CREATE TABLE deep.self (id INT PRIMARY KEY, up INT, CONSTRAINT upward FOREIGN KEY (up) REFERENCES deep.self (id) ON DELETE SET NULL)",
		)
		c = logged(t, s, "tables: {include: ['deep.*']}\n")
		var want []string
		if s.Flavor().MariaDB() {
			want = []string{"warn deep.b: foreign key ba", "warn deep.self: foreign key upward"}
		}
		require.Equal(t, want, names(findingsOf(t, c, "s0")))
	})
}

func TestCheckMergedColumns(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		exec(t, s.DB(), "CREATE DATABASE app",
			"CREATE TABLE app.good (id INT PRIMARY KEY, n INT, KEY (n))",
			"CREATE TABLE app.keyed (id INT PRIMARY KEY, n INT, UNIQUE KEY n (n))",
			"CREATE TABLE app.parent (id INT PRIMARY KEY)",
			"CREATE TABLE app.child (id INT PRIMARY KEY, p INT, CONSTRAINT up FOREIGN KEY (p) REFERENCES app.parent (id))",
		)
		c := logged(t, s, "tables: {include: ['app.*']}\nconflict: {policy: merge-columns}\n")
		require.Equal(t, []string{
			"fail app.child: merge-columns", "fail app.keyed: merge-columns", "fail app.parent: merge-columns",
		}, names(findingsOf(t, c, "s0")))
	})
}

func TestCheckComparesPolicies(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE TABLE app.stock (id INT PRIMARY KEY, n BIGINT NOT NULL)")
		const other = "tables: {include: ['app.*'], rules: [{match: app.stock, conflict: {policy: halt}}]}\n"
		was := logged(t, s, "tables: {include: ['app.*'], rules: [{match: app.stock, conflict: {add: [N]}}]}\n")
		now := logged(t, s, other)
		found := func() []server.Finding {
			return slices.DeleteFunc(preflight(t, now), func(f server.Finding) bool { return f.Name != "conflict policies" })
		}
		require.Empty(t, found(), "there is no schema yet")

		conn, err := s.DB().Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, checkpoint.Migrate(t.Context(), conn))
		require.Equal(t, server.Pass, found()[0].State, "nothing is recorded")

		require.NoError(t, checkpoint.SavePolicies(t.Context(), conn, was.Policies("s0").String()))
		now.Server("s0").Own = false
		const difference = `conflict policies differ: tables app.stock: the owner of s0 says "last-writer-wins with add [n]", this configuration "halt"`
		require.Equal(t, []server.Finding{{
			Server: "s0", Name: "conflict policies", State: server.Fail, Class: fault.Configuration, Message: difference,
			Remedy: "give all processes of the mesh the same policies, and restart those that have others: links go on by themselves when all agree",
		}}, found())
		now.Server("s0").Own = true
		require.Equal(t, server.Warn, found()[0].State)
		require.Equal(t, difference+"; a run with this configuration changes them", found()[0].Message)

		require.NoError(t, checkpoint.SavePolicies(t.Context(), conn, now.Policies("s0").String()))
		require.Equal(t, server.Pass, found()[0].State)
		require.NoError(t, checkpoint.SavePolicies(t.Context(), conn, `{"default":"halt","unheard":"of"}`))
		now.Server("s0").Own = false
		require.ErrorContains(t, server.Err(found()), "cannot be understood")
	})
}
