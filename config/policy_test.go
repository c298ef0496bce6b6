package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Servers remember the text, so it must not change for what the conflicts do not depend on.
func TestPoliciesText(t *testing.T) {
	for more, want := range map[string]string{
		"": `{"default":"last-writer-wins"}`,
		"tables: {rules: [{match: 'a.b', time_column: t, conflict: {policy: last-writer-wins, mute: true}}]}":           `{"default":"last-writer-wins"}`,
		"tables: {rules: [{match: '`a`.`b.c`', conflict: {add: [n, M, N]}}, {match: 'a.a', conflict: {policy: halt}}]}": `{"default":"last-writer-wins","rules":[{"match":"a.` + "`b.c`" + `","policy":"last-writer-wins","add":["m","n"]},{"match":"a.a","policy":"halt"}]}`,
		"tables: {rules: [{match: 'a.x*'}, {match: 'b.*'}, {match: 'a.*', conflict: {policy: halt}}]}":                  `{"default":"last-writer-wins","rules":[{"match":"a.x*","policy":"last-writer-wins"},{"match":"a.*","policy":"halt"}]}`,
		"conflict: {priority: [west, east]}": `{"default":"last-writer-wins"}`,
		"conflict: {priority: [west, east]}\ntables: {rules: [{match: 'a.b', conflict: {policy: server-priority}}]}":           `{"default":"last-writer-wins","rules":[{"match":"a.b","policy":"server-priority"}],"priority":["west","east"],"server":"east"}`,
		"conflict: {policy: first-writer-wins}\ntables: {rules: [{match: 'a.b'}, {match: 'a.c', conflict: {policy: halt}}]}\n": `{"default":"first-writer-wins","rules":[{"match":"a.c","policy":"halt"}]}`,
	} {
		c, err := parse(t, more)
		require.NoError(t, err, more)
		p := c.Policies("east")
		require.Equal(t, want, p.String())
		read, err := ParsePolicies(want)
		require.NoError(t, err)
		require.Empty(t, p.Differences(read))
	}
	_, err := ParsePolicies(`{"default":"halt","phase":"of the moon"}`)
	require.Error(t, err)
}

func TestPolicyDifferences(t *testing.T) {
	const (
		halted  = "{match: 'a.b', conflict: {policy: halt}}"
		first   = "{match: 'a.*', conflict: {policy: first-writer-wins}}"
		adding  = "{match: 'shop.stock', conflict: {add: [quantity]}}"
		ranked  = "conflict: {policy: server-priority, priority: "
		halfway = "conflict: {policy: first-writer-wins}\n"
	)
	rules := func(text string) string { return "tables: {rules: [" + text + "]}\n" }
	for _, x := range []struct {
		one, other string
		want       []PolicyDifference
	}{
		{rules(halted + "," + adding), rules(adding + "," + halted), nil}, // no table matches both
		{rules(halted + "," + first), rules(first + "," + halted), []PolicyDifference{
			{"the order of the rules", "a.b, a.*", "a.*, a.b"},
		}},
		{rules(adding), "", []PolicyDifference{
			{"tables shop.stock", "last-writer-wins with add [quantity]", "no policy of their own"},
		}},
		{rules(adding), rules("{match: 'shop.stock', conflict: {add: [quantity, Price]}}"), []PolicyDifference{
			{"tables shop.stock", "last-writer-wins with add [quantity]", "last-writer-wins with add [price, quantity]"},
		}},
		{rules(halted), halfway + rules(halted), []PolicyDifference{
			{"tables without a rule", "last-writer-wins", "first-writer-wins"},
		}},
		{ranked + "[east, west]}", ranked + "[west, east]}", []PolicyDifference{
			{"conflict.priority", "east, west", "west, east"},
		}},
	} {
		one, err := parse(t, x.one)
		require.NoError(t, err)
		other, err := parse(t, x.other)
		require.NoError(t, err)
		require.Equal(t, x.want, one.Policies("east").Differences(other.Policies("east")), x)
	}

	// A process may know more servers than another one, but must not call one by another's name.
	all := Policies{Default: ServerPriority, Priority: []string{"hub", "north", "south"}, Server: "hub"}
	some := Policies{Default: ServerPriority, Priority: []string{"hub", "south"}, Server: "hub"}
	require.Empty(t, all.Differences(some))
	some.Server = "south"
	require.Equal(t, []PolicyDifference{{"the name of the server in conflict.priority", "hub", "south"}}, all.Differences(some))
}
