package integration

import "testing"

// A row that stands although it was deleted is told of, whatever else the journal has, unless it has the delete.
func TestLostDeletesAreDemanded(t *testing.T) {
	alone := removal{site: "north", table: "cascading", key: 8, tag: "west.1"}
	along := alone
	along.parent = 5
	for _, c := range []struct {
		name string
		r    removal
		gone string
		miss string
		fine bool
	}{
		{name: "nothing is in the journal", r: alone},
		{name: "nothing of what was taken along is in the journal", r: along},
		{name: "the delete lost", r: alone, gone: "north cascading 8", fine: true},
		{name: "the delete of another server lost", r: alone, gone: "west cascading 8"},
		{name: "the delete of the parent lost", r: along, gone: "north parent 5", fine: true},
		{name: "the delete of a row that is no parent lost", r: alone, gone: "north parent 5"},
		{name: "what was taken along was missing", r: along, miss: "north cascading 8", fine: true},
		{name: "it was missing elsewhere", r: along, miss: "west cascading 8"},
		{name: "another row was missing", r: along, miss: "north cascading 9"},
		{name: "what was deleted by itself was missing", r: alone, miss: "north cascading 8"},
	} {
		w := &workload{history: newHistory()}
		w.history.writes["east.1"] = &write{tag: "east.1", site: "east", table: "cascading", key: 8, before: "west.1"}
		o := &outcome{
			rows: map[place]map[string]string{{"cascading", 8}: {"id": "8", "tag": "east.1"}},
			gone: map[string]bool{c.gone: true}, missed: map[string]bool{c.miss: true},
		}
		told := false
		w.checkRemoval(o, c.r, func(string, ...any) { told = true })
		if told == c.fine {
			t.Errorf("%s: told of it: %v", c.name, told)
		}
	}
}
