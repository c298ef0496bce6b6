package server

import (
	"fmt"
	"slices"
	"strings"

	"replicator/config"
	"replicator/fault"
)

// checkRules warns of rules that are about no table of any server that could be asked, and of columns to redact that none of
// their tables has: both are likely misspelt, and nothing else would notice.
func checkRules(subjects []*Subject, c *config.Config) []Finding {
	var asked []string
	var tables []*Table
	for _, s := range subjects {
		if s.Tables != nil {
			asked, tables = append(asked, s.Name), append(tables, s.Tables...)
		}
	}
	if len(asked) == 0 {
		return nil // why is among the findings
	}
	var findings []Finding
	warn := func(path, remedy, format string, args ...any) {
		findings = append(findings, Finding{
			Name: path, State: Warn, Class: fault.Configuration, Message: fmt.Sprintf(format, args...), Remedy: remedy,
		})
	}
	where := "on " + strings.Join(asked, ", ")
	for i := range c.Tables.Rules {
		rule, path := &c.Tables.Rules[i], fmt.Sprintf("tables.rules[%d]", i)
		mine := slices.DeleteFunc(slices.Clone(tables), func(t *Table) bool { return c.Tables.Rule(t.Name) != rule })
		if len(mine) == 0 {
			if slices.ContainsFunc(tables, func(t *Table) bool { return matches(rule, t) }) {
				warn(path+".match", "move it above them, or remove it", "%q has no effect: rules above it match all its tables %s", rule.Match, where)
			} else {
				warn(path+".match", "correct it (letter case counts), or remove the rule", "%q matches no replicated table %s", rule.Match, where)
			}
			continue
		}
		if rule.Conflict == nil {
			continue
		}
		for j, column := range rule.Conflict.Redact {
			if !slices.ContainsFunc(mine, func(t *Table) bool { return t.Column(column) >= 0 }) {
				warn(fmt.Sprintf("%s.conflict.redact[%d]", path, j), "correct the name of the column, or remove it",
					"no table that %q matches has a column %s %s: nothing is redacted", rule.Match, column, where)
			}
		}
	}
	return findings
}

// matches reports whether a rule would be about a table if no other rule were.
func matches(rule *config.Rule, t *Table) bool {
	p, err := config.ParsePattern(rule.Match)
	return err == nil && p.Matches(t.Name)
}
