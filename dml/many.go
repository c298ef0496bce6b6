package dml

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"replicator/change"
	"replicator/image"
	"replicator/server"
)

// RenderMany is RenderOp into a statement in the form that is cheapest for many rows, which it overwrites. The rows of one
// such statement must all be different ones. Where a row has no such form its statement is that of RenderOp and has no
// Separator.
func (p *Plan) RenderMany(r *Statement, op image.Op, listing server.Listing) error {
	*r = Statement{Text: r.Text[:0]}
	c, err := p.change(op)
	if err != nil {
		return err
	}
	switch {
	case c.Kind == change.Update && p.joins(&c, listing):
		err = p.renderJoined(r, &c, &p.join[listing])
	case c.Kind == change.Delete && len(p.keys) == 1 && p.columns[p.keys[0]].keyPrefix == 0:
		err = p.renderListed(r, &c)
	default:
		_, err = p.render(r, c)
		if len(r.Args) > 0 || r.Loose {
			r.Separator = ""
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("table %s: %w", p.source.Name, err)
	}
	if len(r.Args) > 0 || r.Loose {
		*r = Statement{Text: r.Text[:0]}
		_, err = p.render(r, c)
		r.Separator = ""
	}
	return err
}

// joins reports whether an update can be one row of a list that the table is joined with: it sets every column, and leaves
// the key as it is, byte by byte.
func (p *Plan) joins(c *Change, listing server.Listing) bool {
	if p.join[listing].tail == "" || c.Only != nil || c.Add != nil {
		return false
	}
	for _, k := range p.keys {
		at := p.columns[k].source
		if before, after := &c.Before[at], &c.After[at]; before.Kind != after.Kind || before.Int != after.Int ||
			before.Uint != after.Uint || !bytes.Equal(before.Bytes, after.Bytes) {
			return false
		}
	}
	return true
}

// join is the text around the list of rows in an update of many: a table cannot be joined with the list where tail is "".
type join struct{ head, row, tail string }

// planJoin finds that text, by the form of the list. There is none where a value could change on its way through the list:
// the list's columns are of types that fit all their values, which are not always the table's own.
func (p *Plan) planJoin() (forms [server.Listings]join) {
	var names, on, set []string
	for i := range p.columns {
		c := &p.columns[i]
		isKey := slices.Contains(p.keys, i)
		if c.generated && !isKey {
			continue
		}
		if c.generated || !listed[c.base] || c.json != jsonNone || isKey && (c.keyPrefix > 0 || c.automatic) {
			return forms
		}
		name := fmt.Sprintf("c%d", len(names))
		names = append(names, name)
		if isKey {
			on = append(on, "t."+c.quoted+"=v."+name)
		} else {
			set = append(set, "t."+c.quoted+"=v."+name)
		}
	}
	if len(set) == 0 {
		return forms
	}
	// In this order, and by this index, whatever the server thinks of the size of the table.
	rest := " STRAIGHT_JOIN " + p.name + " AS t FORCE INDEX (PRIMARY) ON " + strings.Join(on, " AND ") +
		" SET " + strings.Join(set, ",")
	forms[server.ListsRows] = join{"UPDATE (VALUES ", "ROW(", ") AS v(" + strings.Join(names, ",") + ")" + rest}
	forms[server.ListsValues] = join{
		"UPDATE (SELECT NULL AS " + strings.Join(names, ",NULL AS ") + " FROM DUAL WHERE 0 UNION ALL VALUES ", "(",
		") AS v" + rest,
	}
	return forms
}

// listed are the types whose values go through a list of rows unchanged: numbers become wider ones, texts and bytes longer
// ones, dates and times are texts, labels of ENUM small numbers. Of a SET the numbers can become decimals, when some are
// greater than others, and are looked up by their text then.
var listed = map[string]bool{
	"tinyint": true, "smallint": true, "mediumint": true, "int": true, "bigint": true, "decimal": true,
	"char": true, "varchar": true, "tinytext": true, "text": true, "mediumtext": true, "longtext": true,
	"binary": true, "varbinary": true, "tinyblob": true, "blob": true, "mediumblob": true, "longblob": true,
	"enum": true, "year": true, "float": true, "double": true, "bit": true,
	"date": true, "time": true, "datetime": true, "timestamp": true,
}

// renderJoined makes an UPDATE of the table joined with a list of rows: in it a row costs the server an eighth of what it
// costs in a statement of its own.
func (p *Plan) renderJoined(r *Statement, c *Change, j *join) error {
	r.Text = append(r.Text, j.head...)
	r.Head, r.Separator, r.Tail = len(r.Text), ",", j.tail
	r.Text = append(r.Text, j.row...)
	first := true
	for i := range p.columns {
		column := &p.columns[i]
		if column.generated {
			continue
		}
		if !first {
			r.Text = append(r.Text, ',')
		}
		first = false
		if err := column.appendValue(r, c.After[column.source]); err != nil {
			return err
		}
		if column.compares != "" {
			r.Text = append(append(r.Text, " COLLATE "...), column.compares...)
		}
	}
	r.Text = append(r.Text, ')')
	return nil
}

// renderListed makes a DELETE by a list of keys.
func (p *Plan) renderListed(r *Statement, c *Change) error {
	key := &p.columns[p.keys[0]]
	r.Text = append(append(append(r.Text, "DELETE FROM "...), p.name...), " WHERE "...)
	r.Text = append(append(r.Text, key.quoted...), " IN ("...)
	r.Head, r.Separator, r.Tail = len(r.Text), ",", ")"
	return key.appendValue(r, c.Before[key.source])
}
