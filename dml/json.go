package dml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/image"
)

// appendTypedJSON appends an expression that makes a JSON value again with the types that it has on the source, which its
// text alone does not say: DECIMAL, DATE, TIME and DATETIME inside of JSON. Other SQL types cannot be made by an
// expression.
func (c *columnPlan) appendTypedJSON(r *Statement, v image.Value) error {
	n, err := image.ParseJSON(v.Document)
	if err != nil {
		return c.refuse("%v", err)
	}
	if n.IsPlain() {
		c.appendText(r, v.Bytes)
		return nil
	}
	if n.SQLType != 0 {
		r.Text = append(r.Text, "CAST("...)
		defer func() { r.Text = append(r.Text, " AS JSON)"...) }()
	}
	return c.appendNode(r, &n)
}

func (c *columnPlan) appendNode(r *Statement, n *image.JSONNode) error {
	if n.IsPlain() {
		r.Text = append(r.Text, "CAST("...)
		c.appendText(r, n.Text)
		r.Text = append(r.Text, " AS JSON)"...)
		return nil
	}
	switch n.SQLType {
	case 0:
		return c.appendContainer(r, n)
	case mysql.MYSQL_TYPE_NEWDECIMAL:
		r.Text = fmt.Appendf(r.Text, "CAST('%s' AS DECIMAL(%d,%d))", n.Text, n.Precision, n.Scale)
	case mysql.MYSQL_TYPE_DATE:
		r.Text = fmt.Appendf(r.Text, "CAST('%s' AS DATE)", n.Text)
	case mysql.MYSQL_TYPE_TIME:
		r.Text = fmt.Appendf(r.Text, "CAST('%s' AS TIME(6))", n.Text)
	case mysql.MYSQL_TYPE_DATETIME:
		r.Text = fmt.Appendf(r.Text, "CAST('%s' AS DATETIME(6))", n.Text)
	default:
		return c.refuse("its JSON holds a value of SQL type %d, which no expression can make", n.SQLType)
	}
	return nil
}

func (c *columnPlan) appendContainer(r *Statement, n *image.JSONNode) error {
	name := "JSON_ARRAY("
	if n.Object {
		name = "JSON_OBJECT("
	}
	r.Text = append(r.Text, name...)
	for i := range n.Items {
		if i > 0 {
			r.Text = append(r.Text, ',')
		}
		if n.Object {
			c.appendText(r, n.Names[i])
			r.Text = append(r.Text, ',')
		}
		if err := c.appendNode(r, &n.Items[i]); err != nil {
			return err
		}
	}
	r.Text = append(r.Text, ')')
	return nil
}

// survivesJSON reports why MySQL's JSON would not keep what a text says: repeated names are dropped there, and numbers
// become integers of 64 bits or doubles. Spaces and the order of names do not count.
func survivesJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := walkJSON(d); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the text holds more than one JSON document")
	}
	return nil
}

func walkJSON(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("the text is no JSON: %w", err)
	}
	switch t := token.(type) {
	case json.Number:
		return exactNumber(t.String())
	case json.Delim:
		names := map[string]bool{}
		for d.More() {
			if t == '{' {
				name, err := d.Token()
				if err != nil {
					return fmt.Errorf("the text is no JSON: %w", err)
				}
				text, _ := name.(string)
				if names[text] {
					return fmt.Errorf("JSON name %q is there twice", text)
				}
				names[text] = true
			}
			if err := walkJSON(d); err != nil {
				return err
			}
		}
		if _, err := d.Token(); err != nil { // the closing bracket
			return fmt.Errorf("the text is no JSON: %w", err)
		}
	}
	return nil
}

// exactNumber reports a number that is neither a 64-bit integer nor exactly what the nearest double prints as.
func exactNumber(text string) error {
	if _, err := strconv.ParseInt(text, 10, 64); err == nil && text != "-0" {
		return nil
	}
	if _, err := strconv.ParseUint(text, 10, 64); err == nil {
		return nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return fmt.Errorf("JSON number %s is out of range", text)
	}
	if f == 0 {
		digits, _, _ := strings.Cut(strings.ToLower(text), "e")
		if strings.Trim(digits, "-0.") != "" {
			return fmt.Errorf("JSON number %.20s is smaller than any double", text)
		}
		return nil
	}
	const longest = 400 // digits of an exponent and a fraction that a double can need
	if len(text) > longest {
		return fmt.Errorf("JSON number %.20s… has more digits than a double", text)
	}
	want, ok1 := new(big.Rat).SetString(text)
	got, ok2 := new(big.Rat).SetString(strconv.FormatFloat(f, 'e', -1, 64))
	if !ok1 || !ok2 || want.Cmp(got) != 0 {
		return fmt.Errorf("JSON number %s has more digits than a double", text)
	}
	return nil
}
