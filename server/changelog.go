package server

import (
	"slices"
	"strconv"
	"strings"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
)

// longestName is how many characters the name of a table or trigger may have, on both flavors.
const longestName = 64

// ChangeLogTable is the SQL that makes a change_log, for either flavor: its columns are those that the configuration
// expects by default. Every server numbers its own rows; the trigger writes down which server it was, so that rows of
// different servers never have one key. Rows that arrive from elsewhere keep what they say.
func ChangeLogTable(name change.TableName) []string {
	table := Quote(name.Database) + "." + Quote(name.Table)
	const suffix = "_site"
	short := []rune(name.Table)
	trigger := Quote(name.Database) + "." + Quote(string(short[:min(len(short), longestName-len(suffix))])+suffix)
	return []string{
		"CREATE TABLE " + table + ` (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  site INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'server_id of the server that the row was written on',
  user_id VARCHAR(64) COMMENT 'who changed it',
  ` + "`table`" + ` VARCHAR(129) COMMENT 'what was changed: a table, with or without its database',
  record_id VARCHAR(255) COMMENT 'the key of its row',
  comment TEXT COMMENT 'why',
  ` + "`timestamp`" + ` TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) COMMENT 'when: it decides which of two changes is the later one',
  PRIMARY KEY (id, site),
  KEY (` + "`table`" + `, record_id(64))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`,
		"CREATE TRIGGER " + trigger + " BEFORE INSERT ON " + table +
			" FOR EACH ROW\n  SET NEW.site = IF(@replicator_apply IS NULL, @@GLOBAL.server_id, NEW.site)",
	}
}

const printShape = "replicator init --change-log"

// checkTimes checks what the configuration says about the time of changes against the tables of one server.
func (s *Subject) checkTimes(c *config.Config) []Finding {
	var findings []Finding
	if l := c.Conflict.ChangeLog; l != nil {
		r := &report{server: s.Name, info: s.Info}
		if i := slices.IndexFunc(s.Tables, func(t *Table) bool { return t.Name == l.Name }); i >= 0 {
			s.checkChangeLog(r, l, s.Tables[i])
		} else {
			r.tableFail("change_log", "create it on every server ("+printShape+" prints how), or let the account see it",
				"does not exist")
		}
		for _, f := range r.findings {
			findings = append(findings, about(l.Name, f))
		}
	}
	for _, t := range s.Tables {
		rule := c.Tables.Rule(t.Name)
		if rule == nil || rule.TimeColumn == "" {
			continue
		}
		r := &report{server: s.Name, info: s.Info}
		state := Warn
		if rule.Literal() {
			state = Fail
		}
		r.timeColumn(t, rule.TimeColumn, "time_column", state, "name a column of it in tables.rules, in a rule for this table")
		for _, f := range r.findings {
			findings = append(findings, about(t.Name, f))
		}
	}
	return findings
}

// timeColumn checks a column that is to hold the time of changes.
func (r *report) timeColumn(t *Table, name, check string, missing State, remedy string) {
	i := t.Column(name)
	if i < 0 {
		r.add(missing, fault.Definition, check, remedy, "has no column %s: the commit time counts", name)
		return
	}
	column := &t.Columns[i]
	switch {
	case column.DataType != "timestamp" && column.DataType != "datetime":
		r.add(missing, fault.Definition, check, "make it TIMESTAMP(6), or "+remedy,
			"column %s is %s, which holds no time: the commit time counts", name, column.Type)
	case digits(column.Type) == 0:
		r.add(Warn, fault.Definition, check, "make it "+strings.ToUpper(column.DataType)+"(6)",
			"column %s counts whole seconds: of changes within one second the server with the greater identity wins", name)
	case column.DataType == "datetime":
		r.add(Warn, fault.Definition, check, "make it TIMESTAMP(6), or have every application write UTC",
			"column %s has no time zone: it is read as UTC", name)
	default:
		r.add(Pass, "", check, "", "%s", name)
	}
}

// digits is how many digits of a second a type keeps: "timestamp(6)".
func digits(columnType string) int {
	_, rest, _ := strings.Cut(columnType, "(")
	number, _, _ := strings.Cut(rest, ")")
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return n
}

func (s *Subject) checkChangeLog(r *report, l *config.ChangeLog, t *Table) {
	const path = "conflict.change_log.columns."
	for _, column := range []struct{ field, name string }{
		{"table", l.Columns.Table}, {"key", l.Columns.Key}, {"user", l.Columns.User}, {"comment", l.Columns.Comment},
	} {
		if column.name != "" && t.Column(column.name) < 0 {
			r.tableFail("change_log", "name the column in "+path+column.field+`, or write "" there if there is none`,
				"has no column %s", column.name)
		}
	}
	if l.Columns.Time != "" {
		r.timeColumn(t, l.Columns.Time, "change_log", Fail, `name one in `+path+`time, or write "" there if there is none`)
	}
	s.checkNumbers(r, t)
}

// checkNumbers checks that rows of different servers are never one row.
func (s *Subject) checkNumbers(r *report, t *Table) {
	const name = "change_log key"
	automatic := slices.IndexFunc(t.Columns, func(c Column) bool { return c.AutoIncrement })
	inKey := slices.ContainsFunc(t.PrimaryKey, func(k KeyPart) bool { return k.Column == automatic })
	switch {
	case len(t.PrimaryKey) == 1 && t.PrimaryKey[0].Column >= 0 && isInteger(t.Columns[t.PrimaryKey[0].Column]):
		if !inKey {
			r.tableFail(name, "make it AUTO_INCREMENT, or as "+printShape+" prints it", "is a single number that is not AUTO_INCREMENT")
			return
		}
		s.checkOwnNumbers(r, t, name)
	case !inKey || automatic < 0:
		r.add(Pass, "", name, "", "is not numbered by the server")
	case !slices.ContainsFunc(t.Triggers, namesSite):
		r.add(Warn, fault.Definition, name, "have each server write a number of its own into the rest of the key, as the trigger of "+
			printShape+" does", "is an AUTO_INCREMENT and another column, and no trigger fills that with the server's server_id")
	default:
		r.add(Pass, "", name, "", "is different on every server")
	}
}

func namesSite(t Trigger) bool {
	return t.Timing == "BEFORE" && t.Event == "INSERT" && strings.Contains(strings.ToLower(t.Statement), "server_id")
}

func isInteger(c Column) bool { return strings.HasSuffix(c.DataType, "int") }

// checkOwnNumbers checks a log whose rows have another number on each server.
func (s *Subject) checkOwnNumbers(r *report, t *Table, name string) {
	const shape = "make its primary key (id, site), as " + printShape + " prints it"
	r.add(Warn, fault.Definition, name, shape,
		"is an AUTO_INCREMENT alone: each server gives its rows numbers of its own, and rows that are changed or deleted on "+
			"one server stay as they are on the others")
	if len(t.UniqueKeys) > 0 {
		r.tableFail(name, "drop it, or "+shape, "is an AUTO_INCREMENT alone, and %s is a second unique key", t.UniqueKeys[0].Name)
	}
	for _, other := range s.Tables {
		for _, k := range other.ForeignKeys {
			if k.Parent == t.Name {
				r.tableFail(name, "drop the foreign key, or "+shape, "has another value on each server, and %s refers to it (%s)",
					other.Name, k.Name)
			}
		}
	}
	for _, trigger := range t.Triggers {
		if !trigger.Guarded() {
			r.tableFail("trigger "+trigger.Name, trigger.Remedy(), "fires for applied rows, because the table's rows are applied by SQL")
		}
	}
}
