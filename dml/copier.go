package dml

import (
	"bytes"
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
	"replicator/image"
)

// RawResults readies a session for the queries of SelectRaw and Copier.Select: texts come in the character sets of their
// columns. The session must speak utf8mb4 besides.
const RawResults = "SET SESSION character_set_results = NULL"

// SelectRaw makes a query for the rows of a range in the order of their key, for ParseRaw: without arguments, for the
// driver's text protocol and a session with RawResults. Unlike the other queries it computes nothing from long values, so none
// of them can come as NULL because the server's max_allowed_packet is smaller.
func (p *Plan) SelectRaw(after, upTo []image.Value) (string, error) {
	all := make([]*columnPlan, len(p.columns))
	for i := range p.columns {
		all[i] = &p.columns[i]
	}
	return p.selectRaw(all, after, upTo)
}

func (p *Plan) selectRaw(columns []*columnPlan, after, upTo []image.Value) (string, error) {
	var head strings.Builder
	separator := "SELECT "
	for _, c := range columns {
		head.WriteString(separator)
		head.WriteString(c.rawExpression())
		separator = ","
	}
	s := &Statement{literal: true} // with arguments the server would answer in its other protocol
	s.Text = append(append(append(s.Text, head.String()...), " FROM "...), p.name...)
	if len(p.keys) == 0 {
		return string(s.Text), nil
	}
	if err := p.appendRange(s, after, upTo); err != nil {
		return "", err
	}
	return string(s.Text) + p.order(), nil
}

// rawExpression reads the column for a session with RawResults.
func (c *columnPlan) rawExpression() string {
	if c.labels != nil || c.base == "float" || c.base == "double" || fixedBytes[c.base] > 0 {
		return c.expression()
	}
	return c.quoted
}

// ParseRaw reads a row that SelectRaw asked for: one value per column of the source's table. They share memory with row.
func (p *Plan) ParseRaw(row []driver.Value) ([]image.Value, error) {
	raw := make([][]byte, len(row))
	for i, v := range row {
		var err error
		if raw[i], err = rawBytes(v); err != nil {
			return nil, err
		}
	}
	return p.values(raw)
}

func rawBytes(v driver.Value) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []byte:
		return v, nil
	case int64:
		return strconv.AppendInt(nil, v, 10), nil
	case uint64:
		return strconv.AppendUint(nil, v, 10), nil
	case float64:
		return strconv.AppendFloat(nil, v, 'g', -1, 64), nil
	}
	return nil, fmt.Errorf("bug: the driver gives a %T", v)
}

// Copier makes statements that insert rows of one table into another from what the first's server sends, without decoding
// what need not be: two plans of the same source table, of which one reads and the other writes. It is immutable.
type Copier struct {
	read    *Plan
	from    []*columnPlan // what is read, in the order of the columns below
	columns []copied
	tail    string // of the statement's head, behind INSERT or REPLACE
}

// copied is one column on its way.
type copied struct {
	*columnPlan // of the target
	from        *columnPlan
	source      *change.Column
	way         way
}

// way says how a value gets into a statement.
type way uint8

const (
	byValue   way = iota // decoded, and rendered as a value
	asNumber             // its digits
	asDouble             // a FLOAT or DOUBLE
	asTime               // in quotes
	asLabels             // the number of an ENUM or SET
	asUTF8               // text in the connection's character set
	asCharset            // text in another one
	asBytes              // bytes
)

// NewCopier makes a Copier.
func NewCopier(read, write *Plan) (*Copier, error) {
	c := &Copier{read: read}
	var names []string
	for i := range write.columns {
		w := &write.columns[i]
		if w.generated {
			continue
		}
		from := read.column(w.source)
		if from == nil {
			return nil, fmt.Errorf("bug: column %s of %s is not read", w.name, read.source.Name)
		}
		names = append(names, w.quoted)
		source := &read.source.Columns[w.source]
		c.from = append(c.from, from)
		c.columns = append(c.columns, copied{columnPlan: w, from: from, source: source, way: wayOf(source, w)})
	}
	c.tail = " INTO " + write.name + " (" + strings.Join(names, ",") + ") VALUES "
	return c, nil
}

func wayOf(s *change.Column, w *columnPlan) way {
	switch {
	case w.labels != nil:
		return asLabels
	case s.Type == mysql.MYSQL_TYPE_YEAR, s.Type == mysql.MYSQL_TYPE_NEWDECIMAL, integerSize(s.Type) > 0:
		return asNumber
	case s.Type == mysql.MYSQL_TYPE_FLOAT, s.Type == mysql.MYSQL_TYPE_DOUBLE:
		return asDouble
	case isTemporal(w.base):
		return asTime
	case w.json == jsonSafe, w.geometry, s.Type == mysql.MYSQL_TYPE_BIT, fixedBytes[w.base] > 0:
		return byValue
	case w.charset == "utf8mb4", w.charset == "utf8mb3":
		return asUTF8
	case w.charset != "":
		return asCharset
	}
	return asBytes
}

// Select makes a query for the rows of a range, as SelectRaw does: of those columns that are written.
func (c *Copier) Select(after, upTo []image.Value) (string, error) {
	return c.read.selectRaw(c.from, after, upTo)
}

// Begin makes r an empty statement, which Append gives rows: REPLACE or INSERT.
func (c *Copier) Begin(r *Statement, replace bool) {
	verb := "INSERT"
	if replace {
		verb = "REPLACE"
	}
	*r = Statement{Text: append(append(r.Text[:0], verb...), c.tail...), Args: r.Args[:0]}
	r.Head = len(r.Text)
}

// Append adds a row that Select asked for. What it needs of row's memory it copies. A value that the target would not take
// unchanged is a fault of class Definition.
func (c *Copier) Append(r *Statement, row []driver.Value) error {
	if len(r.Text) > r.Head {
		r.Text = append(r.Text, ',')
	}
	separator := byte('(')
	for i := range c.columns {
		r.Text = append(r.Text, separator)
		separator = ','
		if row[i] == nil {
			r.Text = append(r.Text, "NULL"...)
			continue
		}
		if err := c.columns[i].append(r, row[i]); err != nil {
			return fmt.Errorf("table %s: %w", c.read.source.Name, err)
		}
	}
	r.Text = append(r.Text, ')')
	return nil
}

func (c *copied) append(r *Statement, v driver.Value) error {
	switch v := v.(type) {
	case int64:
		if c.way == asNumber {
			r.Text = strconv.AppendInt(r.Text, v, 10)
			return nil
		}
	case uint64:
		if c.way == asNumber {
			r.Text = strconv.AppendUint(r.Text, v, 10)
			return nil
		}
		if c.way == asLabels { // read as they are numbered on the source
			return c.appendUint(r, v)
		}
	case float64:
		if c.way == asDouble {
			r.appendFloat(v)
			return nil
		}
	case []byte:
		if c.appendBytes(r, v) {
			return nil
		}
	}
	b, err := rawBytes(v)
	if err != nil {
		return err
	}
	value, err := c.from.parse(c.source, bytes.Clone(b))
	if err != nil {
		return err
	}
	return c.appendValue(r, value)
}

// appendBytes appends what came as text or bytes, where that takes no decoding.
func (c *copied) appendBytes(r *Statement, b []byte) bool {
	switch c.way {
	case asNumber:
		r.Text = append(r.Text, b...)
	case asTime:
		r.Text = append(append(append(r.Text, '\''), b...), '\'')
	case asUTF8, asBytes:
		if len(b) > inlineBytes && c.base != "vector" && !isGeometry(c.base) { // an argument is text, which these do not take
			r.Text = append(r.Text, '?')
			r.Args = append(r.Args, bytes.Clone(b))
			return true
		}
		if c.way == asBytes {
			r.Text = append(r.Text, "_binary"...)
		} else if c.charset != "utf8mb4" {
			r.Text = append(r.Text, c.introducer...)
		}
		r.appendQuoted(b)
	case asCharset:
		c.appendText(r, b)
	default:
		return false
	}
	return true
}

// appendQuoted puts bytes in quotes, for a session whose sql_mode knows the backslash.
func (r *Statement) appendQuoted(b []byte) {
	r.Text = append(r.Text, '\'')
	if bytes.IndexByte(b, '\'') < 0 && bytes.IndexByte(b, '\\') < 0 && bytes.IndexByte(b, 0) < 0 {
		r.Text = append(append(r.Text, b...), '\'')
		return
	}
	for _, c := range b {
		switch c {
		case '\'', '\\':
			r.Text = append(r.Text, c, c)
		case 0:
			r.Text = append(r.Text, '\\', '0')
		default:
			r.Text = append(r.Text, c)
		}
	}
	r.Text = append(r.Text, '\'')
}
