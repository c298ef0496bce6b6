package canal

import (
	"strings"

	"replicator/change"
)

// purpose is what a statement that is logged as text means to a reader of the binlog.
type purpose uint8

const (
	purposeUnknown    purpose = iota // not understood, or a change of rows as text: refused
	purposeBegin                     // BEGIN, XA START
	purposeCommit                    // COMMIT
	purposeRollback                  // ROLLBACK of everything
	purposeInside                    // SAVEPOINT and its kin: the server has cut out what was rolled back
	purposeXACommit                  // the second half of an XA transaction
	purposeXARollback                // nothing was changed
	purposeHarmless                  // accounts, statistics, temporary tables: no table's content or shape
	purposeDefinition                // DDL
	purposeRows                      // a change of rows as text
)

// parsed is a statement as far as it matters.
type parsed struct {
	purpose     purpose
	destructive bool
	tables      []change.TableName
}

// everyTable stands for all tables of a database in Statement.Tables.
const everyTable = "*"

// parseStatement understands the first words of a statement and the names of the tables that it touches.
func parseStatement(q query) parsed {
	switch q.text { // the usual ones, without taking them apart
	case "BEGIN":
		return parsed{purpose: purposeBegin}
	case "COMMIT":
		return parsed{purpose: purposeCommit}
	}
	p := parser{tokens: tokenize(q.text, q.ansiQuotes, q.noBackslashEscapes), database: q.database}
	return p.statement()
}

// parser walks over the tokens of one statement.
type parser struct {
	tokens   []token
	database string
}

// word returns the keyword at the front in upper case, "" when there is none.
func (p *parser) word() string {
	if len(p.tokens) == 0 || p.tokens[0].kind != tokenWord {
		return ""
	}
	return strings.ToUpper(p.tokens[0].text)
}

// accept takes one of the words off the front.
func (p *parser) accept(words ...string) bool {
	front := p.word()
	for _, w := range words {
		if w == front && front != "" {
			p.tokens = p.tokens[1:]
			return true
		}
	}
	return false
}

// skip takes all of the words off the front, however many stand there.
func (p *parser) skip(words ...string) {
	for p.accept(words...) {
	}
}

func (p *parser) next() {
	if len(p.tokens) > 0 {
		p.tokens = p.tokens[1:]
	}
}

func (p *parser) punct(c string) bool {
	if len(p.tokens) > 0 && p.tokens[0].kind == tokenPunct && p.tokens[0].text == c {
		p.tokens = p.tokens[1:]
		return true
	}
	return false
}

// name reads database.table or table.
func (p *parser) name() (change.TableName, bool) {
	first, ok := p.identifier()
	if !ok {
		return change.TableName{}, false
	}
	if !p.punct(".") {
		return change.TableName{Database: p.database, Table: first}, true
	}
	second, ok := p.identifier()
	return change.TableName{Database: first, Table: second}, ok
}

func (p *parser) identifier() (string, bool) {
	if len(p.tokens) == 0 || p.tokens[0].kind != tokenWord && p.tokens[0].kind != tokenQuoted {
		return "", false
	}
	text := p.tokens[0].text
	p.next()
	return text, true
}

// names reads a list of names.
func (p *parser) names() []change.TableName {
	var list []change.TableName
	for {
		name, ok := p.name()
		if !ok {
			return list
		}
		list = append(list, name)
		if !p.punct(",") {
			return list
		}
	}
}

func (p *parser) statement() parsed {
	front := p.word()
	p.next()
	switch front {
	case "BEGIN", "START":
		return parsed{purpose: purposeBegin}
	case "COMMIT":
		return parsed{purpose: purposeCommit}
	case "SAVEPOINT", "RELEASE":
		return parsed{purpose: purposeInside}
	case "ROLLBACK":
		p.skip("WORK")
		if p.word() == "TO" {
			return parsed{purpose: purposeInside}
		}
		return parsed{purpose: purposeRollback}
	case "XA":
		return p.xa()
	case "GRANT", "REVOKE", "FLUSH", "ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "INSTALL", "UNINSTALL", "SET", "RESET",
		"CACHE", "KILL", "SHUTDOWN", "PURGE", "BACKUP":
		return parsed{purpose: purposeHarmless}
	case "CREATE":
		return p.create()
	case "ALTER":
		return p.alter()
	case "DROP":
		return p.drop()
	case "TRUNCATE":
		p.skip("TABLE")
		return parsed{purpose: purposeDefinition, destructive: true, tables: p.names()}
	case "RENAME":
		return p.rename()
	case "COMMENT", "IMPORT":
		return parsed{purpose: purposeDefinition}
	case "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "DO", "SELECT", "WITH", "VALUES", "EXECUTE", "MERGE":
		return parsed{purpose: purposeRows}
	}
	return parsed{purpose: purposeUnknown}
}

func (p *parser) xa() parsed {
	switch p.word() {
	case "START", "BEGIN":
		return parsed{purpose: purposeBegin}
	case "END":
		return parsed{purpose: purposeInside}
	case "ROLLBACK":
		return parsed{purpose: purposeXARollback}
	case "COMMIT":
		return parsed{purpose: purposeXACommit}
	}
	return parsed{purpose: purposeUnknown}
}

// object is what a CREATE, ALTER or DROP is about, once the words in front of it are gone.
func (p *parser) object() string {
	for len(p.tokens) > 0 {
		switch w := p.word(); w {
		case "TABLE", "TABLES":
			p.next()
			return "TABLE"
		case "DATABASE", "SCHEMA":
			p.next()
			return "DATABASE"
		case "INDEX":
			p.next()
			return w
		case "VIEW", "TRIGGER", "PROCEDURE", "FUNCTION", "EVENT", "PACKAGE", "SEQUENCE":
			p.next()
			return "STORED"
		case "USER", "ROLE", "SERVER", "TABLESPACE", "LOGFILE", "RESOURCE", "INSTANCE", "UNDO":
			return "SYSTEM"
		case "SPATIAL": // SPATIAL REFERENCE SYSTEM or SPATIAL INDEX
			p.next()
			if p.word() == "REFERENCE" {
				return "SYSTEM"
			}
		case "TEMPORARY":
			return w
		default:
			p.next()
		}
	}
	return ""
}

func (p *parser) ifExists() {
	if p.accept("IF") {
		p.skip("NOT")
		p.skip("EXISTS")
	}
}

func (p *parser) create() parsed {
	replaces := p.word() == "OR"
	switch p.object() {
	case "TABLE":
		p.ifExists()
		name, ok := p.name()
		return parsed{purpose: purposeDefinition, destructive: replaces, tables: known(name, ok)}
	case "DATABASE":
		return p.wholeDatabase(replaces)
	case "INDEX":
		return p.index()
	case "STORED":
		p.ifExists()
		name, ok := p.name()
		return parsed{purpose: purposeDefinition, tables: known(name, ok)}
	case "SYSTEM", "TEMPORARY":
		return parsed{purpose: purposeHarmless}
	}
	return parsed{purpose: purposeUnknown}
}

// index is CREATE or DROP INDEX name ... ON table.
func (p *parser) index() parsed {
	for len(p.tokens) > 0 && !p.accept("ON") {
		p.next()
	}
	name, ok := p.name()
	return parsed{purpose: purposeDefinition, tables: known(name, ok)}
}

func (p *parser) wholeDatabase(destructive bool) parsed {
	p.ifExists()
	name, ok := p.identifier()
	if !ok {
		name = p.database // ALTER DATABASE without a name
	}
	return parsed{
		purpose: purposeDefinition, destructive: destructive,
		tables: []change.TableName{{Database: name, Table: everyTable}},
	}
}

func (p *parser) drop() parsed {
	switch p.object() {
	case "TABLE":
		p.ifExists()
		return parsed{purpose: purposeDefinition, destructive: true, tables: p.names()}
	case "DATABASE":
		return p.wholeDatabase(true)
	case "INDEX":
		return p.index()
	case "STORED":
		p.ifExists()
		return parsed{purpose: purposeDefinition, tables: p.names()}
	case "SYSTEM", "TEMPORARY":
		return parsed{purpose: purposeHarmless}
	}
	return parsed{purpose: purposeUnknown}
}

func (p *parser) rename() parsed {
	if p.word() == "USER" {
		return parsed{purpose: purposeHarmless}
	}
	p.skip("TABLE", "TABLES")
	p.ifExists()
	out := parsed{purpose: purposeDefinition, destructive: true}
	for {
		name, ok := p.name()
		if !ok {
			return out
		}
		out.tables = append(out.tables, name)
		if p.accept("WAIT") { // MariaDB: WAIT n, NOWAIT
			p.next()
		}
		p.skip("NOWAIT")
		if !p.accept("TO") && !p.punct(",") {
			return out
		}
	}
}

func (p *parser) alter() parsed {
	switch p.object() {
	case "TABLE":
		p.ifExists()
		name, ok := p.name()
		out := parsed{purpose: purposeDefinition, tables: known(name, ok)}
		p.alterations(&out)
		return out
	case "DATABASE":
		return p.wholeDatabase(false)
	case "STORED":
		p.ifExists()
		name, ok := p.name()
		return parsed{purpose: purposeDefinition, tables: known(name, ok)}
	case "SYSTEM":
		return parsed{purpose: purposeHarmless}
	}
	return parsed{purpose: purposeUnknown}
}

// alterations looks for those that remove rows or move the table away.
func (p *parser) alterations(out *parsed) {
	depth := 0
	for len(p.tokens) > 0 {
		switch {
		case p.punct("("):
			depth++
		case p.punct(")"):
			depth--
		case depth > 0:
			p.next()
		case p.accept("RENAME"):
			if w := p.word(); w == "COLUMN" || w == "INDEX" || w == "KEY" {
				continue
			}
			p.skip("TO", "AS")
			p.punct("=")
			name, ok := p.name()
			out.destructive = true
			out.tables = append(out.tables, known(name, ok)...)
		case p.accept("EXCHANGE"):
			out.destructive = true
			for len(p.tokens) > 0 && !p.accept("TABLE") {
				p.next()
			}
			name, ok := p.name()
			out.tables = append(out.tables, known(name, ok)...)
		case p.accept("DROP", "TRUNCATE", "DISCARD", "IMPORT", "CONVERT"):
			if p.accept("PARTITION", "TABLESPACE") || p.word() == "TABLE" {
				out.destructive = true
			}
		default:
			p.next()
		}
	}
}

func known(name change.TableName, ok bool) []change.TableName {
	if !ok {
		return nil
	}
	return []change.TableName{name}
}
