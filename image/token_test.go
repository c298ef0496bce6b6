package image_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
)

// tokensAgree compares tokens of values that are equal, or not, whatever their columns are.
func tokensAgree(t *testing.T, s *sandbox.Server) {
	t.Helper()
	imagetest.Exec(t, s, "CREATE TABLE d.tokens (id INT PRIMARY KEY, i INT, b BIGINT, d DECIMAL(20,3), e DECIMAL(10,1), "+
		"s VARCHAR(20), c CHAR(20), bin VARBINARY(20)) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci")
	log := imagetest.Capture(t, s, func() {
		imagetest.Exec(t, s, "INSERT INTO d.tokens VALUES (1, -5, -5, 2.5, 2.5, 'Smith ', 'smith', 'smith'), "+
			"(2, 6, 7, NULL, 0, 'jones', 'jonas', 'Smith')", "DROP TABLE d.tokens")
	})
	require.NotEmpty(t, log.Events)
	ev := log.Events[0]
	require.Len(t, ev.Rows, 2)
	of := func(row int, name string, columns ...int) (image.Token, bool) {
		parts := make([]change.KeyPart, len(columns))
		for i, c := range columns {
			parts[i].Column = c
		}
		k, err := image.NewTokens(ev.Table, name, parts)
		require.NoError(t, err)
		token, ok, err := k.Of(ev.After(ev.Rows[row]))
		require.NoError(t, err)
		return token, ok
	}
	same := func(a, b image.Token) bool { return a == b }
	token := func(row int, columns ...int) image.Token {
		token, ok := of(row, "x", columns...)
		require.True(t, ok)
		return token
	}
	require.True(t, same(token(0, 1), token(0, 2)), "INT and BIGINT")
	require.False(t, same(token(1, 1), token(1, 2)))
	require.True(t, same(token(0, 3), token(0, 4)), "fractional digits")
	require.True(t, same(token(0, 5), token(0, 6)), "case and trailing spaces")
	require.False(t, same(token(1, 5), token(1, 6)))
	require.True(t, same(token(0, 1, 5), token(0, 2, 6)), "several columns")
	require.False(t, same(token(0, 1, 5), token(0, 5, 1)))
	_, ok := of(1, "x", 2, 3)
	require.False(t, ok, "NULL is equal to nothing")
	other, _ := of(0, "y", 1)
	require.NotEqual(t, token(0, 1), other, "another name")
}
