package server

import (
	"slices"
	"strconv"

	"replicator/config"
	"replicator/fault"
)

// checkAutoIncrement warns of pairs of servers that give out the same numbers: rows that were inserted on both at the
// same time would then have one key, and one of them would lose.
func checkAutoIncrement(subjects []*Subject, c *config.Config) []Finding {
	var findings []Finding
	for _, l := range c.Links {
		a, b := find(subjects, l.From), find(subjects, l.To)
		if a == nil || b == nil || a.Name > b.Name || !slices.Contains(c.Links, config.Link{From: l.To, To: l.From}) {
			continue // each pair once, and only where both are written to
		}
		table := sharedAutoIncrement(a.Tables, b.Tables, c.Conflict.ChangeLog)
		if table == "" || disjoint(a.Info, b.Info) {
			continue
		}
		findings = append(findings, Finding{
			Server: b.Name, Name: "auto_increment", State: Warn, Class: fault.Precondition,
			Message: "gives the same numbers as " + a.Name + " to new rows, as in " + table + ": inserts at the same time will conflict",
			Remedy: "set auto_increment_increment to the number of servers on all of them, and auto_increment_offset to 1, 2, …; " +
				"or let the application choose keys",
		})
	}
	return findings
}

// sharedAutoIncrement names the first table that has an AUTO_INCREMENT column on both servers. The change log, whose rows
// each server numbers for itself, is not among them.
func sharedAutoIncrement(a, b []*Table, log *config.ChangeLog) string {
	counts := func(t *Table) bool {
		if log != nil && t.Name == log.Name {
			return false
		}
		return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.AutoIncrement })
	}
	for _, t := range a {
		if counts(t) && slices.ContainsFunc(b, func(o *Table) bool { return o.Name == t.Name && counts(o) }) {
			return t.Name.String()
		}
	}
	return ""
}

// disjoint reports whether no number is offset plus a multiple of increment on both: the offsets must differ by what no
// common divisor of the increments divides.
func disjoint(a, b Info) bool {
	number := func(i Info, variable string) int {
		n, err := strconv.Atoi(i.Variables[variable])
		if err != nil {
			return 1
		}
		return n
	}
	step := gcd(number(a, "auto_increment_increment"), number(b, "auto_increment_increment"))
	apart := number(a, "auto_increment_offset") - number(b, "auto_increment_offset")
	return step > 0 && apart%step != 0
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
