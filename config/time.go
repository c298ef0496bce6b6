package config

import (
	"fmt"
	"slices"
	"strings"

	"replicator/change"
)

// ChangeLog is the application's own log of changes: its row in the same transaction gives the time, the user and the
// comment of a change.
type ChangeLog struct {
	Table   string           `yaml:"table"`
	Columns ChangeLogColumns `yaml:"columns"`

	// Name is Table, resolved.
	Name change.TableName `yaml:"-"`
}

// ChangeLogColumns names the columns of the change log. "" says that it has no such column; what the file leaves out is
// named as in the table that `replicator init --change-log` prints.
type ChangeLogColumns struct {
	Table   string `yaml:"table"`   // which table was changed
	Key     string `yaml:"key"`     // which of its rows
	User    string `yaml:"user"`    // who did it
	Time    string `yaml:"time"`    // when: TIMESTAMP or DATETIME (in UTC)
	Comment string `yaml:"comment"` // why
}

// DefaultChangeLogColumns are the names that the file leaves out.
func DefaultChangeLogColumns() ChangeLogColumns {
	return ChangeLogColumns{Table: "table", Key: "record_id", User: "user_id", Time: "timestamp", Comment: "comment"}
}

// Rule returns the first rule that matches a table, nil when none does. Whether the table is replicated does not matter.
func (t *Tables) Rule(name change.TableName) *Rule {
	if IsSystem(name.Database) {
		return nil
	}
	for i := range t.Rules {
		if t.Rules[i].pattern.matches(name) {
			return &t.Rules[i]
		}
	}
	return nil
}

// Literal reports whether the rule names one table, without wildcards.
func (r *Rule) Literal() bool { return len(r.pattern.database) == 1 && len(r.pattern.table) == 1 }

// TimeColumn returns the column that holds the physical time of a table's changes, "" when none does.
func (t *Tables) TimeColumn(name change.TableName) string {
	if r := t.Rule(name); r != nil {
		return r.TimeColumn
	}
	return ""
}

// FoldSettings is the canonical text of what the clocks of a mesh depend on besides the binlogs. Servers remember it
// from their birth on: readers with other settings would number the same transactions otherwise.
func (c *Config) FoldSettings() string {
	text := "max_clock_skew=" + c.Conflict.MaxClockSkew.String()
	if l := c.Conflict.ChangeLog; l != nil {
		text += fmt.Sprintf(" change_log=%q.%q time=%q", l.Name.Database, l.Name.Table, strings.ToLower(l.Columns.Time))
	}
	if rules := c.Tables.timeRules(); len(rules) > 0 {
		parts := make([]string, len(rules))
		for i, r := range rules {
			parts[i] = fmt.Sprintf("%q=%q", r.Match, strings.ToLower(r.TimeColumn))
		}
		text += " time_columns=[" + strings.Join(parts, " ") + "]"
	}
	return text
}

// timeRules are the rules on which TimeColumn depends: those that name a column, and those without one that take tables
// away from a later one that does.
func (t *Tables) timeRules() []*Rule {
	return t.decisive(func(r *Rule) bool { return r.TimeColumn != "" })
}

// decisive are the rules that say something, and those that take tables away from a later one of them.
func (t *Tables) decisive(says func(*Rule) bool) []*Rule {
	var kept []*Rule
	for i := len(t.Rules) - 1; i >= 0; i-- {
		r := &t.Rules[i]
		shadows := slices.ContainsFunc(kept, func(later *Rule) bool { return r.pattern.overlaps(later.pattern) })
		if says(r) || shadows {
			kept = append(kept, r)
		}
	}
	slices.Reverse(kept)
	return kept
}

// overlaps reports whether some table matches both patterns.
func (p pattern) overlaps(o pattern) bool {
	return p.database.overlaps(o.database) && p.table.overlaps(o.table)
}

// overlaps reports whether some text matches both: from each place in one and each place in the other, seen from the
// end, whether what follows can be the same.
func (w wildcard) overlaps(o wildcard) bool {
	a, b := w.symbols(), o.symbols()
	next := make([]bool, len(b)+1) // of the place behind in a
	for i := len(a); i >= 0; i-- {
		same := make([]bool, len(b)+1)
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				same[j] = true
			case i < len(a) && a[i] == anyText:
				same[j] = next[j] || j < len(b) && same[j+1]
			case j < len(b) && b[j] == anyText:
				same[j] = same[j+1] || i < len(a) && next[j]
			default:
				same[j] = i < len(a) && j < len(b) && a[i] == b[j] && next[j+1]
			}
		}
		next = same
	}
	return next[0]
}

// anyText stands for a star among the bytes of a wildcard.
const anyText = -1

func (w wildcard) symbols() []int {
	var out []int
	for i, piece := range w {
		if i > 0 {
			out = append(out, anyText)
		}
		for _, c := range []byte(piece) {
			out = append(out, int(c))
		}
	}
	return out
}

// ParseTableName reads the name of one table: a pattern without wildcards.
func ParseTableName(text string) (change.TableName, bool) {
	p, err := parsePattern(text)
	if err != nil || len(p.database) != 1 || len(p.table) != 1 {
		return change.TableName{}, false
	}
	return change.TableName{Database: p.database[0], Table: p.table[0]}, true
}

func (v *validator) validateChangeLog() {
	l := v.Conflict.ChangeLog
	if l == nil {
		return
	}
	const path = "conflict.change_log"
	v.defaultColumns(path+".columns", &l.Columns)
	if l.Table == "" {
		v.problem(path+".table", "write database.table", "is missing")
		return
	}
	var ok bool
	if l.Name, ok = ParseTableName(l.Table); !ok {
		v.problem(path+".table", "write database.table, with `…` around a name that holds dots or stars", "%q is not a table", l.Table)
		return
	}
	if !v.Tables.Matches(l.Name) {
		v.problem(path+".table", "add it to tables.include, and take it out of tables.exclude",
			"%s is not among the replicated tables", l.Table)
	}
}

func (v *validator) defaultColumns(path string, c *ChangeLogColumns) {
	usual := DefaultChangeLogColumns()
	for _, f := range []struct {
		name         string
		value, usual *string
	}{
		{"table", &c.Table, &usual.Table},
		{"key", &c.Key, &usual.Key},
		{"user", &c.User, &usual.User},
		{"time", &c.Time, &usual.Time},
		{"comment", &c.Comment, &usual.Comment},
	} {
		if !v.set[path+"."+f.name] {
			*f.value = *f.usual
		}
	}
}
