package checkpoint_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/sandbox"
)

// TestCloneFences: while a server is being cloned nobody is its owner, whatever he knew, and nobody gives birth to it; the
// markers of the new server have numbers that no old one had.
func TestCloneFences(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			s, ctx := sandbox.StartTest(t, sandbox.Options{Flavor: flavor}), t.Context()
			conn, err := s.DB().Conn(ctx)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, checkpoint.Migrate(ctx, conn))
			own := change.MySQL
			if flavor.MariaDB() {
				own = change.MariaDB
			}
			none := change.NewGTIDSet(own)
			old := checkpoint.Identity{ID: change.NewServerID(), Position: none}
			source := checkpoint.Identity{ID: change.NewServerID(), Position: none}
			_, err = checkpoint.GiveBirth(ctx, conn, own, old)
			require.NoError(t, err)
			require.NoError(t, checkpoint.HoldIdentity(ctx, conn, old.ID))
			before, err := checkpoint.Begin(ctx, conn, checkpoint.NewOwner(), source)
			require.NoError(t, err)
			require.NoError(t, checkpoint.SaveReading(ctx, conn, checkpoint.Reading{Position: none}))

			c := checkpoint.Clone{Source: source.ID, Position: none}
			require.NoError(t, checkpoint.BeginClone(ctx, conn, &c))
			require.Equal(t, old.ID, c.Was)
			require.ErrorIs(t, checkpoint.HoldIdentity(ctx, conn, old.ID), checkpoint.ErrReborn)
			_, err = checkpoint.GiveBirth(ctx, conn, own, checkpoint.Identity{ID: change.NewServerID(), Position: none})
			require.ErrorIs(t, err, checkpoint.ErrReborn)
			_, found, err := checkpoint.Latest(ctx, conn, own, source.ID)
			require.NoError(t, err)
			require.False(t, found)
			places, err := checkpoint.LoadReadings(ctx, conn, own)
			require.NoError(t, err)
			require.Empty(t, places)
			require.Greater(t, c.Seq, before.Seq+checkpoint.Keep)

			require.NoError(t, checkpoint.Plant(ctx, conn, source.ID, c.Seq, none, change.Clock{Time: 7}, nil))
			born := checkpoint.Identity{ID: change.NewServerID(), Position: none}
			require.NoError(t, checkpoint.EndClone(ctx, conn, born))
			require.NoError(t, checkpoint.HoldIdentity(ctx, conn, born.ID))
			require.ErrorIs(t, checkpoint.HoldIdentity(ctx, conn, old.ID), checkpoint.ErrReborn)
			after, found, err := checkpoint.LoadClone(ctx, conn, own)
			require.NoError(t, err)
			require.True(t, found && after.ID == born.ID && after.Was == old.ID && !after.Ended.IsZero())
		})
	}
}
