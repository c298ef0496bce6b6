package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
)

// ReadTables reads the definitions of the replicated tables and checks them as far as this server alone decides. It does
// nothing on a server that Examine could not reach.
func (s *Subject) ReadTables(ctx context.Context, c *config.Config) {
	if s.Dialect == nil {
		return
	}
	tables, err := Tables(ctx, s.Server.DB(), c.Tables.Matches)
	if err != nil {
		r := &report{server: s.Name}
		r.failed("tables", err)
		s.Findings = append(s.Findings, r.findings...)
		return
	}
	s.Tables = tables
	if s.Tables == nil {
		s.Tables = []*Table{}
		s.Findings = append(s.Findings, Finding{
			Server: s.Name, Name: "tables", State: Warn, Class: fault.Precondition, Message: "the account sees no table that is to be replicated",
			Remedy: "check tables.include, and the account's privileges",
		})
	}
	for _, t := range tables {
		s.Findings = append(s.Findings, s.checkTable(t)...)
		s.Findings = append(s.Findings, s.checkParents(t, c)...)
	}
	s.Findings = append(s.Findings, s.checkTimes(c)...)
	s.Findings = append(s.Findings, s.checkPolicies(c)...)
	s.Findings = append(s.Findings, s.checkTablePrivileges()...)
}

// checkTable makes the checks of one table on one server.
func (s *Subject) checkTable(t *Table) []Finding {
	r := &report{server: s.Name, info: s.Info}
	exclude := "exclude it in tables.exclude"
	if t.Kind != "BASE TABLE" {
		r.tableFail("table type", exclude, "is a %s table, which is not supported", strings.ToLower(t.Kind))
	} else {
		checkDefinition(r, t, exclude)
	}
	if !s.logged(t.Name.Database) {
		r.tableFail("binlog filter", "remove binlog-do-db and binlog-ignore-db from the server's options",
			"its changes do not reach the binlog")
	}
	if len(r.findings) == 0 {
		r.add(Pass, "", "definition", "", "can be replicated")
	}
	for i := range r.findings {
		r.findings[i] = about(t.Name, r.findings[i])
	}
	return r.findings
}

// checkParents warns of foreign keys that lead out of what is replicated.
func (s *Subject) checkParents(t *Table, c *config.Config) []Finding {
	var findings []Finding
	for _, k := range t.ForeignKeys {
		if c.Tables.Matches(k.Parent) {
			continue
		}
		findings = append(findings, about(t.Name, Finding{
			Server: s.Name, Name: "foreign key " + k.Name, State: Warn, Class: fault.Definition,
			Message: "refers to " + k.Parent.String() + ", which is not replicated: its rows may be refused elsewhere",
			Remedy:  "replicate both tables, or neither",
		}))
	}
	return findings
}

func checkDefinition(r *report, t *Table, exclude string) {
	switch {
	case len(t.PrimaryKey) == 0:
		r.tableFail("primary key", "add a primary key, or "+exclude, "has none")
	case slices.ContainsFunc(t.PrimaryKey, func(k KeyPart) bool { return k.Column < 0 }):
		r.tableFail("primary key", "make it of columns, or "+exclude, "has an expression")
	}
	if !strings.EqualFold(t.Engine, "InnoDB") {
		r.tableFail("engine", fmt.Sprintf("ALTER TABLE %s.%s ENGINE = InnoDB, or %s", Quote(t.Name.Database),
			Quote(t.Name.Table), exclude), "is %s, must be InnoDB", t.Engine)
	}
	for _, c := range t.Columns {
		if c.Compressed {
			r.tableFail("column "+c.Name, "remove COMPRESSED from it, or "+exclude,
				"is COMPRESSED, which cannot be read from a binlog")
		}
	}
	for _, k := range t.PrimaryKey {
		if k.Column >= 0 && isFloat(t.Columns[k.Column]) {
			r.add(Warn, fault.Definition, "column "+t.Columns[k.Column].Name, "use an exact type in keys",
				"is a floating point number in the primary key")
		}
	}
}

func isFloat(c Column) bool { return c.DataType == "float" || c.DataType == "double" }

func (r *report) tableFail(name, remedy, format string, args ...any) {
	r.add(Fail, fault.Definition, name, remedy, format, args...)
}

// checkTablePrivileges checks what the applier needs on every database; one finding for each privilege that is missing.
func (s *Subject) checkTablePrivileges() []Finding {
	if !s.Config.Own || s.grants == nil {
		return nil
	}
	r := &report{server: s.Name, info: s.Info}
	for _, p := range s.Dialect.needed(ApplierRole) {
		if p.scope != replicatedDB {
			continue
		}
		said := map[string]bool{}
		for _, t := range s.Tables {
			if !said[t.Name.Database] && !p.in(s.grants, t.Name) {
				said[t.Name.Database] = true
				s.missing(r, ApplierRole, p, change.TableName{Database: t.Name.Database})
			}
		}
	}
	return r.findings
}

// CheckLink makes the checks of one link: whether its source's binlog still holds what the target needs, and every table
// that it replicates, between the definitions on both of its ends.
func CheckLink(ctx context.Context, from, to *Subject) []Finding {
	var findings []Finding
	history := &report{server: to.Name, info: to.Info}
	checkHistory(ctx, history, from, to)
	findings = append(findings, history.findings...)
	weights := newWeightProbe(from, to)
	targets := map[change.TableName]*Table{}
	for _, t := range to.Tables {
		targets[t.Name] = t
	}
	for _, source := range from.Tables {
		r := &report{server: to.Name, info: to.Info}
		if target := targets[source.Name]; target == nil {
			r.tableFail("definition", "create it on "+to.Name+", let the account see it there, or exclude it in tables.exclude",
				"is on %s and not on %s", from.Name, to.Name)
		} else {
			compareTables(ctx, r, link{from, to, weights}, source, target)
		}
		for _, f := range r.findings {
			findings = append(findings, about(source.Name, f))
		}
	}
	return findings
}

// link is what comparing tables needs to know of both ends.
type link struct {
	from, to *Subject
	weights  *weightProbe
}

// portable reports whether rows are applied by SQL rather than replayed.
func (l link) portable() bool {
	return l.from.Info.Flavor != l.to.Info.Flavor || l.to.Config.Own && !l.to.Replay
}

// CompareTables checks that rows of source fit target: the definitions must agree column by column, in order. from and to
// are the servers that they are on. Only findings other than Pass are returned.
func CompareTables(ctx context.Context, from, to *Subject, source, target *Table) []Finding {
	r := &report{server: to.Name, info: to.Info}
	compareTables(ctx, r, link{from, to, newWeightProbe(from, to)}, source, target)
	for i := range r.findings {
		r.findings[i] = about(target.Name, r.findings[i])
	}
	return r.findings
}

func compareTables(ctx context.Context, r *report, l link, source, target *Table) {
	same := "make the definition the same on " + l.from.Name + " and " + l.to.Name
	if !compareColumns(r, l, source, target, same) {
		return // what follows speaks of columns by position
	}
	if !slices.Equal(source.PrimaryKey, target.PrimaryKey) {
		r.tableFail("primary key", same, "is (%s), on %s it is (%s)", keyText(target, target.PrimaryKey), l.from.Name,
			keyText(source, source.PrimaryKey))
	}
	compareUnique(r, l, source, target, same)
	compareForeign(r, l, source, target, same)
	compareKeyWeights(ctx, r, l, source, target)
	if !l.portable() {
		return
	}
	for _, trigger := range target.Triggers {
		r.check(trigger.Guarded(), Fail, "trigger "+trigger.Name,
			trigger.Remedy(),
			"fires for applied rows, because rows from %s are applied by SQL", l.from.Name)
	}
	r.findings = slices.DeleteFunc(r.findings, func(f Finding) bool { return f.State == Pass })
}

func compareColumns(r *report, l link, source, target *Table, same string) bool {
	if len(source.Columns) != len(target.Columns) {
		r.tableFail("columns", same, "has %d columns, on %s it has %d", len(target.Columns), l.from.Name, len(source.Columns))
		return false
	}
	inOrder := true
	for i, s := range source.Columns {
		t := target.Columns[i]
		if !strings.EqualFold(s.Name, t.Name) {
			r.tableFail("columns", same+": the order counts", "column %d is %s, on %s it is %s", i+1, t.Name, l.from.Name, s.Name)
			inOrder = false
			continue
		}
		compareColumn(r, l, s, t, same)
	}
	return inOrder
}

func compareColumn(r *report, l link, s, t Column, same string) {
	name := "column " + t.Name
	crossing := l.from.Info.Flavor != l.to.Info.Flavor
	switch {
	case crossing && isJSON(s) && isJSON(t):
		r.add(Warn, fault.Definition, name, "compare it by value, not by its text",
			"is %s, on %s it is %s: MySQL stores the value of JSON, MariaDB its text", t.Type, l.from.Name, s.Type)
		return
	case normalType(s) != normalType(t):
		r.tableFail(name, same, "is %s, on %s it is %s", t.Type, l.from.Name, s.Type)
	case s.Charset != t.Charset:
		r.tableFail(name, same, "has the character set %s, on %s it is %s", t.Charset, l.from.Name, s.Charset)
	case s.Collation != t.Collation && !crossing: // the bytes fit; what keys need is checked by weights
		r.add(Warn, fault.Definition, name, same, "has the collation %s, on %s it is %s", t.Collation, l.from.Name, s.Collation)
	}
	if s.Generated != t.Generated {
		r.tableFail(name, same, "is generated on one of %s and %s only", l.from.Name, l.to.Name)
	} else if s.Generated && !crossing && s.Expression != t.Expression {
		r.tableFail(name, same, "is generated as %s, on %s as %s", t.Expression, l.from.Name, s.Expression)
	}
	if s.Nullable && !t.Nullable {
		r.tableFail(name, same, "is NOT NULL, on %s it may be NULL", l.from.Name)
	}
}

func isJSON(c Column) bool {
	return c.DataType == "json" || c.DataType == "longtext" && c.Collation == "utf8mb4_bin"
}

func keyText(t *Table, parts []KeyPart) string {
	names := make([]string, len(parts))
	for i, p := range parts {
		switch {
		case p.Column < 0:
			names[i] = "an expression"
		case p.Prefix > 0:
			names[i] = fmt.Sprintf("%s(%d)", t.Columns[p.Column].Name, p.Prefix)
		default:
			names[i] = t.Columns[p.Column].Name
		}
	}
	return strings.Join(names, ", ")
}

// compareUnique compares unique keys by their columns: their names do not matter.
func compareUnique(r *report, l link, source, target *Table, same string) {
	texts := func(t *Table) []string {
		var all []string
		for _, k := range t.UniqueKeys {
			all = append(all, strings.ToLower(keyText(t, k.Parts)))
		}
		slices.Sort(all)
		return all
	}
	s, t := texts(source), texts(target)
	if !slices.Equal(s, t) {
		r.tableFail("unique keys", same, "are [%s], on %s [%s]", strings.Join(t, "; "), l.from.Name, strings.Join(s, "; "))
	}
}

func compareForeign(r *report, l link, source, target *Table, same string) {
	texts := func(t *Table) []string {
		var all []string
		for _, k := range t.ForeignKeys {
			all = append(all, strings.ToLower(fmt.Sprintf("(%s) to %s (%s) on update %s on delete %s",
				strings.Join(k.Columns, ", "), k.Parent, strings.Join(k.ParentColumns, ", "), normalRule(k.OnUpdate),
				normalRule(k.OnDelete))))
		}
		slices.Sort(all)
		return all
	}
	s, t := texts(source), texts(target)
	if !slices.Equal(s, t) {
		r.tableFail("foreign keys", same, "are [%s], on %s [%s]", strings.Join(t, "; "), l.from.Name, strings.Join(s, "; "))
	}
}

// normalRule maps the two names of refusing: MariaDB says RESTRICT where MySQL says NO ACTION.
func normalRule(rule string) string {
	if rule == "NO ACTION" {
		return "RESTRICT"
	}
	return rule
}
