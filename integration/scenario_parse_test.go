package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// scenario is one file of testdata/scenarios: comments (#), a header, and steps, one a line. An indented line belongs to the
// line above it.
//
//	meshes: mysql, mixed          where it runs; every mesh when there is no such line
//	rule: {conflict: {...}}       the rule of this scenario's tables, as in the configuration
//	needs: change_log             further configuration, see scenarioNeeds
//	last: 1                       after the others, by that number, because it drives the clocks of the mesh ahead
//
// Steps before "start" happen before the program's first start. Each scenario has a database of its own, named after its
// file, which its statements use.
//
//	east: INSERT INTO t ...       a statement on one server; "all" is every server, "low", "mid" and "high" are the servers in
//	                              the order of their identities
//	cut | cut east | cut east->west     links go down: all, those from and to a server, one
//	heal | heal east | heal east->west  and come back
//	await                         until everything committed so far has been decided everywhere
//	kill                          SIGKILL for the program, which starts again
//	stopped east->west: CLASS     until a link has stopped with that class of error
//	program: ARGUMENTS            a command that must succeed; {t id=1} stands for the id of the conflict of that row, and
//	                              {t id=1 v=x} for that of the loser with those values. Indented: texts that it prints
//	refused: ARGUMENTS            a command that must fail
//	rows: SELECT ...              indented: what every server answers, columns separated by " | "
//	rows east: SELECT ...         what one server answers
//	journal:                      indented: all entries of this scenario's tables, see expectedEntry
//
// $soon is the same time in every step of a scenario, lead after its beginning.
type scenario struct {
	name   string
	meshes []string // nil: all
	rule   string
	needs  []string
	last   string
	before []step
	steps  []step
}

type step struct {
	line int
	verb string   // "sql", or the first word
	who  string   // a server, a link, or nothing
	text string   // behind the colon
	more []string // indented lines, without the common indentation
}

// database is the scenario's own.
func (s *scenario) database() string { return strings.ReplaceAll(s.name, "-", "_") }

func (s *scenario) runsOn(mesh string) bool {
	return s.meshes == nil || slices.Contains(s.meshes, mesh)
}

// readScenarios reads all files, or those whose names match the environment variable SCENARIOS.
func readScenarios(tb testing.TB) []*scenario {
	tb.Helper()
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil {
		tb.Fatal(err)
	}
	wanted := regexp.MustCompile(os.Getenv("SCENARIOS"))
	var all []*scenario
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".txt")
		if !wanted.MatchString(name) {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		s, err := parseScenario(name, string(text))
		if err != nil {
			tb.Fatalf("%s:%v", f, err)
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		tb.Fatal("there are no scenarios")
	}
	slices.SortStableFunc(all, func(a, b *scenario) int { return strings.Compare(a.last, b.last) })
	return all
}

func parseScenario(name, text string) (*scenario, error) {
	s := &scenario{name: name}
	started := false
	for i, line := range strings.Split(text, "\n") {
		steps := &s.before
		if started {
			steps = &s.steps
		}
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#"):
		case line != strings.TrimLeft(line, " \t"):
			if len(*steps) == 0 {
				return nil, fmt.Errorf("%d: an indented line belongs to a step", i+1)
			}
			last := &(*steps)[len(*steps)-1]
			last.more = append(last.more, strings.TrimPrefix(line, "  "))
		case trimmed == "start":
			started = true
		default:
			if s.header(trimmed) {
				continue
			}
			st, err := parseStep(trimmed)
			if err != nil {
				return nil, fmt.Errorf("%d: %w", i+1, err)
			}
			st.line = i + 1
			*steps = append(*steps, st)
		}
	}
	if !slices.ContainsFunc(s.steps, func(st step) bool { return st.verb == "journal" }) {
		return nil, fmt.Errorf("1: a scenario says what is in the journal")
	}
	return s, nil
}

func (s *scenario) header(line string) bool {
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	switch name {
	case "meshes":
		s.meshes = strings.Split(value, ", ")
	case "rule":
		s.rule = value
	case "last":
		s.last = value
	case "needs":
		s.needs = strings.Split(value, ", ")
	default:
		return false
	}
	return true
}

// lead is how far in the future scenarios put the times that their applications say: the writes that are to be earlier must
// come before, also on a slow machine.
const lead = 5 * time.Second

// fill replaces the variables of a scenario.
func (st step) fill(began time.Time) step {
	soon := began.UTC().Add(lead).Format("2006-01-02 15:04:05.000000")
	st.text = strings.ReplaceAll(st.text, "$soon", soon)
	st.more = slices.Clone(st.more)
	for i, m := range st.more {
		st.more[i] = strings.ReplaceAll(m, "$soon", soon)
	}
	return st
}

func parseStep(line string) (step, error) {
	head, text, _ := strings.Cut(line, ":")
	words := strings.Fields(head)
	st := step{verb: words[0], text: strings.TrimSpace(text)}
	if len(words) == 2 {
		st.who = words[1]
	}
	switch st.verb {
	case "cut", "heal", "await", "kill", "stopped", "program", "refused", "rows", "journal":
	case "all", "east", "west", "north", "low", "mid", "high":
		st.verb, st.who = "sql", words[0]
	default:
		return step{}, fmt.Errorf("unknown step %q", line)
	}
	if len(words) > 2 {
		return step{}, fmt.Errorf("%q: too many words before the colon", line)
	}
	return st, nil
}
