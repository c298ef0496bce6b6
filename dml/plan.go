// Package dml says row changes in SQL for a target's table, and reads the target's rows back, both without loss: values
// are those of package image, in terms of the table that the rows come from, and columns are matched by name.
//
// The statements need sessions with the settings of package server: strict sql_mode that takes zero and invalid dates,
// time_zone +00:00, clientFoundRows; and SET NAMES utf8mb4.
package dml

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
	"replicator/fault"
	"replicator/image"
	"replicator/server"
)

// columnPlan says how a source's column is written into the target's column of the same name.
type columnPlan struct {
	source     int // index into the source's columns
	name       string
	quoted     string
	introducer string // of texts: "_latin1 "
	charset    string // of texts: "latin1"
	json       jsonRule
	base       string   // DATA_TYPE of the target
	geometry   bool     // a geometry between flavors: only without a spatial reference system
	labels     []uint64 // target's value for each label of the source: index of an ENUM (from 1), bit of a SET (from 0)
	set        bool
	generated  bool   // by the target: it can name a row, and is never written
	automatic  bool   // changes by itself with its row: ON UPDATE
	keyPrefix  int    // of a key column: how many characters count, 0 = all
	compares   string // the collation of a key column, "" where it has none
}

// jsonRule says what has to be done to a JSON value.
type jsonRule uint8

const (
	jsonNone  jsonRule = iota
	jsonText           // MySQL's JSON into text: as the server prints it
	jsonTyped          // MySQL's JSON into JSON: values of SQL types are made again
	jsonSafe           // text into MySQL's JSON: refused where MySQL would change it
)

// Plan is how the rows of one source table are written into one target table, and read from it. It is immutable.
type Plan struct {
	source  *change.Table
	target  *server.Table
	name    string // quoted
	columns []columnPlan
	keys    []int // into columns, in key order
	head    string
	batch   bool
	where   string // what else the rows of a range must meet; "": nothing
	join    [server.Listings]join
}

const definitionRemedy = "make the definitions of the table equal on both servers, or leave it out of the replicated tables"

// Source is the table that the rows come from.
func (p *Plan) Source() *change.Table { return p.source }

// Target is the table that they are written into.
func (p *Plan) Target() *server.Table { return p.target }

// Documents are the columns, by their numbers in the source's table, that are text there and JSON in the target: the two
// servers write one document in different ways.
func (p *Plan) Documents() (columns []int) {
	for i := range p.columns {
		if c := &p.columns[i]; c.json == jsonSafe {
			columns = append(columns, c.source)
		}
	}
	return columns
}

// Takes reports whether the target takes the values of a column of the source, by its index.
func (p *Plan) Takes(source int) bool { return p.column(source) != nil }

// Batch reports whether rows of one kind may share a statement: no foreign key makes their order matter.
func (p *Plan) Batch() bool { return p.batch }

// NewPlan matches the columns of source and target by name. What cannot be carried over without loss is a fault of
// class Definition: nothing is approximated. mixed says that the two servers are of different flavors.
func NewPlan(source *change.Table, target *server.Table, mixed bool) (*Plan, error) {
	return newPlan(source, target, form{mixed: mixed})
}

// NewPart is NewPlan for tables whose definitions have come to differ: it leaves out the source's columns that the target does
// not take (see Takes), and the target's other columns to their defaults. The primary keys must be the same.
func NewPart(source *change.Table, target *server.Table, mixed bool) (*Plan, error) {
	return newPlan(source, target, form{mixed: mixed, part: true})
}

// NewHeap is NewPlan for tables without a primary key: their rows can be read and inserted, all of them, by a Copier.
func NewHeap(source *change.Table, target *server.Table, mixed bool) (*Plan, error) {
	return newPlan(source, target, form{mixed: mixed, heap: true})
}

// form is what a plan is to be like: see NewPlan, NewPart and NewHeap.
type form struct{ mixed, part, heap bool }

func newPlan(source *change.Table, target *server.Table, f form) (*Plan, error) {
	p := &Plan{source: source, target: target}
	refuse := p.refuse
	if target == nil {
		return nil, refuse("it does not exist there")
	}
	p.batch = len(target.ForeignKeys) == 0
	p.name = server.Quote(target.Name.Database) + "." + server.Quote(target.Name.Table)
	seen := make([]bool, len(target.Columns))
	for i := range source.Columns {
		s := &source.Columns[i]
		at := target.Column(s.Name)
		switch {
		case at < 0 && f.part:
			continue
		case at < 0:
			return nil, refuse("column %s does not exist there", s.Name)
		}
		t := &target.Columns[at]
		seen[at] = true
		c, why := planColumn(s, t, f.mixed)
		if why != "" && !t.Generated && !f.part {
			return nil, refuse("column %s: %s", s.Name, why)
		}
		c.source, c.generated, c.automatic = i, t.Generated, t.AutoUpdate
		if source.Numbered && source.PrimaryKey[0].Column == i {
			if !t.AutoIncrement {
				return nil, refuse("each server numbers its rows by itself, and column %s is no AUTO_INCREMENT there", t.Name)
			}
			c.generated = true
		}
		if why == "" {
			p.columns = append(p.columns, c)
		}
	}
	for i, t := range target.Columns {
		if !f.part && !seen[i] && !t.Nullable && !t.Generated {
			return nil, refuse("its column %s must have a value, and the source has no such column", t.Name)
		}
	}
	if !f.heap {
		if why := p.planKey(); why != "" {
			return nil, refuse("%s", why)
		}
		p.join = p.planJoin()
	}
	var names []string
	for _, c := range p.columns {
		if !c.generated {
			names = append(names, c.quoted)
		}
	}
	p.head = "INSERT INTO " + p.name + " (" + strings.Join(names, ",") + ") VALUES "
	return p, nil
}

func (p *Plan) refuse(format string, args ...any) error {
	return fault.New(fault.Definition, definitionRemedy, "table %s cannot be written to the target: %s", p.source.Name,
		fmt.Sprintf(format, args...))
}

// planKey finds the columns that name a row. Both tables must have the same primary key.
func (p *Plan) planKey() string {
	if len(p.source.PrimaryKey) == 0 || len(p.source.PrimaryKey) != len(p.target.PrimaryKey) {
		return "the primary keys differ"
	}
	for _, part := range p.source.PrimaryKey {
		name := p.source.Columns[part.Column].Name
		at := slices.IndexFunc(p.columns, func(c columnPlan) bool { return c.source == part.Column })
		same := slices.ContainsFunc(p.target.PrimaryKey, func(t server.KeyPart) bool {
			return t.Column >= 0 && t.Prefix == part.Prefix && strings.EqualFold(p.target.Columns[t.Column].Name, name)
		})
		if at < 0 || !same {
			return "the primary keys differ"
		}
		t := p.target.Columns[p.target.Column(name)]
		if t.CollationID != 0 && p.source.Columns[part.Column].Collation != t.CollationID {
			return "key column " + name + " has another collation there: what is one row here could be two"
		}
		p.columns[at].keyPrefix, p.columns[at].compares = part.Prefix, t.Collation
		p.keys = append(p.keys, at)
	}
	return ""
}

// planColumn decides whether every value of s fits into t unchanged; why says why not.
func planColumn(s *change.Column, t *server.Column, mixed bool) (c columnPlan, why string) {
	c = columnPlan{name: s.Name, quoted: server.Quote(t.Name)}
	if s.Nullable && !t.Nullable {
		return c, "it may be NULL on the source only"
	}
	k := parseType(t)
	c.base = k.base
	switch {
	case s.Type == mysql.MYSQL_TYPE_ENUM || s.Type == mysql.MYSQL_TYPE_SET:
		return c, planLabels(&c, s, t, k)
	case s.Type == mysql.MYSQL_TYPE_JSON:
		return c, planJSON(&c, t, k)
	case s.Type == mysql.MYSQL_TYPE_GEOMETRY:
		c.geometry = mixed
		if !isGeometry(k.base) {
			return c, "a geometry does not fit into " + t.Type
		}
		return c, ""
	case isOldTemporal(s.Type):
		return c, "its dates and times are in a format older than MySQL 5.6 and MariaDB 10.1: rebuild the table on the " +
			"source with ALTER TABLE … FORCE"
	case s.Type == mysql.MYSQL_TYPE_VECTOR:
		if k.base != "vector" {
			return c, "a vector does not fit into " + t.Type
		}
		return c, ""
	case isBytesOrText(s.Type):
		return c, planText(&c, s, t, k)
	case !fitsNumber(s, k) && !fitsTemporal(s, k):
		return c, fmt.Sprintf("not every value of the source fits into %s", t.Type)
	}
	return c, ""
}

func isBytesOrText(kind byte) bool {
	switch kind {
	case mysql.MYSQL_TYPE_STRING, mysql.MYSQL_TYPE_VARCHAR, mysql.MYSQL_TYPE_VAR_STRING, mysql.MYSQL_TYPE_BLOB,
		typeBlobCompressed, typeVarcharCompressed:
		return true
	}
	return false
}

// fitsNumber reports whether every number of s is one of the target's type.
func fitsNumber(s *change.Column, k sqlType) bool {
	if size, ok := integerTypes[k.base]; ok {
		mine := integerSize(s.Type)
		switch {
		case mine == 0:
			return false
		case s.Unsigned == k.unsigned:
			return mine <= size
		}
		return s.Unsigned && mine < size
	}
	if k.unsigned && !s.Unsigned {
		return false
	}
	switch k.base {
	case "float":
		return s.Type == mysql.MYSQL_TYPE_FLOAT
	case "double":
		return s.Type == mysql.MYSQL_TYPE_FLOAT || s.Type == mysql.MYSQL_TYPE_DOUBLE
	case "decimal":
		precision, scale := int(s.Meta>>8), int(s.Meta&0xff)
		return s.Type == mysql.MYSQL_TYPE_NEWDECIMAL && scale <= k.arg(1, 0) &&
			precision-scale <= k.arg(0, 10)-k.arg(1, 0)
	case "bit":
		return s.Type == mysql.MYSQL_TYPE_BIT && int(s.Meta>>8)*8+int(s.Meta&0xff) <= k.arg(0, 1)
	case "year":
		return s.Type == mysql.MYSQL_TYPE_YEAR
	}
	return false
}

// isOldTemporal names types whose fractions a binlog does not describe.
func isOldTemporal(kind byte) bool {
	return kind == mysql.MYSQL_TYPE_TIME || kind == mysql.MYSQL_TYPE_DATETIME || kind == mysql.MYSQL_TYPE_TIMESTAMP
}

func fitsTemporal(s *change.Column, k sqlType) bool {
	var base string
	switch s.Type {
	case mysql.MYSQL_TYPE_DATE, mysql.MYSQL_TYPE_NEWDATE:
		return k.base == "date"
	case mysql.MYSQL_TYPE_TIME2:
		base = "time"
	case mysql.MYSQL_TYPE_DATETIME2:
		base = "datetime"
	case mysql.MYSQL_TYPE_TIMESTAMP2:
		base = "timestamp"
	default:
		return false
	}
	return k.base == base && int(s.Meta) <= k.arg(0, 0)
}

// planText plans texts and bytes. Character sets must be the same, or the target's a superset by definition.
func planText(c *columnPlan, s *change.Column, t *server.Column, k sqlType) string {
	source, known := image.CollationOf(s.Collation)
	target := targetCharset(t)
	if n, ok := fixedBytes[k.base]; ok {
		if s.Type != mysql.MYSQL_TYPE_STRING || s.Collation != image.BinaryCollation || charBytes(s.Meta) != n {
			return "only the same type and BINARY of its length go into " + t.Type
		}
		return ""
	}
	if k.base == "vector" && s.Type == mysql.MYSQL_TYPE_VARCHAR && s.Collation == image.BinaryCollation {
		if int(s.Meta) > 4*k.arg(0, 0) {
			return "the vector is longer on the source"
		}
		return ""
	}
	if !known {
		return fmt.Sprintf("collation number %d is not known to this version", s.Collation)
	}
	if k.base == "json" {
		if source.Charset != "utf8mb4" {
			return "only text in utf8mb4 goes into JSON"
		}
		c.json, c.introducer, c.charset = jsonSafe, "_utf8mb4 ", "utf8mb4"
		return ""
	}
	if source.Charset != target && (source.Charset != "utf8mb3" || target != "utf8mb4") {
		return fmt.Sprintf("its character set is %s on the source and %s on the target", source.Charset, target)
	}
	if source.Charset != "binary" {
		c.introducer, c.charset = "_"+source.Charset+" ", source.Charset
	}
	return fitsText(s, t, k, source.Charset)
}

// fitsText compares lengths: characters where both sides count them, else bytes.
func fitsText(s *change.Column, t *server.Column, k sqlType, charset string) string {
	short := fmt.Sprintf("longer values are possible on the source than in %s", t.Type)
	size := image.CharacterSize(charset)
	var characters, bytes int // what the source may hold
	switch s.Type {
	case mysql.MYSQL_TYPE_STRING:
		characters, bytes = charBytes(s.Meta)/size, charBytes(s.Meta)
	case mysql.MYSQL_TYPE_BLOB, typeBlobCompressed:
		bytes = 1<<(8*min(int(s.Meta), 4)) - 1
		characters = bytes
	default:
		characters, bytes = int(s.Meta)/size, int(s.Meta)
		if s.Type == typeVarcharCompressed {
			characters, bytes = (int(s.Meta)-1)/size, int(s.Meta)-1
		}
	}
	switch k.base {
	case "char":
		if s.Type != mysql.MYSQL_TYPE_STRING {
			return "CHAR drops trailing spaces that the source keeps"
		}
		if characters > k.arg(0, 1) {
			return short
		}
		return ""
	case "binary":
		if s.Type != mysql.MYSQL_TYPE_STRING || bytes != k.arg(0, 1) {
			return "BINARY takes only BINARY of the same length"
		}
		return ""
	case "varchar", "varbinary":
		if characters > k.arg(0, 0) {
			return short
		}
		return ""
	}
	blob, ok := blobBytes[k.base]
	if !ok {
		return "texts and bytes do not fit into " + t.Type
	}
	if bytes > blob.longest {
		return short
	}
	return ""
}

// planLabels maps ENUM and SET by label: the order of the labels may differ.
func planLabels(c *columnPlan, s *change.Column, t *server.Column, k sqlType) string {
	c.set = s.Type == mysql.MYSQL_TYPE_SET
	if want := map[bool]string{false: "enum", true: "set"}[c.set]; k.base != want {
		return "labels do not fit into " + t.Type
	}
	if !sameCharset(s, t) {
		return "the labels have another character set there"
	}
	labels := printedLabels(s)
	same := slices.Equal(labels, k.labels)
	for i, l := range labels {
		at := i
		if !same {
			at = slices.Index(k.labels, l)
		}
		if at < 0 {
			return fmt.Sprintf("label %q does not exist there", l)
		}
		if c.set {
			c.labels = append(c.labels, 1<<at)
		} else {
			c.labels = append(c.labels, uint64(at)+1)
		}
	}
	return ""
}

// planJSON plans MySQL's JSON.
func planJSON(c *columnPlan, t *server.Column, k sqlType) string {
	c.introducer, c.charset = "_utf8mb4 ", "utf8mb4"
	switch {
	case k.base == "json":
		c.json = jsonTyped
		return ""
	case k.base == "longtext" && targetCharset(t) == "utf8mb4":
		c.json = jsonText
		return ""
	}
	return "JSON goes into JSON, or into LONGTEXT in utf8mb4, and not into " + t.Type
}
