package image

import (
	"fmt"
	"runtime"
	"sync"
	"weak"

	"replicator/change"
	"replicator/fault"
)

// width says how many bytes a column's value takes in an image: fixed bytes, or, with prefix > 0, a little-endian length
// of prefix bytes and as many bytes as it says.
type width struct {
	fixed  uint32
	prefix uint8
}

// step skips fixed bytes, then a value with a length of prefix bytes (0: nothing more).
type step struct {
	fixed  uint32
	prefix uint8
}

// layout is what measuring and keying need to know of a table, worked out once.
type layout struct {
	nulls    int  // bytes of the null bitmap
	lastMask byte // the bits of its last byte that belong to columns; the others are set at random
	widths   []width
	steps    []step // of a row without NULLs
	key      *keyLayout
	keyed    *keyed // nil: an image cannot be reduced to the key
}

// layouts holds one layout per table that was not parsed here, for as long as the table is in use.
var layouts sync.Map // weak.Pointer[change.Table] → *layout

func layoutOf(t *change.Table) (*layout, error) {
	if l, ok := t.Layout.(*layout); ok {
		return l, nil
	}
	ref := weak.Make(t)
	if l, ok := layouts.Load(ref); ok {
		return l.(*layout), nil
	}
	l, err := newLayout(t)
	if err != nil {
		return nil, err
	}
	if _, loaded := layouts.LoadOrStore(ref, l); !loaded {
		runtime.AddCleanup(t, func(ref weak.Pointer[change.Table]) { layouts.Delete(ref) }, ref)
	}
	return l, nil
}

func newLayout(t *change.Table) (*layout, error) {
	n := len(t.Columns)
	l := &layout{nulls: (n + 7) / 8, lastMask: 0xff, widths: make([]width, n)}
	if n%8 != 0 {
		l.lastMask = 1<<(n%8) - 1
	}
	var gathered uint32
	for i := range t.Columns {
		w, err := columnWidth(&t.Columns[i])
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", t.Name, err)
		}
		l.widths[i] = w
		gathered += w.fixed
		if w.prefix > 0 {
			l.steps = append(l.steps, step{gathered, w.prefix})
			gathered = 0
		}
	}
	if gathered > 0 {
		l.steps = append(l.steps, step{fixed: gathered})
	}
	l.key = newKeyLayout(t)
	l.keyed = newKeyed(t)
	return l, nil
}

// fractionBytes is the size of a fraction of fsp digits.
func fractionBytes(fsp uint16) uint32 { return uint32(fsp+1) / 2 }

// decimalBytes is the size of a number of that many decimal digits inside a DECIMAL: nine digits take four bytes.
var digitBytes = [10]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}

func decimalSize(precision, scale int) int {
	whole := precision - scale
	return whole/9*4 + digitBytes[whole%9] + scale/9*4 + digitBytes[scale%9]
}

// charLength is the length in bytes that a CHAR or BINARY column can have. Lengths above 255 hide two bits in the type
// byte: see Field_string::do_save_field_metadata.
func charLength(meta uint16) int {
	high, low := meta>>8, meta&0xff
	return int((high&0x30^0x30)<<4 | low)
}

func columnWidth(c *change.Column) (width, error) {
	bad := func() (width, error) {
		return width{}, fault.New(fault.Definition, "leave the table out of the replicated tables, or change the column's type",
			"column %s has type %d with metadata %d, which this version cannot measure", c.Name, c.Type, c.Meta)
	}
	switch c.Type {
	case typeNull:
		return width{}, nil
	case typeTiny, typeYear:
		return width{fixed: 1}, nil
	case typeShort:
		return width{fixed: 2}, nil
	case typeInt24, typeDate, typeNewDate, typeTime:
		return width{fixed: 3}, nil
	case typeLong, typeFloat, typeTimestamp:
		return width{fixed: 4}, nil
	case typeDouble, typeLongLong, typeDatetime:
		return width{fixed: 8}, nil
	case typeTimestamp2, typeDatetime2, typeTime2:
		if c.Meta > 6 {
			return bad()
		}
		whole := map[byte]uint32{typeTimestamp2: 4, typeDatetime2: 5, typeTime2: 3}[c.Type]
		return width{fixed: whole + fractionBytes(c.Meta)}, nil
	case typeNewDecimal:
		precision, scale := int(c.Meta>>8), int(c.Meta&0xff)
		if precision == 0 || precision > 65 || scale > precision {
			return bad()
		}
		return width{fixed: uint32(decimalSize(precision, scale))}, nil
	case typeBit:
		bits := int(c.Meta>>8)*8 + int(c.Meta&0xff)
		if bits == 0 || bits > 64 {
			return bad()
		}
		return width{fixed: uint32(bits+7) / 8}, nil
	case typeEnum, typeSet:
		n := c.Meta & 0xff
		if n == 0 || n > 8 || (c.Type == typeEnum && n > 2) {
			return bad()
		}
		return width{fixed: uint32(n)}, nil
	case typeString:
		return lengthPrefix(charLength(c.Meta)), nil
	case typeVarchar, typeVarString, typeVarcharCompressed:
		return lengthPrefix(int(c.Meta)), nil
	case typeBlob, typeBlobCompressed, typeGeometry, typeVector, typeJSON:
		if c.Meta == 0 || c.Meta > 4 {
			return bad()
		}
		return width{prefix: uint8(c.Meta)}, nil
	}
	return bad()
}

func lengthPrefix(longest int) width {
	if longest < 256 {
		return width{prefix: 1}
	}
	return width{prefix: 2}
}

// measure returns the size of the image at the start of b, or -1 when it is cut short.
func (l *layout) measure(b []byte) int {
	if len(b) < l.nulls {
		return -1
	}
	if l.hasNull(b) {
		return l.measureWithNulls(b)
	}
	pos := l.nulls
	for _, s := range l.steps {
		pos += int(s.fixed)
		if s.prefix > 0 {
			size := valueSize(b, pos, s.prefix)
			if size < 0 {
				return -1
			}
			pos += size
		}
	}
	if pos > len(b) {
		return -1
	}
	return pos
}

func (l *layout) hasNull(b []byte) bool {
	last := l.nulls - 1
	any := b[last] & l.lastMask
	for _, v := range b[:last] {
		any |= v
	}
	return any != 0
}

func (l *layout) measureWithNulls(b []byte) int {
	pos := l.nulls
	for i, w := range l.widths {
		if b[i>>3]>>(i&7)&1 == 1 {
			continue
		}
		pos += int(w.fixed)
		if w.prefix > 0 {
			size := valueSize(b, pos, w.prefix)
			if size < 0 {
				return -1
			}
			pos += size
		}
	}
	if pos > len(b) {
		return -1
	}
	return pos
}

// valueSize is the size of a value at pos with its length of prefix bytes, -1 when the length is not all there.
func valueSize(b []byte, pos int, prefix uint8) int {
	if pos+int(prefix) > len(b) {
		return -1
	}
	switch prefix {
	case 1:
		return 1 + int(b[pos])
	case 2:
		return 2 + int(b[pos]) + int(b[pos+1])<<8
	}
	return int(prefix) + int(littleEndian(b[pos:pos+int(prefix)]))
}

// walk calls f with every column and its bytes, without the length; value is nil for NULL. The image must be whole.
func (l *layout) walk(img []byte, f func(column int, value []byte) error) error {
	if len(img) < l.nulls {
		return errCut
	}
	pos := l.nulls
	for i, w := range l.widths {
		if img[i>>3]>>(i&7)&1 == 1 {
			if err := f(i, nil); err != nil {
				return err
			}
			continue
		}
		start, end := pos, pos+int(w.fixed)
		if w.prefix > 0 {
			size := valueSize(img, pos, w.prefix)
			if size < 0 {
				return errCut
			}
			start, end = pos+int(w.prefix), pos+size
		}
		if end > len(img) {
			return errCut
		}
		if err := f(i, img[start:end:end]); err != nil {
			return err
		}
		pos = end
	}
	if pos != len(img) {
		return fmt.Errorf("image has %d bytes too many", len(img)-pos)
	}
	return nil
}
