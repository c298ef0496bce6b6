package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// conflictEntry is an entry as `conflicts list --json` and `conflicts show --json` print it.
type conflictEntry struct {
	ID         string         `json:"id"`
	Time       string         `json:"time"`
	Table      string         `json:"table"`
	Key        map[string]any `json:"key"`
	Kind       string         `json:"kind"`
	Policy     string         `json:"policy"`
	Winner     conflictSide   `json:"winner"`
	Loser      conflictSide   `json:"loser"`
	Columns    []string       `json:"columns"`
	User       *string        `json:"user"`
	Comment    *string        `json:"comment"`
	Servers    []string       `json:"servers"`
	State      string         `json:"state"`
	Restorable bool           `json:"restorable"`
	WinnerRow  map[string]any `json:"winner_row"`
	LoserRow   map[string]any `json:"loser_row"`
}

type conflictSide struct {
	Origin  *string `json:"origin"`
	Version *string `json:"version"`
	GTID    *string `json:"gtid"`
}

// expectedEntry is what a scenario says of one entry. What it does not say is not compared.
//
//	insert_exists t id=1            the kind (or several, of which the entry must have one), the table, the key
//	  lost east id=1, v=b           the origin, and the row that this change would have left, or "deleted"
//	  won west id=1, v=c
//	  policy last-writer-wins
//	  state open
//	  servers east, west            where it is journaled
//	  columns v
//	  user anne: moved in           who lost, with the comment
//	  not restorable
type expectedEntry struct {
	maybe      bool
	kinds      []string
	table, key string
	facts      []string // lines as factsOf writes them
}

func parseExpected(lines []string) []expectedEntry {
	var all []expectedEntry
	for _, line := range lines {
		if strings.HasPrefix(line, " ") {
			last := &all[len(all)-1]
			last.facts = append(last.facts, strings.TrimSpace(line))
			continue
		}
		line, maybe := strings.CutPrefix(line, "maybe ")
		words := strings.SplitN(line, " ", 3)
		all = append(all, expectedEntry{maybe: maybe, kinds: strings.Split(words[0], "|"), table: words[1], key: words[2]})
	}
	return all
}

// entries reads the journal of a scenario's tables.
func (g *stage) entries(s *scenario) ([]conflictEntry, error) {
	out, err := g.operate("conflicts", "list", "--table", s.database()+".*", "--json")
	if err != nil {
		return nil, err
	}
	var listed []conflictEntry
	if err := json.Unmarshal([]byte(out), &listed); err != nil {
		return nil, fmt.Errorf("%w in %s", err, out)
	}
	for i := range listed {
		out, err := g.operate("conflicts", "show", listed[i].ID, "--json")
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(out), &listed[i]); err != nil {
			return nil, fmt.Errorf("%w in %s", err, out)
		}
	}
	return listed, nil
}

// journal awaits exactly the entries that the step lists.
func (g *stage) journal(t *testing.T, where string, s *scenario, st step) {
	t.Helper()
	want := parseExpected(st.more)
	deadline := time.Now().Add(slowness * 10 * time.Second)
	for {
		got, err := g.entries(s)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		problem := g.match(s, want, got)
		if problem == "" {
			return
		}
		if time.Now().After(deadline) || len(got) > len(want) {
			t.Fatalf("%s: %s; the journal has\n%s", where, problem, g.describe(s, got))
		}
		<-time.After(50 * time.Millisecond)
	}
}

// match pairs the entries, and says what is missing or too many.
func (g *stage) match(s *scenario, want []expectedEntry, got []conflictEntry) string {
	left := slices.Clone(got)
	for _, w := range want {
		i := slices.IndexFunc(left, func(e conflictEntry) bool { return g.is(s, w, e) })
		if i < 0 && w.maybe {
			continue
		}
		if i < 0 {
			return fmt.Sprintf("there is no entry %s %s %s with %q", strings.Join(w.kinds, "|"), w.table, w.key, w.facts)
		}
		left = slices.Delete(left, i, i+1)
	}
	if len(left) > 0 {
		return fmt.Sprintf("%d entries more than expected", len(left))
	}
	return ""
}

func (g *stage) is(s *scenario, w expectedEntry, e conflictEntry) bool {
	if !slices.Contains(w.kinds, e.Kind) || e.Table != s.database()+"."+w.table || rowText(e.Key, w.key) != w.key {
		return false
	}
	facts := append(g.factsOf(e, w), "lost "+g.origin(e.Loser), "won "+g.origin(e.Winner))
	for _, f := range w.facts {
		if !slices.Contains(facts, g.realName(f)) {
			return false
		}
	}
	return true
}

// realName replaces an alias of a server in a fact.
func (g *stage) realName(fact string) string {
	words := strings.SplitN(fact, " ", 3)
	if name, ok := g.aliases[words[min(1, len(words)-1)]]; ok {
		words[1] = name
	}
	return strings.Join(words, " ")
}

// factsOf writes an entry as scenarios do. The columns of a row are in the order of the expectation.
func (g *stage) factsOf(e conflictEntry, w expectedEntry) []string {
	order := func(word string) string {
		for _, f := range w.facts {
			if strings.HasPrefix(f, word+" ") {
				return f
			}
		}
		return ""
	}
	facts := []string{
		fmt.Sprintf("lost %s %s", g.origin(e.Loser), rowText(e.LoserRow, order("lost"))),
		fmt.Sprintf("won %s %s", g.origin(e.Winner), rowText(e.WinnerRow, order("won"))),
		"policy " + e.Policy,
		"state " + e.State,
		"servers " + strings.Join(e.Servers, ", "),
		"columns " + strings.Join(e.Columns, ", "),
	}
	if e.User != nil && e.Comment != nil {
		facts = append(facts, fmt.Sprintf("user %s: %s", *e.User, *e.Comment))
	}
	if !e.Restorable {
		facts = append(facts, "not restorable")
	}
	return facts
}

// origin is a server's name, "unknown" for a change that nobody remembers.
func (g *stage) origin(side conflictSide) string {
	if side.Origin == nil {
		return "unknown"
	}
	if name, ok := g.identities[*side.Origin]; ok {
		return name
	}
	return *side.Origin
}

// rowText writes a row as scenarios do, in the order in which a text names its columns and then by name.
func rowText(row map[string]any, like string) string {
	if row == nil {
		return "deleted"
	}
	names := make([]string, 0, len(row))
	for n := range row {
		names = append(names, n)
	}
	place := func(n string) int {
		i := strings.Index(" "+like, " "+n+"=")
		if i < 0 {
			return len(like) + 1
		}
		return i
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := place(a) - place(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	parts := make([]string, len(names))
	for i, n := range names {
		parts[i] = n + "=" + valueText(row[n])
	}
	return strings.Join(parts, ", ")
}

func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case string:
		return v
	case map[string]any:
		return fmt.Sprint("base64:", v["base64"])
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// describe writes entries as a scenario would.
func (g *stage) describe(s *scenario, all []conflictEntry) string {
	var b strings.Builder
	for _, e := range all {
		fmt.Fprintf(&b, "  %s %s %s\n", e.Kind, strings.TrimPrefix(e.Table, s.database()+"."), rowText(e.Key, ""))
		for _, f := range g.factsOf(e, expectedEntry{}) {
			fmt.Fprintf(&b, "    %s\n", f)
		}
	}
	return b.String()
}

// conflictID finds the one entry of a table and a row, such as "t id=1"; further columns are those of the losing row.
func (g *stage) conflictID(t *testing.T, where string, s *scenario, what string) string {
	t.Helper()
	words := strings.Fields(what)
	all, err := g.entries(s)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	var found []string
	for _, e := range all {
		if e.Table == s.database()+"."+words[0] && hasAll(e, words[1:]) {
			found = append(found, e.ID)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s: %d conflicts are {%s}; the journal has\n%s", where, len(found), what, g.describe(s, all))
	}
	return found[0]
}

func hasAll(e conflictEntry, conditions []string) bool {
	for _, c := range conditions {
		name, want, _ := strings.Cut(c, "=")
		value, ok := e.Key[name]
		if !ok {
			value, ok = e.LoserRow[name]
		}
		if !ok || valueText(value) != want {
			return false
		}
	}
	return true
}
