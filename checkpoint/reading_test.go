package checkpoint

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestThin: there is always a place that is not much older than any age, and never many.
func TestThin(t *testing.T) {
	var kept []uint64
	for newest := uint64(1); newest <= 100_000; newest++ {
		gone := Thin(kept, newest)
		kept = slices.DeleteFunc(kept, func(id uint64) bool { return slices.Contains(gone, id) })
		kept = append(kept, newest)
		if newest%997 != 0 {
			continue
		}
		require.LessOrEqual(t, len(kept), 80)
		for age := uint64(1); age < newest*3/4; age *= 2 {
			older := slices.ContainsFunc(kept, func(id uint64) bool { return newest-id >= age && newest-id <= 2*age+1 })
			require.True(t, older, "no place of age %d to %d among %v", age, 2*age, kept)
		}
	}
}
