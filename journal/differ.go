package journal

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
	"replicator/image"
)

// isWide reports whether a number of the column may not fit into a JSON number: BIGINT and BIT.
func isWide(c *change.Column) bool {
	return c.Type == mysql.MYSQL_TYPE_LONGLONG || c.Type == mysql.MYSQL_TYPE_BIT
}

// column finds a column by name, -1 when there is none.
func (r *Row) column(name string) int {
	for i := range r.Table.Columns {
		if strings.EqualFold(r.Table.Columns[i].Name, name) {
			return i
		}
	}
	return -1
}

// Differing names the columns in which two rows differ, in the order of a's columns; a column that one of them does not
// have counts when the other's is not NULL. Beside a row that is not there (nil) all columns differ. Nothing is returned
// where nothing differs.
func Differing(a, b *Row) []string {
	if a == nil || b == nil {
		r := a
		if r == nil {
			r = b
		}
		var all []string
		for i := 0; r != nil && i < len(r.Table.Columns); i++ {
			all = append(all, r.Table.Columns[i].Name)
		}
		return all
	}
	var names []string
	for i := range a.Table.Columns {
		name := a.Table.Columns[i].Name
		if at := b.column(name); at < 0 && !a.isNull(i) || at >= 0 && !same(a, i, b, at) {
			names = append(names, name)
		}
	}
	for i := range b.Table.Columns {
		if name := b.Table.Columns[i].Name; a.column(name) < 0 && !b.isNull(i) {
			names = append(names, name)
		}
	}
	return names
}

// WithDocuments is the row with JSON in place of the texts of some columns, by their numbers, which are then compared by what
// they say.
func (r *Row) WithDocuments(columns []int) *Row {
	if r == nil || len(columns) == 0 {
		return r
	}
	c := *r
	c.Values = slices.Clone(r.Values)
	for _, i := range columns {
		if c.Values[i].Kind == image.Text {
			c.Values[i].Kind = image.JSON
		}
	}
	return &c
}

// Recoverable names the columns in which a losing row differs from the winning one and that a restore of single columns can
// put back: the row is there, and the journal has its key and their values.
func Recoverable(winner, loser *Row) []string {
	if winner == nil || loser == nil || slices.ContainsFunc(loser.Table.PrimaryKey, func(p change.KeyPart) bool { return loser.omits(p.Column) }) {
		return nil
	}
	return slices.DeleteFunc(Differing(winner, loser), func(name string) bool {
		at := loser.column(name)
		return at < 0 || loser.omits(at)
	})
}

// Suggest says what a restore is to put back, so that it leaves alone what was changed later: the columns that were lost, but
// for those to leave out (whose changes add up, or which were put back before), where the row stands (see Kind.Sides) and the
// losing change left one; else the whole row, if it is restorable. None of both: nothing can be put back.
func Suggest(stands, loser *Row, restorable bool, leaveOut []string) (columns []string, whole bool) {
	if stands == nil || loser == nil {
		return nil, restorable
	}
	return without(Recoverable(stands, loser), leaveOut), false
}

func (r *Row) omits(column int) bool {
	_, omitted := r.Omitted[column]
	return omitted
}

// without are the names that are not among the others; names of columns are equal in any letter case.
func without(names, others []string) (left []string) {
	for _, name := range names {
		if !slices.ContainsFunc(others, func(o string) bool { return strings.EqualFold(o, name) }) {
			left = append(left, name)
		}
	}
	return left
}

func union(names, more []string) []string { return append(slices.Clip(names), without(more, names)...) }

func (r *Row) isNull(column int) bool {
	return !r.omits(column) && r.Values[column].Kind == image.Null
}

// same compares two values as far as their servers may have written them in different ways: labels by name, numbers and
// times without trailing zeros, JSON by what it says.
func same(a *Row, i int, b *Row, j int) bool {
	left, leftOut := a.Omitted[i]
	right, rightOut := b.Omitted[j]
	if leftOut || rightOut {
		return leftOut && rightOut && left == right
	}
	x, y := a.Values[i], b.Values[j]
	if x.Kind == image.Null || y.Kind == image.Null {
		return x.Kind == y.Kind
	}
	if a.Table.Columns[i].Labels != nil || b.Table.Columns[j].Labels != nil {
		return image.Print(&a.Table.Columns[i], x) == image.Print(&b.Table.Columns[j], y)
	}
	if x.Kind == image.JSON || y.Kind == image.JSON {
		return bytes.Equal(x.Bytes, y.Bytes) || sameJSON(x.Bytes, y.Bytes)
	}
	switch x.Kind {
	case image.Int, image.Uint:
		return (y.Kind == image.Int || y.Kind == image.Uint) && image.Print(&change.Column{}, x) == image.Print(&change.Column{}, y)
	case image.Float, image.Double:
		return (y.Kind == image.Float || y.Kind == image.Double) && x.Float == y.Float
	case image.Number, image.Time:
		return x.Kind == y.Kind && bytes.Equal(trim(x.Bytes), trim(y.Bytes))
	case image.Text, image.Binary, image.JSON, image.Null:
	}
	return x.Kind == y.Kind && bytes.Equal(x.Bytes, y.Bytes)
}

func sameJSON(a, b []byte) bool {
	var x, y any
	for _, p := range []struct {
		text []byte
		into *any
	}{{a, &x}, {b, &y}} {
		d := json.NewDecoder(bytes.NewReader(p.text))
		d.UseNumber()
		if d.Decode(p.into) != nil {
			return false
		}
	}
	return sameNode(x, y)
}

// sameNode compares decoded JSON. A double may be written in several ways; an integer is no double.
func sameNode(x, y any) bool {
	switch a := x.(type) {
	case map[string]any:
		b, ok := y.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, value := range a {
			if other, has := b[name]; !has || !sameNode(value, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := y.([]any)
		return ok && slices.EqualFunc(a, b, sameNode)
	case json.Number:
		b, ok := y.(json.Number)
		isDouble := func(n json.Number) bool { return strings.ContainsAny(string(n), ".eE") }
		if !ok || a == b || !isDouble(a) || !isDouble(b) {
			return ok && a == b
		}
		f, errA := a.Float64()
		g, errB := b.Float64()
		return errA == nil && errB == nil && f == g
	}
	return x == y
}

func trim(text []byte) []byte {
	if bytes.IndexByte(text, '.') < 0 {
		return text
	}
	return bytes.TrimRight(bytes.TrimRight(text, "0"), ".")
}
