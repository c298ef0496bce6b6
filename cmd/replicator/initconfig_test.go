package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/config"
)

// TestInitSaysDefaults: what the printed configuration shows as default is the default, and its examples load.
func TestInitSaysDefaults(t *testing.T) {
	i := &initializer{
		mesh: "m", user: "repl", reader: "reader", tables: []string{"app.*"}, passwords: map[string]string{"a": "x", "b": "y"},
		targets: []target{{"a", "a:1"}, {"b", "b:1"}},
	}
	text := i.render(nil)
	uncommented := func(examples bool) *config.Config {
		var out strings.Builder
		for line := range strings.Lines(text) {
			if commented := regexp.MustCompile(`^( *)# ( *[a-z_]+:.*)`).FindStringSubmatch(line); commented != nil {
				if strings.Contains(line, "# example") && !examples {
					continue
				}
				line = commented[1] + commented[2] + "\n"
			}
			out.WriteString(line)
		}
		c, err := config.Parse([]byte(out.String()), i.env)
		require.NoError(t, err, out.String())
		return c
	}
	plain, err := config.Parse([]byte(text), i.env)
	require.NoError(t, err)
	require.Equal(t, plain, uncommented(false))
	examples := uncommented(true)
	require.NotNil(t, examples.Conflict.ChangeLog)
	require.NotEmpty(t, examples.Servers[0].Contact)
}
