package image

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"replicator/change"
	"replicator/fault"
)

// Kind says which field of a Value holds it.
type Kind uint8

// The kinds of value.
const (
	Null   Kind = iota
	Int         // Int: TINYINT to BIGINT
	Uint        // Uint: unsigned integers, YEAR (0 or 1901 to 2155), BIT, the index of an ENUM (0: the error value), the mask of a SET
	Float       // Float: a FLOAT, exactly representable as float32
	Double      // Float: a DOUBLE
	Number      // Bytes: a DECIMAL as the server prints it
	Time        // Bytes: DATE, TIME, DATETIME or TIMESTAMP (in UTC) as the server prints it
	Text        // Bytes: text in the column's own character set
	Binary      // Bytes: bytes, BINARY padded to its length, GEOMETRY (SRID and WKB), VECTOR, MariaDB's UUID and INET
	JSON        // Bytes: MySQL's JSON as the server prints it (utf8mb4)
)

// Value is one decoded column. Bytes may share memory with the image that it was decoded from.
type Value struct {
	Kind  Kind
	Int   int64
	Uint  uint64
	Float float64
	Bytes []byte
	// Document is a JSON value in its binary form, for ParseJSON.
	Document []byte
}

// Values decodes all columns of an image of table t, without loss. A fault of class Definition says that the image does
// not fit the table.
func Values(t *change.Table, img []byte) ([]Value, error) {
	l, err := layoutOf(t)
	if err != nil {
		return nil, err
	}
	values := make([]Value, len(t.Columns))
	err = l.walk(img, func(i int, b []byte) error {
		if b == nil {
			return nil
		}
		v, err := decode(&t.Columns[i], b)
		if err != nil {
			return fmt.Errorf("column %s: %w", t.Columns[i].Name, err)
		}
		values[i] = v
		return nil
	})
	if err != nil {
		return nil, fault.Wrap(err, fault.Definition, "report this with the table's definition and the binlog file",
			"a row of table %s cannot be decoded", t.Name)
	}
	return values, nil
}

func decode(c *change.Column, b []byte) (Value, error) {
	switch c.Type {
	case typeNull:
		return Value{}, nil
	case typeTiny, typeShort, typeInt24, typeLong, typeLongLong:
		if c.Unsigned {
			return Value{Kind: Uint, Uint: littleEndian(b)}, nil
		}
		return Value{Kind: Int, Int: signed(littleEndian(b), len(b))}, nil
	case typeYear:
		return Value{Kind: Uint, Uint: yearOf(b)}, nil
	case typeBit:
		return Value{Kind: Uint, Uint: bigEndian(b)}, nil
	case typeEnum, typeSet:
		return Value{Kind: Uint, Uint: littleEndian(b)}, nil
	case typeFloat:
		return Value{Kind: Float, Float: floatOf(b)}, nil
	case typeDouble:
		return Value{Kind: Double, Float: floatOf(b)}, nil
	case typeNewDecimal:
		text, err := decimalText(b, int(c.Meta>>8), int(c.Meta&0xff))
		return Value{Kind: Number, Bytes: text}, err
	case typeDate, typeNewDate, typeTime, typeTime2, typeDatetime, typeDatetime2, typeTimestamp, typeTimestamp2:
		return Value{Kind: Time, Bytes: appendTemporal(nil, c, temporal(c, b))}, nil
	case typeJSON:
		text, err := jsonText(b)
		return Value{Kind: JSON, Bytes: text, Document: b}, err
	case typeGeometry, typeVector:
		return Value{Kind: Binary, Bytes: b}, nil
	case typeString, typeVarchar, typeVarString, typeBlob, typeVarcharCompressed, typeBlobCompressed:
		return decodeText(c, b)
	}
	return Value{}, fmt.Errorf("type %d cannot be decoded", c.Type)
}

func decodeText(c *change.Column, b []byte) (Value, error) {
	b, err := inflate(c.Type, b)
	if err != nil {
		return Value{}, err
	}
	if c.Collation != BinaryCollation {
		return Value{Kind: Text, Bytes: b}, nil
	}
	if n := charLength(c.Meta); c.Type == typeString && len(b) < n {
		b = append(slices.Clip(b), make([]byte, n-len(b))...) // the log leaves trailing zeros out
	}
	return Value{Kind: Binary, Bytes: b}, nil
}

func signed(v uint64, size int) int64 {
	shift := 64 - 8*size
	return int64(v<<shift) >> shift
}

func yearOf(b []byte) uint64 {
	if b[0] == 0 {
		return 0
	}
	return 1900 + uint64(b[0])
}

func floatOf(b []byte) float64 {
	if len(b) == 4 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

// decimalText prints a DECIMAL: groups of nine digits in four bytes, big-endian, all bits inverted when negative, the
// first bit inverted always. See decimal2bin in MySQL's strings/decimal.cc.
func decimalText(b []byte, precision, scale int) ([]byte, error) {
	if precision < 1 || scale > precision || len(b) != decimalSize(precision, scale) || len(b) == 0 {
		return nil, errCut
	}
	negative := b[0]&0x80 == 0
	bits := bytes.Clone(b)
	bits[0] ^= 0x80
	if negative {
		for i := range bits {
			bits[i] ^= 0xff
		}
	}
	r := reader{b: bits}
	digits := make([]byte, 0, precision+3)
	group := func(n int) { digits = fmt.Appendf(digits, "%0*d", n, bigEndian(r.take(digitBytes[n]))) }
	whole := precision - scale
	if whole%9 > 0 {
		group(whole % 9)
	}
	for range whole / 9 {
		group(9)
	}
	digits = bytes.TrimLeft(digits, "0")
	if len(digits) == 0 {
		digits = append(digits, '0')
	}
	if scale > 0 {
		digits = append(digits, '.')
		for range scale / 9 {
			group(9)
		}
		if scale%9 > 0 {
			group(scale % 9)
		}
	}
	if negative {
		digits = append([]byte{'-'}, digits...)
	}
	return digits, nil
}

// maxInflated bounds what a COMPRESSED value may claim to hold: the size of a LONGTEXT.
const maxInflated = 1 << 32

// inflate undoes MariaDB's COMPRESSED column attribute: a byte whose upper half is the method (8 for zlib, 0 for none),
// bit 3 says that there is no zlib header, and the lower three bits count the bytes of the original length that follow.
// See Field_longstr::uncompress in MariaDB's sql/field.cc.
func inflate(kind byte, b []byte) ([]byte, error) {
	if kind != typeVarcharCompressed && kind != typeBlobCompressed || len(b) == 0 {
		return b, nil
	}
	head := b[0]
	switch head >> 4 {
	case 0:
		return b[1:], nil
	case 8:
	default:
		return nil, fmt.Errorf("compression method %d is not known", head>>4)
	}
	r := reader{b: b[1:]}
	size := bigEndian(r.take(int(head & 7)))
	if r.bad || size >= maxInflated {
		return nil, errCut
	}
	var z io.Reader = flate.NewReader(bytes.NewReader(r.b))
	if head&8 == 0 {
		var err error
		if z, err = zlib.NewReader(bytes.NewReader(r.b)); err != nil {
			return nil, fmt.Errorf("inflate: %w", err)
		}
	}
	text, err := io.ReadAll(io.LimitReader(z, int64(size)+1))
	if err != nil {
		return nil, fmt.Errorf("inflate: %w", err)
	}
	if uint64(len(text)) != size {
		return nil, errors.New("inflate: the length is not the one announced")
	}
	return text, nil
}
