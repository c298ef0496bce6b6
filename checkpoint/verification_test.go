package checkpoint

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/sandbox"
)

// TestVerification: of two results the later one stays, however they come; and nothing is kept for ever.
func TestVerification(t *testing.T) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB1011} {
		t.Run(string(flavor), func(t *testing.T) {
			db := sandbox.StartTest(t, sandbox.Options{Flavor: flavor}).DB()
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, Migrate(t.Context(), conn))
			count := func(where string) (n int) {
				require.NoError(t, conn.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM replicator.verification WHERE "+where).Scan(&n))
				return n
			}
			noon := time.Date(2026, 11, 21, 12, 0, 0, 123456000, time.UTC)
			name := change.TableName{Database: "shop", Table: "stock"}
			for i, r := range []Verified{{name, noon, false}, {name, noon.Add(-time.Hour), true}, {name, noon.Add(time.Hour), true}} {
				require.NoError(t, SaveVerified(t.Context(), conn, []Verified{r, {change.TableName{Database: "shop", Table: fmt.Sprint(i)}, noon, true}}))
				got, err := LoadVerified(t.Context(), conn)
				require.NoError(t, err)
				want := []Verified{{name, noon, false}, {name, noon, false}, {name, noon.Add(time.Hour), true}}[i]
				require.Contains(t, got, want)
				require.Len(t, got, i+2)
			}

			_, found, err := LastSchedule(t.Context(), conn)
			require.NoError(t, err)
			require.False(t, found)
			now, err := Now(t.Context(), conn)
			require.NoError(t, err)
			for _, ago := range []time.Duration{time.Hour, 30 * time.Hour} {
				require.NoError(t, SaveSchedule(t.Context(), conn, now.Add(-ago)))
				age, found, err := LastSchedule(t.Context(), conn)
				require.NoError(t, err)
				require.True(t, found)
				require.InDelta(t, ago.Seconds(), age.Seconds(), 60)
			}

			for i := range findingsMost + 10 {
				require.NoError(t, SaveFinding(t.Context(), conn, [8]byte{byte(i), byte(i >> 8)}, noon, []byte("{}")))
			}
			require.NoError(t, SaveFinding(t.Context(), conn, [8]byte{1}, noon, []byte("{}")))
			require.Equal(t, findingsMost+10, count("kind = 'finding' AND notified = 0"), "it is recorded once")
			var id ComparisonID
			require.NoError(t, SaveSteps(t.Context(), conn, id, []Step{{Began: noon, Detail: []byte("{}")}, {Table: name, Began: noon, Detail: []byte("{}")}}))
			_, err = conn.ExecContext(t.Context(), "UPDATE replicator.verification SET saved_at = saved_at - INTERVAL 25 HOUR WHERE kind = 'progress' AND table_name <> ''")
			require.NoError(t, err)
			_, age, err := LoadSteps(t.Context(), conn, id)
			require.NoError(t, err)
			require.Less(t, age, time.Hour, "that of the youngest step")
			require.NoError(t, TrimVerification(t.Context(), conn))
			require.LessOrEqual(t, count("kind = 'finding'"), findingsMost)
			require.Equal(t, 1, count("kind = 'progress'"))
			require.Equal(t, 4, count("kind = 'result'"))
			_, err = conn.ExecContext(t.Context(), "UPDATE replicator.verification SET saved_at = saved_at - INTERVAL 400 DAY")
			require.NoError(t, err)
			require.NoError(t, TrimVerification(t.Context(), conn))
			require.Equal(t, 1, count("kind <> ''"), "the schedule alone is kept")
		})
	}
}
