package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"replicator/change"
)

// Types of MySQL's binary JSON: see the format's description in MySQL's sql-common/json_binary.h.
const (
	jsonSmallObject = 0
	jsonLargeObject = 1
	jsonSmallArray  = 2
	jsonLargeArray  = 3
	jsonLiteral     = 4
	jsonInt16       = 5
	jsonUint16      = 6
	jsonInt32       = 7
	jsonUint32      = 8
	jsonInt64       = 9
	jsonUint64      = 10
	jsonDouble      = 11
	jsonString      = 12
	jsonOpaque      = 15
)

const (
	maxJSONDepth = 100 // of a document, on the server
	// A document's text is never longer than this many times its bytes (a control character becomes six), unless its
	// offsets point to one value many times over, which no server writes.
	maxJSONGrowth = 16
)

var errJSON = errors.New("binary JSON is malformed")

// jsonText prints a binary JSON document exactly as the server does when it is selected.
func jsonText(b []byte) ([]byte, error) {
	if len(b) == 0 { // an empty document is read as null: non-strict inserts can make one
		return []byte("null"), nil
	}
	p := jsonPrinter{limit: maxJSONGrowth*len(b) + 64}
	if err := p.value(b[0], b[1:], 0); err != nil {
		return nil, err
	}
	return p.out, nil
}

type jsonPrinter struct {
	out   []byte
	limit int
}

func (p *jsonPrinter) value(kind byte, b []byte, depth int) error {
	if depth > maxJSONDepth || len(p.out) > p.limit {
		return errJSON
	}
	switch kind {
	case jsonSmallObject, jsonLargeObject, jsonSmallArray, jsonLargeArray:
		return p.container(kind, b, depth)
	case jsonString:
		text, err := jsonBytes(b)
		if err != nil {
			return err
		}
		p.quote(text)
		return nil
	case jsonOpaque:
		return p.opaque(b)
	}
	return p.scalar(kind, b)
}

func (p *jsonPrinter) scalar(kind byte, b []byte) error {
	r := reader{b: b}
	switch kind {
	case jsonLiteral:
		text, ok := map[byte]string{0: "null", 1: "true", 2: "false"}[r.byte()]
		if !ok {
			return errJSON
		}
		p.out = append(p.out, text...)
	case jsonInt16, jsonInt32, jsonInt64:
		size := map[byte]int{jsonInt16: 2, jsonInt32: 4, jsonInt64: 8}[kind]
		p.out = strconv.AppendInt(p.out, signed(littleEndian(r.take(size)), size), 10)
	case jsonUint16, jsonUint32, jsonUint64:
		size := map[byte]int{jsonUint16: 2, jsonUint32: 4, jsonUint64: 8}[kind]
		p.out = strconv.AppendUint(p.out, littleEndian(r.take(size)), 10)
	case jsonDouble:
		p.out = appendDouble(p.out, math.Float64frombits(littleEndian(r.take(8))))
	default:
		return fmt.Errorf("binary JSON type %d is not known", kind)
	}
	if r.bad {
		return errJSON
	}
	return nil
}

func isObject(kind byte) bool { return kind == jsonSmallObject || kind == jsonLargeObject }

// container prints an object or an array.
func (p *jsonPrinter) container(kind byte, b []byte, depth int) error {
	open, end := byte('['), byte(']')
	if isObject(kind) {
		open, end = '{', '}'
	}
	p.out = append(p.out, open)
	first := true
	err := eachEntry(kind, b, func(key []byte, kind byte, b []byte) error {
		if !first {
			p.out = append(p.out, ", "...)
		}
		first = false
		if open == '{' {
			p.quote(key)
			p.out = append(p.out, ": "...)
		}
		return p.value(kind, b, depth+1)
	})
	p.out = append(p.out, end)
	return err
}

// eachEntry calls f for the values of an object or an array, key is nil in an array. Both start with a count and a size, objects go on with one entry per key
// (offset, 16-bit length), then there is one entry per value: its type, and its offset or the value itself if it fits.
func eachEntry(kind byte, b []byte, f func(key []byte, kind byte, b []byte) error) error {
	size := 2
	if kind == jsonLargeObject || kind == jsonLargeArray {
		size = 4
	}
	object := isObject(kind)
	r := reader{b: b}
	count := littleEndian(r.take(size))
	r.take(size)
	if count > uint64(len(r.b)) {
		return errJSON
	}
	keys := reader{}
	if object {
		keys.b = r.take(int(count) * (size + 2))
	}
	for range int(count) {
		var key []byte
		if object {
			var err error
			if key, err = jsonSlice(b, littleEndian(keys.take(size)), littleEndian(keys.take(2))); err != nil {
				return err
			}
		}
		entryKind, entry := r.byte(), r.take(size)
		if r.bad || keys.bad {
			return errJSON
		}
		if !isInline(entryKind, size) {
			offset := littleEndian(entry)
			if offset > uint64(len(b)) {
				return errJSON
			}
			entry = b[offset:]
		}
		if err := f(key, entryKind, entry); err != nil {
			return err
		}
	}
	return nil
}

// isInline reports whether a value stands in its entry, which has room for size bytes.
func isInline(kind byte, size int) bool {
	switch kind {
	case jsonLiteral, jsonInt16, jsonUint16:
		return true
	case jsonInt32, jsonUint32:
		return size == 4
	}
	return false
}

func jsonSlice(b []byte, offset, size uint64) ([]byte, error) {
	if offset+size > uint64(len(b)) {
		return nil, errJSON
	}
	return b[offset : offset+size], nil
}

// jsonBytes reads bytes with their length in front: seven bits to a byte, lowest first.
func jsonBytes(b []byte) ([]byte, error) {
	var size uint64
	for i := 0; i < len(b) && i < 5; i++ {
		size |= uint64(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return jsonSlice(b, uint64(i)+1, size)
		}
	}
	return nil, errJSON
}

func (p *jsonPrinter) quote(text []byte) {
	const hex = "0123456789abcdef"
	p.out = append(p.out, '"')
	for _, c := range text {
		switch c {
		case '"', '\\':
			p.out = append(p.out, '\\', c)
		case '\b':
			p.out = append(p.out, `\b`...)
		case '\f':
			p.out = append(p.out, `\f`...)
		case '\n':
			p.out = append(p.out, `\n`...)
		case '\r':
			p.out = append(p.out, `\r`...)
		case '\t':
			p.out = append(p.out, `\t`...)
		default:
			if c < 0x20 {
				p.out = append(p.out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			} else {
				p.out = append(p.out, c)
			}
		}
	}
	p.out = append(p.out, '"')
}

// opaque prints a value of another SQL type: the type, then its bytes.
func (p *jsonPrinter) opaque(b []byte) error {
	if len(b) == 0 || b[0] == 0 {
		return errJSON
	}
	kind := b[0]
	data, err := jsonBytes(b[1:])
	if err != nil {
		return err
	}
	switch kind {
	case typeNewDecimal:
		if len(data) < 2 {
			return errJSON
		}
		text, err := decimalText(data[2:], int(data[0]), int(data[1]))
		p.out = append(p.out, text...)
		return err
	case typeDate, typeTime, typeDatetime, typeTimestamp:
		if len(data) != 8 {
			return errJSON
		}
		p.out = append(p.out, '"')
		p.temporal(kind, int64(littleEndian(data)))
		p.out = append(p.out, '"')
		return nil
	}
	p.out = fmt.Appendf(p.out, `"base64:type%d:`, kind)
	p.out = append(base64.StdEncoding.AppendEncode(p.out, data), '"')
	return nil
}

// temporal prints a packed date or time, always with six fractional digits.
func (p *jsonPrinter) temporal(kind byte, v int64) {
	switch kind {
	case typeDate:
		p.out = appendDate(p.out, v)
	case typeTime:
		sign := int64(1)
		if v < 0 {
			sign, v = -1, -v
		}
		whole, micro := v>>microBits, v&(1<<microBits-1)
		v = sign * ((whole>>12&0x3ff*3600+whole>>6&0x3f*60+whole&0x3f)*second + micro)
		p.out = appendTemporal(p.out, &change.Column{Type: typeTime2, Meta: 6}, v)
	default:
		p.out = appendDatetime(p.out, v, 6)
	}
}

// maxPlainExponent is how far the decimal point may be from the first digit before the server prints an exponent:
// MAX_DECPT_FOR_F_FORMAT of MySQL's strings/dtoa.cc.
const maxPlainExponent = 15

// appendDouble prints a double as the server does in JSON: the shortest digits that read back the same, with a decimal
// point or an exponent always.
func appendDouble(b []byte, f float64) []byte {
	e := strconv.AppendFloat(nil, f, 'e', -1, 64) // d.ddde±dd
	at := len(e) - 1
	for at > 0 && e[at] != 'e' {
		at--
	}
	exponent, err := strconv.Atoi(string(e[at+1:]))
	if err != nil { // NaN and infinities, which no document holds
		return append(b, "null"...)
	}
	if point := exponent + 1; point < 1-maxPlainExponent || point > maxPlainExponent {
		b = append(b, e[:at+1]...)
		return strconv.AppendInt(b, int64(exponent), 10)
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if slices.Contains(b[start:], '.') {
		return b
	}
	return append(b, ".0"...)
}
