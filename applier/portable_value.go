package applier

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"

	"replicator/fault"
	"replicator/image"
)

// inlineBytes is how long a text or a value of bytes may be to stand in the statement, as hexadecimal digits; longer ones
// are sent beside it. A long text in a character set other than the connection's has no other way than the digits.
const inlineBytes = 1 << 12

// appendValue appends a column's value as an expression that the target's column takes unchanged. Texts carry their own
// character set, so that the connection's does not matter.
func (c *columnPlan) appendValue(r *rendered, values []image.Value) error {
	v := values[c.source]
	switch v.Kind {
	case image.Null:
		r.text = append(r.text, "NULL"...)
	case image.Int:
		r.text = strconv.AppendInt(r.text, v.Int, 10)
	case image.Uint:
		return c.appendUint(r, v.Uint)
	case image.Float, image.Double:
		r.appendFloat(v.Float)
	case image.Number:
		r.text = append(r.text, v.Bytes...)
	case image.Time:
		r.text = append(append(append(r.text, '\''), v.Bytes...), '\'')
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
func (c *columnPlan) appendUint(r *rendered, v uint64) error {
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
		r.loose = true
	case v > uint64(len(c.labels)):
		return c.refuse("the ENUM has no label %d", v)
	default:
		v = c.labels[v-1]
	}
	r.text = strconv.AppendUint(r.text, v, 10)
	return nil
}

// appendFloat appends a number that reads back bit by bit. A FLOAT is a double here, never shortened to its own digits.
func (r *rendered) appendFloat(f float64) {
	if f == 0 && math.Signbit(f) { // as text it would lose its sign
		r.text = append(r.text, '?')
		r.args = append(r.args, f)
		return
	}
	r.text = strconv.AppendFloat(r.text, f, 'e', -1, 64)
}

func (c *columnPlan) appendText(r *rendered, b []byte) {
	if len(b) > inlineBytes && (c.charset == "utf8mb4" || c.charset == "utf8mb3") { // what the connection speaks
		r.text = append(r.text, '?')
		r.args = append(r.args, b)
		return
	}
	r.text = append(r.text, c.introducer...)
	r.appendHex(b)
}

func (r *rendered) appendHex(b []byte) {
	r.text = append(r.text, "X'"...)
	r.text = hex.AppendEncode(r.text, b)
	r.text = append(r.text, '\'')
}

func (c *columnPlan) appendBinary(r *rendered, b []byte) error {
	switch {
	case c.geometry && len(b) >= 4 && binary.LittleEndian.Uint32(b) != 0:
		return c.refuse("the flavors disagree about spatial reference system %d", binary.LittleEndian.Uint32(b))
	}
	if len(b) > inlineBytes {
		r.text = append(r.text, '?')
		r.args = append(r.args, b)
		return nil
	}
	r.appendHex(b)
	return nil
}
