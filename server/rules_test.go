package server_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/sandbox"
	"replicator/server"
)

// TestCheckRules: a rule that is about no table, and a column that is not there, are warned of by their paths.
func TestCheckRules(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		exec(t, s.DB(), "CREATE DATABASE app", "CREATE TABLE app.staff (id INT PRIMARY KEY, Ssn INT)", "CREATE TABLE app.cars (id INT PRIMARY KEY)",
			"CREATE TABLE app.tmp_x (id INT PRIMARY KEY)")
		c := logged(t, s, `tables:
  include: ['app.*']
  exclude: ['app.tmp_*']
  rules:
    - {match: app.stafff, conflict: {policy: halt}}
    - {match: 'app.s*', conflict: {redact: [sSN, salary]}}
    - {match: app.staff, conflict: {mute: true, redact: [nothing]}}
    - {match: 'app.tmp_*', time_column: t}
    - {match: 'app.*', conflict: {redact: [ssn]}}
`)
		found := slices.DeleteFunc(preflight(t, c), func(f server.Finding) bool { return !strings.HasPrefix(f.Name, "tables.rules") })
		var said []string
		for _, f := range found {
			require.Equal(t, server.Warn, f.State)
			require.NotEmpty(t, f.Remedy)
			said = append(said, f.Name+" "+f.Message)
		}
		require.Equal(t, []string{
			`tables.rules[0].match "app.stafff" matches no replicated table on s0`,
			`tables.rules[1].conflict.redact[1] no table that "app.s*" matches has a column salary on s0: nothing is redacted`,
			`tables.rules[2].match "app.staff" has no effect: rules above it match all its tables on s0`,
			`tables.rules[3].match "app.tmp_*" matches no replicated table on s0`,
			`tables.rules[4].conflict.redact[0] no table that "app.*" matches has a column ssn on s0: nothing is redacted`,
		}, said)
	})
}
