package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNotify(t *testing.T) {
	c, err := Parse([]byte(`
mesh: personnel
servers:
  east: {endpoints: ["db-east:3306"], user: r, password: x, contact: ["dba-east@example.org", "dba@example.org"]}
  west: {endpoints: ["db-west:3306"], user: r, password: x}
tables: {rules: [{match: "shop.stock", conflict: {mute: true, redact: [ssn]}}]}
conflict:
  change_log: {table: personnel.change_log}
  users: {query: "SELECT email FROM personnel.users WHERE id = ?"}
notify:
  smtp: {address: "mail:25", from: "Replicator <replicator@example.org>", username: u, password: "${P}"}
  webhook: {url: "https://example.org/hook", secret: s}
`), env("P", "secret"))
	require.NoError(t, err)
	require.Equal(t, SMTPStartTLS, c.Notify.SMTP.TLS)
	require.Equal(t, []string{"dba-east@example.org", "dba@example.org"}, c.Server("east").Contact)
	require.True(t, c.Tables.Rules[0].Conflict.Mute)
}

// TestUsersQuery: who leaves out the place of the user's id learns what is expected.
func TestUsersQuery(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT email FROM app.users":                         "has no ? for the user's id",
		"SELECT email FROM app.users WHERE id = ? OR old = ?": "has 2 ?, of which one is the user's id",
	} {
		_, err := Parse([]byte("mesh: m\nservers: {a: {endpoints: [a], user: r, password: x}, b: {endpoints: [b], user: r, password: x}}\n"+
			"conflict: {change_log: {table: app.change_log}, users: {query: '"+query+"'}}\n"), env())
		var problems Problems
		require.ErrorAs(t, err, &problems)
		require.Equal(t, Problems{{
			Path: "conflict.users.query", Message: want,
			Remedy: `put exactly one ? where it belongs, as in "SELECT email FROM personnel.users WHERE id = ?"`,
		}}, problems)
	}
}

func TestNotifyProblems(t *testing.T) {
	parse := func(text string) map[string]bool {
		_, err := Parse([]byte(`
mesh: personnel
servers:
  east: {endpoints: ["db-east:3306"], user: r, password: x, contact: ["Dba <dba@example.org>", "a@b\r\nBcc: c@d", "nobody", "dba@example.org"]}
  west: {endpoints: ["db-west:3306"], user: r, password: x}
`+text), env())
		paths := map[string]bool{}
		var problems Problems
		require.ErrorAs(t, err, &problems)
		for _, p := range problems {
			require.NotEmpty(t, p.Remedy, p.Path)
			require.NotContains(t, p.Message, "t0ken")
			paths[p.Path] = true
		}
		for _, contact := range []string{"0", "1", "2"} {
			require.True(t, paths["servers.east.contact["+contact+"]"])
			delete(paths, "servers.east.contact["+contact+"]")
		}
		return paths
	}
	require.Equal(t, map[string]bool{
		"notify.smtp.address": true, "notify.smtp.from": true, "notify.smtp.username": true, "notify.smtp.tls": true,
		"notify.webhook.url": true, "conflict.users.query": true,
	}, parse(`
conflict: {users: {query: "SELECT 1"}}
notify: {smtp: {address: mail, username: u, tls: none}, webhook: {url: "ftp://t0ken@host"}}
`))
	require.Equal(t, map[string]bool{
		"notify.smtp.from": true, "notify.smtp.password": true, "notify.smtp.ca": true, "notify.smtp.tls": true,
		"notify.webhook.secret": true, "conflict.users.query": true,
	}, parse(`
conflict: {users: {query: "SELECT email FROM u WHERE id = ?"}}
notify: {smtp: {from: a@b, password: x, tls: perhaps, ca: /no/such/file}, webhook: {secret: x}}
`))
}
