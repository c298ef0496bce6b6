package server

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseOwned(t *testing.T) {
	require.Empty(t, parseOwned(""))
	const one, two = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
	got := parseOwned(one + ":23#12:24#7:tag:1#9,\n" + two + ":5#3")
	want := []string{one + ":23#12", one + ":24#7", one + ":tag:1#9", two + ":5#3"}
	require.Equal(t, want, slices.Sorted(maps.Keys(got)))
}
