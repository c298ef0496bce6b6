package canal_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
	"replicator/sandbox"
)

// TestReadingEndsWithTheIdentity: what a server commits as another one, or while it is none, is not read as the old one's.
func TestReadingEndsWithTheIdentity(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			s, err := startSource(flavor) // of its own: others read the shared ones
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			db := database(t, s)
			s.exec(t, "CREATE TABLE "+db+".t (id INT PRIMARY KEY)")
			other := change.NewServerID()
			for name, c := range map[string]struct {
				do   func()
				ends bool
			}{
				"its own birth": {func() {
					_, err := checkpoint.GiveBirth(t.Context(), s.db, s.flavor, checkpoint.Identity{ID: s.identity, Position: change.NewGTIDSet(s.flavor)})
					require.NoError(t, err)
				}, false},
				"another one": {func() {
					_, err := s.db.ExecContext(t.Context(), "UPDATE replicator.identity SET id = ?", other[:])
					require.NoError(t, err)
				}, true},
				"none": {func() { s.exec(t, "DELETE FROM replicator.identity") }, true},
			} {
				s.exec(t, "DELETE FROM replicator.identity", "DELETE FROM "+db+".t")
				if c.ends {
					_, err := checkpoint.GiveBirth(t.Context(), s.db, s.flavor, checkpoint.Identity{ID: s.identity, Position: change.NewGTIDSet(s.flavor)})
					require.NoError(t, err)
				}
				start := s.start(t)
				c.do()
				s.exec(t, "INSERT INTO "+db+".t VALUES (1)")
				txs, err := s.readTo(t, s.options(t, db), start)
				if !c.ends {
					require.NoError(t, err, name)
					require.Len(t, local(txs), 1, name)
					continue
				}
				f, ok := fault.As(err)
				require.True(t, ok && f.Class == fault.Unavailable && strings.Contains(f.Message, "any more"), "%s: %v", name, err)
				require.Empty(t, local(txs), name)
				anybody := s.options(t, db)
				anybody.Identity = change.ServerID{}
				require.Len(t, local(s.mustRead(t, anybody, start)), 1, name)
			}
		})
	}
}
