package dml

import (
	"fmt"
	"strconv"
	"strings"

	"replicator/image"
)

// SelectRange asks for the rows whose primary key is above that of after and not above that of upTo, in the order of the
// key, at most limit of them; 0 is all. after and upTo have one value per column of the source's table, of which those of
// the key count; nil is open. Found.Index is 0.
func (p *Plan) SelectRange(after, upTo []image.Value, limit int) (*Query, error) {
	s, err := p.rangeStatement("SELECT 0"+p.expressions(), after, upTo)
	if err != nil {
		return nil, err
	}
	if limit > 0 {
		s.Text = strconv.AppendInt(append(append(s.Text, p.order()...), " LIMIT "...), int64(limit), 10)
	} else {
		s.Text = append(s.Text, p.order()...)
	}
	return &Query{Text: string(s.Text), Args: s.Args, plan: p}, nil
}

// SelectBound asks for the row that is so many rows above after in the order of the primary key, and not above upTo: none
// where there are fewer. It reads nothing but the key.
func (p *Plan) SelectBound(after, upTo []image.Value, rows int) (*Query, error) {
	k := p.keyPart()
	s, err := k.rangeStatement("SELECT 0"+k.expressions(), after, upTo)
	if err != nil {
		return nil, err
	}
	s.Text = fmt.Appendf(s.Text, "%s LIMIT %d,1", k.order(), rows-1)
	return &Query{Text: string(s.Text), Args: s.Args, plan: k}, nil
}

// keyPart is the plan as if the table had no columns but those of its primary key: a server makes no other of the rows that
// it passes over.
func (p *Plan) keyPart() *Plan {
	k := *p
	k.columns, k.keys = make([]columnPlan, len(p.keys)), make([]int, len(p.keys))
	for i, at := range p.keys {
		k.columns[i], k.keys[i] = p.columns[at], i
	}
	return &k
}

// DeleteRange makes a statement that deletes the rows of a range.
func (p *Plan) DeleteRange(after, upTo []image.Value) (*Statement, error) {
	// Of the two forms of DELETE this one takes the name of an index.
	s := &Statement{Text: []byte("DELETE " + p.name + " FROM " + p.name)}
	return s, p.appendRange(s, after, upTo)
}

// Checksum makes a statement that counts the rows of a range, those of them whose checksum could be computed (a row may be
// longer than the server's max_allowed_packet), and adds up (XOR) the first 64 bits of the SHA-256 of their values. Servers
// of one flavor with the same definition of the table give the same sum for the same rows.
func (p *Plan) Checksum(after, upTo []image.Value) (query string, args []any, err error) {
	var parts []string
	for i := range p.columns {
		c := &p.columns[i]
		e := c.expression()
		if isGeometry(c.base) || c.base == "vector" { // MySQL's CONCAT takes none
			e = "HEX(" + e + ")"
		}
		parts = append(parts, "IFNULL(CONCAT(LENGTH("+e+"),':',"+e+"),'N')")
	}
	sum := "SHA2(CONCAT(" + strings.Join(parts, ",") + "),256)"
	s, err := p.rangeStatement("SELECT COUNT(*),COUNT(h),BIT_XOR(h) FROM (SELECT CAST(CONV(LEFT("+sum+",16),16,10) AS UNSIGNED) AS h",
		after, upTo)
	if err != nil {
		return "", nil, err
	}
	// With a LIMIT the list is made first, and each checksum computed once.
	return string(s.Text) + " LIMIT 18446744073709551615) AS rows_of_range", s.Args, nil
}

// Where returns a plan whose ranges are of the rows that meet a condition, which is SQL.
func (p *Plan) Where(condition string) *Plan {
	part := *p
	part.where = condition
	return &part
}

func (p *Plan) expressions() string {
	var b strings.Builder
	for i := range p.columns {
		b.WriteByte(',')
		b.WriteString(p.columns[i].expression())
	}
	return b.String()
}

func (p *Plan) rangeStatement(head string, after, upTo []image.Value) (*Statement, error) {
	s := &Statement{}
	s.Text = append(append(append(s.Text, head...), " FROM "...), p.name...)
	return s, p.appendRange(s, after, upTo)
}

// appendRange says which rows are meant.
func (p *Plan) appendRange(s *Statement, after, upTo []image.Value) error {
	s.Text = append(s.Text, " FORCE INDEX (PRIMARY) WHERE "...)
	err := p.appendBeyond(s, after, ">", ">")
	if err == nil {
		s.Text = append(s.Text, " AND "...)
		err = p.appendBeyond(s, upTo, "<", "<=")
	}
	if p.where != "" {
		s.Text = append(append(append(s.Text, " AND ("...), p.where...), ')')
	}
	if err != nil {
		return fmt.Errorf("table %s: %w", p.source.Name, err)
	}
	return nil
}

// appendBeyond compares the key with a row's, column by column: servers find no range of an index for tuples. last is how
// the last column is compared.
func (p *Plan) appendBeyond(r *Statement, row []image.Value, operator, last string) error {
	if row == nil {
		r.Text = append(r.Text, "1=1"...)
		return nil
	}
	r.Text = append(r.Text, '(')
	for n := range p.keys {
		if n > 0 {
			r.Text = append(r.Text, " OR "...)
		}
		r.Text = append(r.Text, '(')
		for i, k := range p.keys[:n+1] {
			c, how := &p.columns[k], "="
			if i > 0 {
				r.Text = append(r.Text, " AND "...)
			}
			if i == n {
				how = operator
			}
			if i == len(p.keys)-1 {
				how = last
			}
			if err := c.appendCompared(r, row[c.source], how, c.keyPrefix); err != nil {
				return err
			}
		}
		r.Text = append(r.Text, ')')
	}
	r.Text = append(r.Text, ')')
	return nil
}

func (p *Plan) order() string {
	names := make([]string, len(p.keys))
	for i, k := range p.keys {
		c := &p.columns[k]
		names[i] = c.quoted
		if c.keyPrefix > 0 {
			names[i] = fmt.Sprintf("LEFT(%s,%d)", c.quoted, c.keyPrefix)
		}
	}
	return " ORDER BY " + strings.Join(names, ",")
}
