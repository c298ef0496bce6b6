package dml

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
	"replicator/fault"
	"replicator/image"
)

// expression reads the column so that nothing of its value is lost, whatever the connection's character set: a text SELECT
// shortens a FLOAT, and converts texts.
func (c *columnPlan) expression() string {
	switch {
	case c.labels != nil:
		return "CAST(" + c.quoted + " AS UNSIGNED)"
	case c.base == "float" || c.base == "double":
		return "CAST(" + c.quoted + " AS DOUBLE)"
	case c.base == "json":
		return "CAST(CAST(" + c.quoted + " AS CHAR CHARACTER SET utf8mb4) AS BINARY)"
	case isTemporal(c.base):
		return "CAST(" + c.quoted + " AS CHAR)"
	case fixedBytes[c.base] > 0:
		return fmt.Sprintf("CAST(%s AS BINARY(%d))", c.quoted, fixedBytes[c.base])
	case c.charset != "":
		return "CAST(" + c.quoted + " AS BINARY)"
	}
	return c.quoted
}

func isTemporal(base string) bool {
	return base == "date" || base == "time" || base == "datetime" || base == "timestamp"
}

// parse reads what expression gave; raw is not NULL. s is the column of the source.
func (c *columnPlan) parse(s *change.Column, raw []byte) (v image.Value, err error) {
	defer func() {
		if err != nil {
			if _, ok := fault.As(err); !ok {
				err = fmt.Errorf("column %s: %w", c.name, err)
			}
		}
	}()
	switch {
	case c.labels != nil:
		return c.parseLabels(raw)
	case s.Type == mysql.MYSQL_TYPE_BIT:
		v = image.Value{Kind: image.Uint}
		for _, b := range raw {
			v.Uint = v.Uint<<8 | uint64(b)
		}
		return v, nil
	case s.Type == mysql.MYSQL_TYPE_YEAR || integerSize(s.Type) > 0:
		return parseInteger(s, raw)
	case s.Type == mysql.MYSQL_TYPE_FLOAT || s.Type == mysql.MYSQL_TYPE_DOUBLE:
		f, err := strconv.ParseFloat(string(raw), 64)
		if s.Type == mysql.MYSQL_TYPE_FLOAT && f == float64(float32(f)) {
			return image.Value{Kind: image.Float, Float: f}, err
		}
		return image.Value{Kind: image.Double, Float: f}, err
	case s.Type == mysql.MYSQL_TYPE_NEWDECIMAL:
		return image.Value{Kind: image.Number, Bytes: trimFraction(trimZeros(raw), int(s.Meta&0xff))}, nil
	case isTemporal(c.base):
		return image.Value{Kind: image.Time, Bytes: trimFraction(raw, int(s.Meta))}, nil
	case s.Type == mysql.MYSQL_TYPE_JSON:
		return image.Value{Kind: image.JSON, Bytes: raw}, nil
	case isBytesOrText(s.Type) && s.Collation != image.BinaryCollation:
		return image.Value{Kind: image.Text, Bytes: raw}, nil
	}
	return image.Value{Kind: image.Binary, Bytes: raw}, nil
}

func parseInteger(s *change.Column, raw []byte) (image.Value, error) {
	if s.Unsigned || s.Type == mysql.MYSQL_TYPE_YEAR {
		u, err := strconv.ParseUint(string(raw), 10, 64)
		return image.Value{Kind: image.Uint, Uint: u}, err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	return image.Value{Kind: image.Int, Int: n}, err
}

// parseLabels turns the target's number of an ENUM, or its mask of a SET, into the source's.
func (c *columnPlan) parseLabels(raw []byte) (image.Value, error) {
	n, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		return image.Value{}, err
	}
	v := image.Value{Kind: image.Uint}
	if !c.set {
		if n > 0 {
			v.Uint = uint64(slices.Index(c.labels, n)) + 1
			if v.Uint == 0 {
				return v, c.unknownLabel()
			}
		}
		return v, nil
	}
	for i, bit := range c.labels {
		if n&bit != 0 {
			v.Uint |= 1 << i
			n &^= bit
		}
	}
	if n != 0 {
		return v, c.unknownLabel()
	}
	return v, nil
}

func (c *columnPlan) unknownLabel() error {
	return fault.New(fault.Definition, definitionRemedy, "a row holds a label of column %s that the other server does not have",
		c.name)
}

// trimZeros drops the zeros in front of a ZEROFILL number.
func trimZeros(text []byte) []byte {
	for len(text) > 1 && text[0] == '0' && text[1] != '.' {
		text = text[1:]
	}
	return text
}

// trimFraction drops zeros behind the digits digits of a fraction that the source's column has: the target's may have more.
func trimFraction(text []byte, digits int) []byte {
	point := bytes.IndexByte(text, '.')
	if point < 0 {
		return text
	}
	for len(text) > point+1+digits && text[len(text)-1] == '0' {
		text = text[:len(text)-1]
	}
	return bytes.TrimSuffix(text, []byte("."))
}
