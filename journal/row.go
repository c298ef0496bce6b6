package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"replicator/change"
	"replicator/image"
)

// Omission stands for a value that was larger than the journal keeps.
type Omission struct {
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"` // hexadecimal
}

// storedRow is how a row stands in winner_row and loser_row: JSON that says by itself what its values are.
type storedRow struct {
	Restored   []string       `json:"restored,omitempty"` // of a losing row: the columns that have been put back
	Database   string         `json:"database"`
	Table      string         `json:"table"`
	PrimaryKey []storedPart   `json:"primary_key"`
	Columns    []storedColumn `json:"columns"`
	Values     []*storedValue `json:"values"` // one per column; null is NULL
}

type storedPart struct {
	Column int `json:"column"`
	Prefix int `json:"prefix,omitempty"`
}

// storedColumn is a change.Column. Labels that are no UTF-8 are all in base64.
type storedColumn struct {
	Name        string   `json:"name"`
	Type        byte     `json:"type"`
	Meta        uint16   `json:"meta,omitempty"`
	Unsigned    bool     `json:"unsigned,omitempty"`
	Nullable    bool     `json:"nullable,omitempty"`
	Collation   uint16   `json:"collation,omitempty"`
	Labels      []string `json:"labels,omitempty"`
	LabelsBytes [][]byte `json:"labels_base64,omitempty"`
}

// storedValue has one of its members set, named by the value's kind. Text in UTF-8 is text; other text is bytes in the
// column's own character set, with a reading of it beside for people.
type storedValue struct {
	Int      *int64    `json:"int,omitempty,string"`
	Uint     *uint64   `json:"uint,omitempty,string"`
	Float    *string   `json:"float,omitempty"`
	Double   *string   `json:"double,omitempty"`
	Number   *string   `json:"number,omitempty"`
	Time     *string   `json:"time,omitempty"`
	Text     *string   `json:"text,omitempty"`
	Encoded  *[]byte   `json:"text_base64,omitempty"`
	Reads    string    `json:"reads,omitempty"`
	Binary   *[]byte   `json:"base64,omitempty"`
	JSON     *string   `json:"json,omitempty"`
	Document []byte    `json:"document,omitempty"` // a JSON value in its binary form, where its text does not say all
	Omitted  *Omission `json:"omitted,omitempty"`
}

// encode makes the stored form of a row. Values of more than limit bytes are left out (0: none are); whole is false then.
func (r *Row) encode(limit int) (b []byte, whole bool, err error) {
	s := storedRow{Database: r.Table.Name.Database, Table: r.Table.Name.Table, PrimaryKey: []storedPart{}}
	for _, p := range r.Table.PrimaryKey {
		s.PrimaryKey = append(s.PrimaryKey, storedPart(p))
	}
	whole = true
	for i := range r.Table.Columns {
		c := &r.Table.Columns[i]
		s.Columns = append(s.Columns, storeColumn(c))
		v := storeValue(c, r.Values[i], limit)
		if o, ok := r.Omitted[i]; ok {
			v = &storedValue{Omitted: &o}
		}
		whole = whole && (v == nil || v.Omitted == nil)
		s.Values = append(s.Values, v)
	}
	b, err = json.Marshal(s)
	if err != nil {
		return nil, false, fmt.Errorf("bug: encode a row of %s: %w", r.Table.Name, err)
	}
	return b, whole, nil
}

func storeColumn(c *change.Column) storedColumn {
	s := storedColumn{Name: c.Name, Type: c.Type, Meta: c.Meta, Unsigned: c.Unsigned, Nullable: c.Nullable, Collation: c.Collation, Labels: c.Labels}
	for _, l := range c.Labels {
		if utf8.ValidString(l) {
			continue
		}
		s.Labels = nil
		for _, l := range c.Labels {
			s.LabelsBytes = append(s.LabelsBytes, []byte(l))
		}
		break
	}
	return s
}

func storeValue(c *change.Column, v image.Value, limit int) *storedValue {
	if limit > 0 && len(v.Bytes) > limit {
		sum := sha256.Sum256(v.Bytes)
		return &storedValue{Omitted: &Omission{Bytes: len(v.Bytes), SHA256: hex.EncodeToString(sum[:])}}
	}
	text := string(v.Bytes)
	switch v.Kind {
	case image.Null:
		return nil
	case image.Int:
		return &storedValue{Int: &v.Int}
	case image.Uint:
		return &storedValue{Uint: &v.Uint}
	case image.Float:
		text = strconv.FormatFloat(v.Float, 'g', -1, 64)
		return &storedValue{Float: &text}
	case image.Double:
		text = strconv.FormatFloat(v.Float, 'g', -1, 64)
		return &storedValue{Double: &text}
	case image.Number:
		return &storedValue{Number: &text}
	case image.Time:
		return &storedValue{Time: &text}
	case image.Text:
		return storeText(c, v.Bytes)
	case image.JSON:
		s := &storedValue{JSON: &text}
		if n, err := image.ParseJSON(v.Document); err == nil && v.Document != nil && !n.IsPlain() {
			s.Document = v.Document
		}
		return s
	case image.Binary:
	}
	return &storedValue{Binary: &v.Bytes}
}

func storeText(c *change.Column, b []byte) *storedValue {
	text, ok := image.UTF8(charset(c), b)
	if ok && text == string(b) {
		return &storedValue{Text: &text}
	}
	if !ok {
		text = ""
	}
	return &storedValue{Encoded: &b, Reads: text}
}

func charset(c *change.Column) string {
	collation, _ := image.CollationOf(c.Collation)
	return collation.Charset
}

// DecodeRow reads what winner_row or loser_row holds; nil is no row.
func DecodeRow(b []byte) (*Row, error) {
	if b == nil {
		return nil, nil
	}
	var s storedRow
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read a row of the journal: %w", err)
	}
	if len(s.Columns) != len(s.Values) {
		return nil, fmt.Errorf("read a row of the journal: %d values of %d columns", len(s.Values), len(s.Columns))
	}
	t := &change.Table{Name: change.TableName{Database: s.Database, Table: s.Table}}
	r := &Row{Table: t, Values: make([]image.Value, len(s.Values))}
	for _, p := range s.PrimaryKey {
		if p.Column < 0 || p.Column >= len(s.Columns) {
			return nil, fmt.Errorf("read a row of the journal: key column %d of %d", p.Column, len(s.Columns))
		}
		t.PrimaryKey = append(t.PrimaryKey, change.KeyPart(p))
	}
	for i, c := range s.Columns {
		column := change.Column{Name: c.Name, Type: c.Type, Meta: c.Meta, Unsigned: c.Unsigned, Nullable: c.Nullable, Collation: c.Collation, Labels: c.Labels}
		for _, l := range c.LabelsBytes {
			column.Labels = append(column.Labels, string(l))
		}
		t.Columns = append(t.Columns, column)
		v := s.Values[i]
		if v == nil {
			continue
		}
		if v.Omitted != nil {
			if r.Omitted == nil {
				r.Omitted = map[int]Omission{}
			}
			r.Omitted[i] = *v.Omitted
			continue
		}
		var err error
		if r.Values[i], err = v.value(); err != nil {
			return nil, fmt.Errorf("read a row of the journal: column %s: %w", c.Name, err)
		}
	}
	return r, nil
}

// addRestored notes in a stored row that columns have been put back, besides those of which it says so already.
func addRestored(stored []byte, columns []string) ([]byte, error) {
	var s storedRow
	if err := json.Unmarshal(stored, &s); err != nil {
		return nil, fmt.Errorf("read a row of the journal: %w", err)
	}
	s.Restored = union(s.Restored, columns)
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("bug: encode a row of the journal: %w", err)
	}
	return b, nil
}

func (s *storedValue) value() (image.Value, error) {
	switch {
	case s.Int != nil:
		return image.Value{Kind: image.Int, Int: *s.Int}, nil
	case s.Uint != nil:
		return image.Value{Kind: image.Uint, Uint: *s.Uint}, nil
	case s.Float != nil:
		f, err := strconv.ParseFloat(*s.Float, 64)
		return image.Value{Kind: image.Float, Float: f}, err
	case s.Double != nil:
		f, err := strconv.ParseFloat(*s.Double, 64)
		return image.Value{Kind: image.Double, Float: f}, err
	case s.Number != nil:
		return image.Value{Kind: image.Number, Bytes: []byte(*s.Number)}, nil
	case s.Time != nil:
		return image.Value{Kind: image.Time, Bytes: []byte(*s.Time)}, nil
	case s.Text != nil:
		return image.Value{Kind: image.Text, Bytes: []byte(*s.Text)}, nil
	case s.Encoded != nil:
		return image.Value{Kind: image.Text, Bytes: *s.Encoded}, nil
	case s.Binary != nil:
		return image.Value{Kind: image.Binary, Bytes: *s.Binary}, nil
	case s.JSON != nil:
		return image.Value{Kind: image.JSON, Bytes: []byte(*s.JSON), Document: s.Document}, nil
	}
	return image.Value{}, fmt.Errorf("a value of no known kind")
}

// Plain is a column's value as JSON shows it to people and programs: numbers of up to 32 bits and floating-point numbers
// as numbers, other numbers, dates and texts as strings, the labels of ENUM and SET, {"base64": …} for bytes and for text
// that cannot be read here, {"omitted": {bytes, sha256}} for what the journal did not keep, and nil for NULL.
func (r *Row) Plain(column int) any {
	c, v := &r.Table.Columns[column], r.Values[column]
	if o, ok := r.Omitted[column]; ok {
		return map[string]any{"omitted": o}
	}
	switch v.Kind {
	case image.Null:
		return nil
	case image.Int:
		if isWide(c) {
			return strconv.FormatInt(v.Int, 10)
		}
		return v.Int
	case image.Uint:
		if c.Labels == nil && !isWide(c) {
			return v.Uint
		}
	case image.Float:
		return json.Number(strconv.FormatFloat(v.Float, 'g', -1, 32))
	case image.Double:
		return json.Number(strconv.FormatFloat(v.Float, 'g', -1, 64))
	case image.Text:
		text, ok := image.UTF8(charset(c), v.Bytes)
		if !ok {
			return inBase64(v.Bytes)
		}
		return text
	case image.Binary:
		return inBase64(v.Bytes)
	case image.Number, image.Time, image.JSON:
	}
	return image.Print(c, v)
}

// Names are the columns' names; of no row (nil) there are none.
func (r *Row) Names() []string {
	if r == nil {
		return nil
	}
	names := make([]string, len(r.Table.Columns))
	for i := range r.Table.Columns {
		names[i] = r.Table.Columns[i].Name
	}
	return names
}

// Value is Plain of the named column; ok is false when there is none.
func (r *Row) Value(name string) (v any, ok bool) {
	at := r.column(name)
	if at < 0 {
		return nil, false
	}
	return r.Plain(at), true
}

func inBase64(b []byte) any { return map[string]string{"base64": base64.StdEncoding.EncodeToString(b)} }

// Key is the primary key as a JSON object, in key order.
func (r *Row) Key() ([]byte, error) {
	return r.object(func(add func(int)) {
		for _, p := range r.Table.PrimaryKey {
			add(p.Column)
		}
	})
}

// KeyText is the primary key as JSON, for people; "?" where it cannot be printed.
func (r *Row) KeyText() string {
	text, err := r.Key()
	if err != nil {
		return "?"
	}
	return string(text)
}

// MarshalJSON prints the row as an object of its columns, in their order, with Plain values.
func (r *Row) MarshalJSON() ([]byte, error) {
	return r.object(func(add func(int)) {
		for i := range r.Table.Columns {
			add(i)
		}
	})
}

func (r *Row) object(each func(add func(column int))) ([]byte, error) {
	b := []byte("{")
	var failed error
	each(func(column int) {
		name, err := plainJSON(r.Table.Columns[column].Name)
		if err == nil {
			var value []byte
			if value, err = plainJSON(r.Plain(column)); err == nil {
				if len(b) > 1 {
					b = append(b, ',')
				}
				b = append(append(append(b, name...), ':'), value...)
			}
		}
		if err != nil {
			failed = fmt.Errorf("bug: encode column %s: %w", r.Table.Columns[column].Name, err)
		}
	})
	return append(b, '}'), failed
}

// plainJSON encodes for people, who are not served HTML: < stays <.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}
