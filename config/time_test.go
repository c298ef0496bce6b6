package config

import (
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
)

func parse(t *testing.T, more string) (*Config, error) {
	t.Helper()
	return Parse([]byte(minimal+more), env("WEST", "x"))
}

func TestChangeLogColumns(t *testing.T) {
	c, err := parse(t, "conflict: {change_log: {table: 'app.`the.log`', columns: {user: who, comment: ''}}}")
	require.NoError(t, err)
	l := c.Conflict.ChangeLog
	require.Equal(t, change.TableName{Database: "app", Table: "the.log"}, l.Name)
	require.Equal(t, ChangeLogColumns{Table: "table", Key: "record_id", User: "who", Time: "timestamp"}, l.Columns)

	for _, bad := range []string{"", "log", "app.*", "mysql.log", "replicator.log", "app.tmp_log"} {
		_, err := parse(t, "tables: {exclude: ['*.tmp_*']}\nconflict: {change_log: {table: '"+bad+"'}}")
		require.ErrorContains(t, err, "conflict.change_log.table", bad)
	}
}

func TestFirstRuleGivesTheTimeColumn(t *testing.T) {
	c, err := parse(t, `
tables:
  rules:
    - {match: "app.raw_*"}
    - {match: "app.*", time_column: changed}
    - {match: "*.*", time_column: at}
`)
	require.NoError(t, err)
	for name, want := range map[change.TableName]string{
		{Database: "app", Table: "raw_x"}: "", {Database: "app", Table: "x"}: "changed", {Database: "shop", Table: "raw_x"}: "at",
		{Database: "mysql", Table: "user"}: "", {Database: "replicator", Table: "marker"}: "",
	} {
		require.Equal(t, want, c.Tables.TimeColumn(name), name)
	}
}

// Servers remember the text from their birth on, so it must not change for what the clocks do not depend on.
func TestFoldSettings(t *testing.T) {
	for more, want := range map[string]string{
		"": `max_clock_skew=10s`,
		"tables: {rules: [{match: 'a.b', conflict: {policy: last-writer-wins}}]}":                                                                `max_clock_skew=10s`,
		"conflict: {max_clock_skew: 1m, change_log: {table: app.log, columns: {user: who}}}":                                                     `max_clock_skew=1m0s change_log="app"."log" time="timestamp"`,
		"tables: {rules: [{match: 'a.b'}, {match: 'shop.c'}, {match: 'a.*', time_column: At}, {match: 'a.*'}, {match: '*.d*', time_column: t}]}": `max_clock_skew=10s time_columns=["a.b"="" "a.*"="at" "a.*"="" "*.d*"="t"]`,
	} {
		c, err := parse(t, more)
		require.NoError(t, err)
		require.Equal(t, want, c.FoldSettings())
	}
}

func TestOverlappingPatterns(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.c", false},
		{"a.*", "*.b", true},
		{"a.x*", "a.*y", true},
		{"a.x*", "a.y*", false},
		{"a.x*z", "a.xz", true},
		{"a.x*z", "a.x", false},
		{"a.*a*b*", "a.*b*a", true},
		{"a.*ab*", "a.cd*", true},
		{"a.*b", "a.*c", false},
		{"a*.t", "b*.t", false},
		{"`a*`.t", "a*.t", true},
		{"`a*`.t", "ab*.t", false},
	} {
		a, err := parsePattern(c.a)
		require.NoError(t, err)
		b, err := parsePattern(c.b)
		require.NoError(t, err)
		require.Equal(t, c.want, a.overlaps(b), "%s and %s", c.a, c.b)
		require.Equal(t, c.want, b.overlaps(a), "%s and %s", c.b, c.a)
	}
}
