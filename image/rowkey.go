package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"replicator/change"
)

// RowKey computes the key of a row that was read from a server, not from a binlog: values holds one value per column of
// t. It is the Key that Keys gives the row's images.
func (k *Keyer) RowKey(ctx context.Context, t *change.Table, values []Value) (change.Key, error) {
	l := newKeyLayout(t)
	if l.err != nil {
		return change.Key{}, l.err
	}
	b := l.seed
	for i := range l.parts {
		p := &l.parts[i]
		v := &values[p.column]
		if v.Kind == Null {
			return change.Key{}, fmt.Errorf("key column %s of table %s is NULL", p.def.Name, t.Name)
		}
		var err error
		if p.text {
			b, err = k.appendText(ctx, b, p, v.Bytes)
		} else {
			b, err = appendCanonicalValue(b, p.def, v)
		}
		if err != nil {
			return change.Key{}, fmt.Errorf("compute a key of table %s: column %s: %w", t.Name, p.def.Name, err)
		}
	}
	return keyOf(b), nil
}

func (k *Keyer) appendText(ctx context.Context, b []byte, p *keyPart, v []byte) ([]byte, error) {
	plain := *p.def // values are inflated already
	switch plain.Type {
	case typeVarcharCompressed:
		plain.Type = typeVarchar
	case typeBlobCompressed:
		plain.Type = typeBlob
	}
	part := *p
	part.def = &plain
	v, err := part.canonicalText(v)
	if err != nil || !p.weighed {
		return appendSized(b, v), err
	}
	key := weightKey{p.def.Collation, string(v)}
	k.mu.Lock()
	weight, ok := k.cache.get(key)
	k.mu.Unlock()
	if !ok {
		weights, err := k.weigher.Weights(ctx, p.def.Collation, [][]byte{v})
		if err != nil {
			return nil, err
		}
		if len(weights) != 1 {
			return nil, fmt.Errorf("bug: %d weights for one value", len(weights))
		}
		weight = weights[0]
		k.mu.Lock()
		k.cache.put(key, weight)
		k.mu.Unlock()
	}
	return appendSized(b, weight), nil
}

// appendCanonicalValue is appendCanonical of a decoded value.
func appendCanonicalValue(b []byte, c *change.Column, v *Value) ([]byte, error) {
	var bits uint64
	switch v.Kind {
	case Number:
		return appendSized(b, canonicalDecimal(v.Bytes)), nil
	case Int:
		bits = uint64(v.Int)
	case Uint:
		bits = v.Uint
	case Float, Double:
		if v.Float != 0 {
			bits = math.Float64bits(v.Float)
		}
	case Time:
		n, err := parseTemporal(c, string(v.Bytes))
		if err != nil {
			return nil, err
		}
		bits = uint64(n)
	default:
		return nil, fmt.Errorf("a value of kind %d cannot be part of a key", v.Kind)
	}
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), bits), nil
}

// parseTemporal reads what appendTemporal prints.
func parseTemporal(c *change.Column, text string) (int64, error) {
	date, clock := "", text
	switch c.Type {
	case typeDate, typeNewDate:
		date, clock = text, "00:00:00"
	case typeDatetime, typeDatetime2, typeTimestamp, typeTimestamp2:
		var ok bool
		if date, clock, ok = strings.Cut(text, " "); !ok {
			return 0, fmt.Errorf("%q is no date and time", text)
		}
	}
	hours, minutes, seconds, micros, negative, err := parseClock(clock)
	if err != nil {
		return 0, err
	}
	if date == "" {
		v := (hours*3600+minutes*60+seconds)*second + micros
		if negative {
			v = -v
		}
		return v, nil
	}
	var year, month, day int64
	if _, err := fmt.Sscanf(date, "%d-%d-%d", &year, &month, &day); err != nil {
		return 0, fmt.Errorf("%q is no date: %w", date, err)
	}
	if c.Type != typeTimestamp && c.Type != typeTimestamp2 {
		return packDatetime(year, month, day, hours, minutes, seconds, micros), nil
	}
	if year == 0 { // the zero value
		return 0, nil
	}
	at := time.Date(int(year), time.Month(month), int(day), int(hours), int(minutes), int(seconds), 0, time.UTC)
	return at.Unix()*second + micros, nil
}

func parseClock(text string) (hours, minutes, seconds, micros int64, negative bool, err error) {
	whole, part, _ := strings.Cut(text, ".")
	if whole, negative = strings.CutPrefix(whole, "-"); whole == "" {
		return 0, 0, 0, 0, false, fmt.Errorf("%q is no time", text)
	}
	if _, err = fmt.Sscanf(whole, "%d:%d:%d", &hours, &minutes, &seconds); err != nil {
		return 0, 0, 0, 0, false, fmt.Errorf("%q is no time: %w", text, err)
	}
	if part != "" {
		if micros, err = strconv.ParseInt((part + "000000")[:6], 10, 64); err != nil {
			return 0, 0, 0, 0, false, fmt.Errorf("%q is no time: %w", text, err)
		}
	}
	return hours, minutes, seconds, micros, negative, nil
}

// encodedKey is what EncodeKey writes: JSON, in which bytes are base64.
type encodedKey struct {
	Columns []encodedColumn `json:"columns"` // in key order
}

type encodedColumn struct {
	Name      []byte   `json:"name"`
	Type      byte     `json:"type"`
	Meta      uint16   `json:"meta,omitempty"`
	Unsigned  bool     `json:"unsigned,omitempty"`
	Collation uint16   `json:"collation,omitempty"`
	Labels    [][]byte `json:"labels,omitempty"`
	Prefix    int      `json:"prefix,omitempty"`
	Value     Value    `json:"value"`
}

// EncodeKey writes the primary key of a row with its definition, so that any server can name the row.
func EncodeKey(t *change.Table, values []Value) ([]byte, error) {
	var key encodedKey
	for _, part := range t.PrimaryKey {
		c := &t.Columns[part.Column]
		e := encodedColumn{
			Name: []byte(c.Name), Type: c.Type, Meta: c.Meta, Unsigned: c.Unsigned, Collation: c.Collation,
			Prefix: part.Prefix, Value: values[part.Column],
		}
		for _, l := range c.Labels {
			e.Labels = append(e.Labels, []byte(l))
		}
		key.Columns = append(key.Columns, e)
	}
	b, err := json.Marshal(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key of table %s: %w", t.Name, err)
	}
	return b, nil
}

// DecodeKey reads what EncodeKey wrote: a definition that has nothing but the key's columns, and their values.
func DecodeKey(name change.TableName, b []byte) (*change.Table, []Value, error) {
	var key encodedKey
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&key); err != nil {
		return nil, nil, fmt.Errorf("decode a key of table %s: %w", name, err)
	}
	t := &change.Table{Name: name}
	var values []Value
	for i, e := range key.Columns {
		c := change.Column{Name: string(e.Name), Type: e.Type, Meta: e.Meta, Unsigned: e.Unsigned, Collation: e.Collation}
		for _, l := range e.Labels {
			c.Labels = append(c.Labels, string(l))
		}
		t.Columns = append(t.Columns, c)
		t.PrimaryKey = append(t.PrimaryKey, change.KeyPart{Column: i, Prefix: e.Prefix})
		values = append(values, e.Value)
	}
	if len(values) == 0 {
		return nil, nil, fmt.Errorf("decode a key of table %s: it has no columns", name)
	}
	return t, values, nil
}
