package config

import (
	"errors"
	"slices"
	"strings"

	"replicator/change"
)

// systemSchemas are never replicated.
var systemSchemas = []string{"mysql", "sys", "information_schema", "performance_schema", "replicator"}

// IsSystem reports whether a database is the server's or the replicator's own.
func IsSystem(database string) bool {
	return slices.ContainsFunc(systemSchemas, func(s string) bool { return strings.EqualFold(s, database) })
}

// pattern is database.table with * wildcards; a part in backticks is literal. Letter case counts.
type pattern struct{ database, table wildcard }

func (p pattern) matches(n change.TableName) bool {
	return p.database.matches(n.Database) && p.table.matches(n.Table)
}

// wildcard is the literal pieces between the stars: one piece more than there are stars.
type wildcard []string

func (w wildcard) matches(s string) bool {
	first, last := w[0], w[len(w)-1]
	if len(w) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, piece := range w[1 : len(w)-1] {
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s = s[i+len(piece):]
	}
	return true
}

var errPattern = errors.New("want database.table, with * for any text, and `…` around a name that holds dots or stars")

func parsePattern(text string) (pattern, error) {
	database, rest, err := parsePart(text)
	if err != nil || !strings.HasPrefix(rest, ".") {
		return pattern{}, errPattern
	}
	table, rest, err := parsePart(rest[1:])
	if err != nil || rest != "" {
		return pattern{}, errPattern
	}
	return pattern{database, table}, nil
}

// parsePart reads one name up to a dot or the end.
func parsePart(text string) (wildcard, string, error) {
	if !strings.HasPrefix(text, "`") {
		end := strings.IndexByte(text, '.')
		if end < 0 {
			end = len(text)
		}
		if end == 0 || strings.Contains(text[:end], "`") {
			return nil, "", errPattern
		}
		return strings.Split(text[:end], "*"), text[end:], nil
	}
	var name strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != '`' {
			name.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == '`' { // a doubled backtick is one in the name
			name.WriteByte('`')
			i++
			continue
		}
		if name.Len() == 0 {
			return nil, "", errPattern
		}
		return wildcard{name.String()}, text[i+1:], nil
	}
	return nil, "", errPattern
}

// Pattern says which tables are meant, as tables.include does. The zero value means none.
type Pattern struct{ pattern }

// ParsePattern reads database.table, in which * stands for any text and a part in backticks for itself.
func ParsePattern(text string) (Pattern, error) {
	p, err := parsePattern(text)
	return Pattern{p}, err
}

// IsZero reports whether it is no pattern.
func (p Pattern) IsZero() bool { return p.database == nil }

// Matches reports whether a table is meant.
func (p Pattern) Matches(name change.TableName) bool { return !p.IsZero() && p.matches(name) }

// Like gives both parts for SQL's LIKE … ESCAPE '|'.
func (p Pattern) Like() (database, table string) { return p.database.like(), p.table.like() }

func (w wildcard) like() string {
	escape := strings.NewReplacer("|", "||", "%", "|%", "_", "|_")
	pieces := make([]string, len(w))
	for i, piece := range w {
		pieces[i] = escape.Replace(piece)
	}
	return strings.Join(pieces, "%")
}

// DatabaseOf returns the database part of a table pattern: a name, in which * stands for any text.
func DatabaseOf(text string) (string, error) {
	p, err := parsePattern(text)
	if err != nil {
		return "", err
	}
	return strings.Join(p.database, "*"), nil
}
