package journal

import (
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/image"
	"replicator/sandbox"
)

// A change that loses one column and later another one has one entry, which has both; what was restored or acknowledged of
// it does not cover what was lost later.
func TestLosesAgain(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			s := reach(t, "east", start(t, flavor), east)
			photo := func(id int64, name, photo string) *Row {
				r := person(id, name)
				r.Values[2] = image.Value{Kind: image.Binary, Bytes: []byte(photo)}
				return r
			}
			loses := func(id int64, winner, loser *Row) *Entry {
				e := clash(id, int(id), winner, loser)
				e.Policy = policyMerge
				return e
			}
			show := func(e *Entry) *Record {
				r, failed, err := Show(t.Context(), []Server{s}, e.ID().String())
				require.NoError(t, err)
				require.Empty(t, failed)
				return r
			}
			for id, state := range map[int64]string{1: Open, 2: Acknowledged, 3: Restored} {
				first := loses(id, photo(id, "Anna", "old"), photo(id, "Eve", "old"))
				write(t, s, first)
				if state != Open {
					_, failed := SetState(t.Context(), []Server{s}, first.ID(), state, []string{"name"}...)
					require.Empty(t, failed)
				}
				again := loses(id, photo(id, "Anna", "theirs"), photo(id, "Anna", "mine"))
				write(t, s, again, again, first) // what it says already changes nothing
				r := show(first)
				require.Equal(t, []string{"name", "photo"}, r.Columns)
				require.JSONEq(t, `{"id":`+string('0'+rune(id))+`,"name":"Eve","photo":{"base64":"bWluZQ=="}}`, string(mustJSON(t, r.Loser.Row)))
				require.JSONEq(t, `{"id":`+string('0'+rune(id))+`,"name":"Anna","photo":{"base64":"dGhlaXJz"}}`, string(mustJSON(t, r.Winner.Row)))
				switch state {
				case Restored:
					require.Equal(t, []string{"name"}, r.RestoredColumns())
					require.Equal(t, []string{"photo"}, r.Left())
				default:
					require.Equal(t, Open, r.State)
				}
			}
			// The row is deleted, and what it had of the change in other columns with it, unless it was overwritten knowingly.
			for id, state := range map[int64]string{4: Open, 5: Acknowledged, 6: Restored} {
				first := loses(id, photo(id, "Anna", "mine"), photo(id, "Eve", "mine"))
				write(t, s, first)
				if state != Open {
					_, failed := SetState(t.Context(), []Server{s}, first.ID(), state, []string{"name"}...)
					require.Empty(t, failed)
				}
				whole := loses(id, nil, photo(id, "Anna", "of a change on top of mine"))
				whole.KeyRow = whole.Loser.Row
				write(t, s, whole, whole, first)
				r := show(first)
				require.Equal(t, Open, r.State)
				require.Equal(t, []string{"id", "name", "photo"}, r.Columns)
				require.Nil(t, r.Winner.Row)
				require.JSONEq(t, `{"id":`+string('0'+rune(id))+`,"name":"Eve","photo":{"base64":"bWluZQ=="}}`, string(mustJSON(t, r.Loser.Row)))
				require.Empty(t, r.RestoredColumns())
			}
		})
	}
}
