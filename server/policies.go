package server

import (
	"slices"
	"strings"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
)

// checkPolicies checks what the configuration says about conflicts against the tables of one server.
func (s *Subject) checkPolicies(c *config.Config) []Finding {
	var findings []Finding
	for _, t := range s.Tables {
		r := &report{server: s.Name, info: s.Info}
		for _, name := range c.Added(t.Name) {
			checkAdded(r, t, name)
		}
		if c.Merged(t.Name) {
			s.checkMerged(r, t)
		}
		if s.Info.Flavor == change.MariaDB || !s.Info.Release.AtLeast(9, 6, 0) {
			s.checkCascades(r, t)
		}
		for _, f := range r.findings {
			findings = append(findings, about(t.Name, f))
		}
	}
	return findings
}

// exactNumbers are the types whose differences add up to the same in any order.
var exactNumbers = []string{"tinyint", "smallint", "mediumint", "int", "bigint", "decimal"}

func checkAdded(r *report, t *Table, name string) {
	title := "add " + name
	const remedy = "leave the column out of add, or drop the key, or keep the column in a table of its own"
	at := t.Column(name)
	if at < 0 {
		r.tableFail(title, "name a column of the table in tables.rules[].conflict.add", "the table does not have the column")
		return
	}
	c := &t.Columns[at]
	switch {
	case !slices.Contains(exactNumbers, c.DataType):
		r.tableFail(title, "make it a whole number or a DECIMAL, or leave it out of add", "is %s, which does not add up exactly", c.Type)
	case c.Nullable:
		r.tableFail(title, "make the column NOT NULL", "may be NULL, to which nothing can be added")
	case strings.Contains(c.Type, "unsigned") || strings.Contains(c.Type, "zerofill"):
		r.tableFail(title, "make the column signed", "is unsigned: concurrent subtractions can go below 0, and would be refused")
	case c.Generated || slices.ContainsFunc(t.PrimaryKey, func(k KeyPart) bool { return k.Column == at }):
		r.tableFail(title, "leave it out of add", "is generated, or part of the primary key")
	case len(t.UniqueKeys) > 0:
		r.tableFail(title, remedy, "the table has the unique key %s besides its primary key: what is added to a row while a "+
			"conflict on that key removes it can stay on one server alone", t.UniqueKeys[0].Name)
	case len(t.ForeignKeys) > 0:
		r.tableFail(title, remedy, "the table has the foreign key %s: what is added to a row while its parent is removed can "+
			"stay on one server alone", t.ForeignKeys[0].Name)
	}
}

// checkMerged refuses what rows that are made of columns of several servers could break.
func (s *Subject) checkMerged(r *report, t *Table) {
	const title, remedy = "merge-columns", "choose another policy for the table"
	if len(t.UniqueKeys) > 0 {
		r.tableFail(title, remedy, "has the unique key %s besides its primary key: merged columns can give values that no server had written together",
			t.UniqueKeys[0].Name)
	}
	if len(t.ForeignKeys) > 0 {
		r.tableFail(title, remedy, "refers to %s by the foreign key %s: a merged row can refer to a parent that is gone",
			t.ForeignKeys[0].Parent, t.ForeignKeys[0].Name)
	}
	for _, o := range s.Tables {
		for _, k := range o.ForeignKeys {
			if k.Parent == t.Name {
				r.tableFail(title, remedy, "is referred to by the foreign key %s of %s: a row that stays against a deletion may have lost its children",
					k.Name, o.Name)
			}
		}
	}
}

// checkCascades warns of cascades that go on below the table, where the server does not log what they do.
func (s *Subject) checkCascades(r *report, t *Table) {
	for _, k := range t.ForeignKeys {
		if k.OnDelete != "CASCADE" && k.OnDelete != "SET NULL" {
			continue
		}
		below := k.Parent == t.Name || k.OnDelete == "CASCADE" && slices.ContainsFunc(s.Tables, func(o *Table) bool {
			return slices.ContainsFunc(o.ForeignKeys, func(f ForeignKey) bool {
				return f.Parent == t.Name && (f.OnDelete == "CASCADE" || f.OnDelete == "SET NULL")
			})
		})
		if below {
			r.add(Warn, fault.Definition, "foreign key "+k.Name,
				"let the application delete the rows of the lower levels itself, or use a server that logs cascades (MySQL 9.6 and newer)",
				"cascades over several levels, and this server does not log what cascades do: concurrent changes below can leave the servers different")
		}
	}
}
