package dml

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"unicode"
	"unicode/utf8"

	"replicator/fault"
	"replicator/image"
)

// inlineBytes is how long a text or a value of bytes may be to stand in the statement, as hexadecimal digits; longer ones
// are sent beside it. A long text in a character set other than the connection's has no other way than the digits.
const inlineBytes = 1 << 12

// appendValue appends a column's value as an expression that the target's column takes unchanged. Texts carry their own
// character set, so that the connection's does not matter.
func (c *columnPlan) appendValue(r *Statement, v image.Value) error {
	switch v.Kind {
	case image.Null:
		r.Text = append(r.Text, "NULL"...)
	case image.Int:
		r.Text = strconv.AppendInt(r.Text, v.Int, 10)
	case image.Uint:
		return c.appendUint(r, v.Uint)
	case image.Float, image.Double:
		r.appendFloat(v.Float)
	case image.Number:
		r.Text = append(r.Text, v.Bytes...)
	case image.Time:
		r.Text = append(append(append(r.Text, '\''), v.Bytes...), '\'')
	case image.Text:
		if c.json == jsonSafe {
			if err := survivesJSON(v.Bytes); err != nil {
				return c.refuse("%v", err)
			}
		}
		c.appendText(r, v.Bytes)
	case image.Binary:
		return c.appendBinary(r, v.Bytes)
	case image.JSON:
		if c.json == jsonTyped {
			return c.appendTypedJSON(r, v)
		}
		c.appendText(r, v.Bytes)
	}
	return nil
}

func (c *columnPlan) refuse(format string, args ...any) error {
	return fault.New(fault.Definition, "change the value on its server, or leave the table out of the replicated tables",
		"a value of column %s cannot be written to the target without loss: %s", c.name, fmt.Sprintf(format, args...))
}

// appendUint appends a number as it is, and the labels of ENUM and SET as the target's numbers for them.
func (c *columnPlan) appendUint(r *Statement, v uint64) error {
	switch {
	case c.labels == nil:
	case c.set:
		var mask uint64
		for i, bit := range c.labels {
			if v>>i&1 == 1 {
				mask |= bit
			}
		}
		v = mask
	case v == 0:
		r.Loose = true
	case v > uint64(len(c.labels)):
		return c.refuse("the ENUM has no label %d", v)
	default:
		v = c.labels[v-1]
	}
	r.Text = strconv.AppendUint(r.Text, v, 10)
	return nil
}

// appendFloat appends a number that reads back bit by bit. A FLOAT is a double here, never shortened to its own digits.
func (r *Statement) appendFloat(f float64) {
	if f == 0 && math.Signbit(f) && !r.literal { // as text it would lose its sign
		r.Text = append(r.Text, '?')
		r.Args = append(r.Args, f)
		return
	}
	r.Text = strconv.AppendFloat(r.Text, f, 'e', -1, 64)
}

func (c *columnPlan) appendText(r *Statement, b []byte) {
	if r.literal && (c.charset == "utf8mb4" || c.charset == "utf8mb3") && isReadable(b) {
		r.Text = fmt.Appendf(r.Text, "'%s'", bytes.ReplaceAll(b, []byte("'"), []byte("''")))
		return
	}
	if len(b) > inlineBytes && !r.literal && (c.charset == "utf8mb4" || c.charset == "utf8mb3") { // what the connection speaks
		r.Text = append(r.Text, '?')
		r.Args = append(r.Args, b)
		return
	}
	r.Text = append(r.Text, c.introducer...)
	if isPlain(b) { // half as long as its digits, and the same bytes in every character set
		r.Text = append(append(append(r.Text, '\''), b...), '\'')
		return
	}
	r.appendHex(b)
}

// isPlain reports whether a text stands in quotes for its own bytes, whatever the introducer says: printable ASCII without
// what ends or escapes.
func isPlain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' || c == '\'' || c == '\\' {
			return false
		}
	}
	return true
}

// isReadable reports whether a text can stand in quotes as it is.
func isReadable(b []byte) bool {
	return utf8.Valid(b) && bytes.IndexFunc(b, func(c rune) bool { return c == '\\' || !unicode.IsPrint(c) }) < 0
}

func (r *Statement) appendHex(b []byte) {
	r.Text = append(r.Text, "X'"...)
	r.Text = hex.AppendEncode(r.Text, b)
	r.Text = append(r.Text, '\'')
}

func (c *columnPlan) appendBinary(r *Statement, b []byte) error {
	switch {
	case c.geometry && len(b) >= 4 && binary.LittleEndian.Uint32(b) != 0:
		return c.refuse("the flavors disagree about spatial reference system %d", binary.LittleEndian.Uint32(b))
	}
	if len(b) > inlineBytes && !r.literal {
		r.Text = append(r.Text, '?')
		r.Args = append(r.Args, b)
		return nil
	}
	r.appendHex(b)
	return nil
}
