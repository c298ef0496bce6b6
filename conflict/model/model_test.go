package model

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// disciplines are run by name.
var disciplines = map[string]func(*rand.Rand) discipline{
	"unique keys":     newUnique,
	"unique contests": newUniqueContest,
	"foreign keys":    newReference,
	"silent cascades": newSilentReference,
	"policies":        newPolicy,
	"contests":        newContest,
	"add columns":     newAdding,
	"merged columns":  newMerging,
}

// TestConvergence runs random histories under every discipline and checks that at rest
//   - all servers hold the same rows;
//   - every acknowledged change that no application has knowingly overwritten is in the rows or in a journal;
//   - what the discipline promises holds: unique values, no child without its parent, the right winner, exact sums, every
//     column as of its newest change;
//   - nothing is left in any index, and what was published is bounded by what was written.
//
// A failing history is printed with its number. REPLICATOR_HISTORIES sets how many are run for a soak; 12,000 to 60,000 of
// each have been.
func TestConvergence(t *testing.T) {
	for name, d := range disciplines {
		t.Run(name, func(t *testing.T) {
			var total counts
			start := time.Now()
			n := histories(t)
			for seed := range n {
				c, err := history(seed, d, healthy)
				if err != nil {
					t.Fatal(err)
				}
				total.add(c)
			}
			t.Logf("%d histories in %v: %+v", n, time.Since(start).Round(time.Millisecond), total)
			if total.decided == 0 || total.lost == 0 || total.redone == 0 || total.crashes == 0 {
				t.Errorf("histories no longer get to what they are there for: %+v", total)
			}
			if name != "add columns" && total.settled == 0 {
				t.Error("no history publishes anything")
			}
		})
	}
}

func histories(t *testing.T) uint64 {
	if text := os.Getenv("REPLICATOR_HISTORIES"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("REPLICATOR_HISTORIES: %v", err)
		}
		return n
	}
	if testing.Short() {
		return 100
	}
	return 300
}

// TestEveryRuleIsNeeded proves that the histories can fail: each rule is broken in turn, and a history must notice. Some
// are noticed seldom; the number is that of the first history that does, as BenchmarkFirst finds it.
func TestEveryRuleIsNeeded(t *testing.T) {
	for _, b := range broken {
		t.Run(b.discipline+"/"+string(b.rule), func(t *testing.T) {
			if _, err := history(b.first, disciplines[b.discipline], healthy); err != nil {
				t.Fatal(err)
			}
			_, err := history(b.first, disciplines[b.discipline], b.rule)
			if err == nil {
				t.Fatal("the history does not fail without this rule; BenchmarkFirst finds another")
			}
			t.Log(err)
		})
	}
}

// broken are the rules of each discipline and the first history that notices that one is broken.
var broken = []struct {
	discipline string
	rule       rule
	first      uint64
}{
	{"unique keys", physicalOnly, 0},
	{"unique keys", withoutTombstone, 0},
	{"unique contests", arrivedStays, 0},
	{"foreign keys", arrivedLeft, 4521},
	{"foreign keys", presentLeft, 13876},
	{"foreign keys", childAlone, 0},
	{"silent cascades", withoutExpansion, 3},
	{"silent cascades", withoutWait, 21},
	{"silent cascades", waitWhole, 43},
	{"silent cascades", silentChains, 3},
	{"policies", withoutRaise, 15},
	{"contests", withoutOriginal, 0},
	{"add columns", withoutWait, 0},
	{"add columns", lifeIgnored, 0},
	{"add columns", winnerAdds, 0},
	{"add columns", withoutReset, 0},
	{"merged columns", nobodyStates, 0},
	{"merged columns", keptAlone, 11831},
	{"merged columns", resurrectedAlone, 3139},
}

// BenchmarkFirst finds the first history that notices each broken rule: -bench First -benchtime 1x.
func BenchmarkFirst(b *testing.B) {
	for _, r := range broken {
		b.Run(r.discipline+"/"+string(r.rule), func(b *testing.B) {
			for b.Loop() {
				seed := uint64(0)
				for ; seed < 50000; seed++ {
					if _, err := history(seed, disciplines[r.discipline], r.rule); err != nil {
						break
					}
				}
				b.ReportMetric(float64(seed), "first")
			}
		})
	}
}
