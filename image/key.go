package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"replicator/change"
	"replicator/fault"
)

// Weigher gives sort weights as a server computes them (WEIGHT_STRING): texts are equal under the collation exactly when
// their weights are. Values are in the collation's character set, trailing spaces cut off where the collation pads; the
// weights come in the order of the values.
type Weigher interface {
	Weights(ctx context.Context, collation uint16, values [][]byte) ([][]byte, error)
}

// cachedWeights bounds the weights that a Keyer remembers.
const cachedWeights = 1 << 16

// Keyer computes row keys. It is safe for concurrent use.
type Keyer struct {
	weigher Weigher
	work    sync.Pool // of *keyWork
	mu      sync.Mutex
	cache   *lru
}

// NewKeyer makes a Keyer that asks w for the weights of texts whose bytes do not decide equality.
func NewKeyer(w Weigher) *Keyer {
	return &Keyer{weigher: w, cache: newLRU(cachedWeights), work: sync.Pool{New: func() any { return &keyWork{} }}}
}

// keyLayout says how a table's keys are made.
type keyLayout struct {
	seed  []byte // database and table, length-prefixed
	parts []keyPart
	last  int   // the greatest column index of all parts
	err   error // why rows of this table have no key
}

type keyPart struct {
	column  int
	def     *change.Column
	prefix  int
	text    bool
	charset Collation // of texts
	weighed bool
}

func newKeyLayout(t *change.Table) *keyLayout {
	k := &keyLayout{}
	k.seed = appendSized(appendSized(nil, []byte(t.Name.Database)), []byte(t.Name.Table))
	if len(t.PrimaryKey) == 0 {
		k.err = fault.New(fault.Precondition, "give the table a primary key on every server, or leave it out of the "+
			"replicated tables", "table %s has no primary key", t.Name)
	}
	for _, p := range t.PrimaryKey {
		part, err := newKeyPart(t, p)
		if err != nil {
			k.err = err
		}
		k.parts = append(k.parts, part)
		k.last = max(k.last, p.Column)
	}
	return k
}

func newKeyPart(t *change.Table, p change.KeyPart) (keyPart, error) {
	c := t.Columns[p.Column] // a copy: a layout must not keep its table alive
	part := keyPart{column: p.Column, def: &c, prefix: p.Prefix, text: isText(c.Type)}
	if part.text {
		var known bool
		if part.charset, known = CollationOf(c.Collation); !known {
			return part, fault.New(fault.Definition, "give the column another collation, or leave the table out of the "+
				"replicated tables", "key column %s of table %s has collation number %d, which this version does not know",
				c.Name, t.Name, c.Collation)
		}
		part.weighed = !part.charset.Binary
	} else if !hasCanonical(c.Type) {
		return part, fault.New(fault.Definition, "leave the table out of the replicated tables",
			"key column %s of table %s has type %d, which cannot be part of a key", c.Name, t.Name, c.Type)
	}
	return part, nil
}

func appendSized(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

// Keys fills in Key and NewKey of all rows. It asks the Weigher at most once per collation; its error comes back wrapped.
func (k *Keyer) Keys(ctx context.Context, ev *change.RowsEvent) error {
	l, err := layoutOf(ev.Table)
	if err != nil {
		return err
	}
	if l.key.err != nil {
		return l.key.err
	}
	w := k.work.Get().(*keyWork)
	defer k.work.Put(w)
	w.begin(l)
	defer w.end()
	for _, p := range l.key.parts {
		if p.weighed {
			w.weights = map[weightKey][]byte{}
			if err := k.weigh(ctx, ev, w); err != nil {
				return fmt.Errorf("weigh keys of table %s: %w", ev.Table.Name, err)
			}
			break
		}
	}
	for i := range ev.Rows {
		r := &ev.Rows[i]
		if err := w.row(ev, r); err != nil {
			return fmt.Errorf("compute a key of table %s: %w", ev.Table.Name, err)
		}
	}
	return nil
}

type weightKey struct {
	collation uint16
	text      string
}

// keyWork is what one call of Keys works with. Its memory is used again: most calls are for one row.
type keyWork struct {
	layout  *layout
	values  [][]byte // the columns of the image at hand, by index, up to the last of the key
	buf     []byte   // canonical form of the first image's key
	other   []byte   // and of the second's
	weights map[weightKey][]byte
}

func (w *keyWork) begin(l *layout) {
	w.layout = l
	w.values = slices.Grow(w.values[:0], l.key.last+1)[:l.key.last+1]
}

// end lets go of the event.
func (w *keyWork) end() {
	clear(w.values)
	w.layout, w.weights = nil, nil
}

func (w *keyWork) row(ev *change.RowsEvent, r *change.Row) error {
	first := ev.Before(*r)
	if first == nil {
		first = ev.After(*r)
	}
	var err error
	if w.buf, err = w.appendKey(w.buf[:0], first); err != nil {
		return err
	}
	r.Key = keyOf(w.buf)
	r.NewKey = r.Key
	if r.Before.Length == 0 || r.After.Length == 0 {
		return nil
	}
	if w.other, err = w.appendKey(w.other[:0], ev.After(*r)); err != nil {
		return err
	}
	if !bytes.Equal(w.buf, w.other) { // most updates leave the key alone
		r.NewKey = keyOf(w.other)
	}
	return nil
}

func keyOf(canonical []byte) change.Key {
	sum := sha256.Sum256(canonical)
	return change.Key(sum[:len(change.Key{})])
}

// locate finds the key columns of an image.
func (w *keyWork) locate(img []byte) error {
	return w.layout.locate(img, w.values)
}

// locate finds the first columns of an image, as many as values has room for; that of NULL is nil.
func (l *layout) locate(img []byte, values [][]byte) error {
	if len(img) < l.nulls {
		return errCut
	}
	pos := l.nulls
	for i, size := range l.widths[:len(values)] {
		values[i] = nil
		if img[i>>3]>>(i&7)&1 == 1 {
			continue
		}
		start, end := pos, pos+int(size.fixed)
		if size.prefix > 0 {
			n := valueSize(img, pos, size.prefix)
			if n < 0 {
				return errCut
			}
			start, end = pos+int(size.prefix), pos+n
		}
		if end > len(img) {
			return errCut
		}
		values[i], pos = img[start:end:end], end
	}
	return nil
}

// appendKey appends the canonical form of an image's key: what is hashed.
func (w *keyWork) appendKey(b, img []byte) ([]byte, error) {
	if err := w.locate(img); err != nil {
		return b, err
	}
	b = append(b, w.layout.key.seed...)
	for i := range w.layout.key.parts {
		p := &w.layout.key.parts[i]
		v := w.values[p.column]
		if v == nil {
			return b, fmt.Errorf("key column %s is NULL", p.def.Name)
		}
		var err error
		if p.text {
			if v, err = p.canonicalText(v); err != nil {
				return b, err
			}
			if p.weighed {
				v = w.weights[weightKey{p.def.Collation, string(v)}]
			}
			b = appendSized(b, v)
			continue
		}
		if b, err = appendCanonical(b, p.def, v); err != nil {
			return b, fmt.Errorf("key column %s: %w", p.def.Name, err)
		}
	}
	return b, nil
}

// canonicalText is what of a text counts: inflated, cut to the key's prefix, without padding.
func (p *keyPart) canonicalText(v []byte) ([]byte, error) {
	v, err := inflate(p.def.Type, v)
	if err != nil {
		return nil, err
	}
	if p.prefix > 0 {
		v = prefix(p.charset.Charset, v, p.prefix)
	}
	switch {
	case p.charset.PadSpace:
		v = trimSpaces(p.charset.Charset, v)
	case p.def.Type == typeString && p.def.Collation == BinaryCollation:
		v = bytes.TrimRight(v, "\x00")
	}
	return v, nil
}

// weigh finds the weights of all texts of the event's keys: in the cache, and the rest from the Weigher.
func (k *Keyer) weigh(ctx context.Context, ev *change.RowsEvent, w *keyWork) error {
	missing := map[uint16][][]byte{}
	for _, r := range ev.Rows {
		for _, img := range [][]byte{ev.Before(r), ev.After(r)} {
			if img == nil {
				continue
			}
			if err := k.collect(img, w, missing); err != nil {
				return err
			}
		}
	}
	for collation, values := range missing {
		weights, err := k.weigher.Weights(ctx, collation, values)
		if err != nil {
			return err
		}
		if len(weights) != len(values) {
			return fmt.Errorf("bug: %d weights for %d values", len(weights), len(values))
		}
		k.mu.Lock()
		for i, v := range values {
			key := weightKey{collation, string(v)}
			w.weights[key] = weights[i]
			k.cache.put(key, weights[i])
		}
		k.mu.Unlock()
	}
	return nil
}

// collect puts the weights of one image's texts into w.weights, or the texts into missing.
func (k *Keyer) collect(img []byte, w *keyWork, missing map[uint16][][]byte) error {
	if err := w.locate(img); err != nil {
		return err
	}
	for i := range w.layout.key.parts {
		p := &w.layout.key.parts[i]
		if !p.weighed || w.values[p.column] == nil {
			continue
		}
		v, err := p.canonicalText(w.values[p.column])
		if err != nil {
			return err
		}
		key := weightKey{p.def.Collation, string(v)}
		if _, seen := w.weights[key]; seen {
			continue
		}
		k.mu.Lock()
		weight, ok := k.cache.get(key)
		k.mu.Unlock()
		if !ok {
			missing[p.def.Collation] = append(missing[p.def.Collation], v)
		}
		w.weights[key] = weight // nil until the Weigher has answered
	}
	return nil
}

// hasCanonical reports whether appendCanonical knows the type.
func hasCanonical(kind byte) bool {
	switch kind {
	case typeTiny, typeShort, typeInt24, typeLong, typeLongLong, typeYear, typeFloat, typeDouble, typeNewDecimal,
		typeDate, typeNewDate, typeTime, typeTime2, typeDatetime, typeDatetime2, typeTimestamp, typeTimestamp2,
		typeBit, typeEnum, typeSet:
		return true
	}
	return false
}

// appendCanonical appends a value other than text, length first, in a form that is the same for equal values whatever the
// width or the number of fractional digits of their column.
func appendCanonical(b []byte, c *change.Column, v []byte) ([]byte, error) {
	if c.Type == typeNewDecimal {
		text, err := decimalText(v, int(c.Meta>>8), int(c.Meta&0xff))
		if err != nil {
			return nil, err
		}
		return appendSized(b, canonicalDecimal(text)), nil
	}
	var bits uint64
	switch c.Type {
	case typeFloat, typeDouble:
		if f := floatOf(v); f != 0 { // negative zero equals zero
			bits = math.Float64bits(f)
		}
	case typeTiny, typeShort, typeInt24, typeLong, typeLongLong:
		bits = littleEndian(v)
		if !c.Unsigned {
			bits = uint64(signed(bits, len(v)))
		}
	case typeBit:
		bits = bigEndian(v)
	case typeEnum, typeSet:
		bits = littleEndian(v)
	case typeYear:
		bits = yearOf(v)
	default:
		bits = uint64(temporal(c, v))
	}
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), bits), nil
}

// canonicalDecimal cuts zeros that do not count off a decimal text.
func canonicalDecimal(text []byte) []byte {
	if bytes.IndexByte(text, '.') >= 0 {
		text = bytes.TrimRight(bytes.TrimRight(text, "0"), ".")
	}
	if string(text) == "-0" || len(text) == 0 {
		return []byte("0")
	}
	return text
}
