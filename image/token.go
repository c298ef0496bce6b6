package image

import (
	"hash/maphash"

	"replicator/change"
)

// Token stands for the values of some columns. Equal values have equal tokens as a rule: texts that only the server's
// collation takes for equal may not, and different values may have the same one. It is good for this process only.
type Token uint64

var tokenSeed = maphash.MakeSeed()

// Tokens makes tokens of some columns of one table's rows. It is not safe for concurrent use.
type Tokens struct {
	layout *layout
	name   string
	parts  []keyPart
	values [][]byte
	buf    []byte
}

// NewTokens makes tokens of the columns that parts name. Tokens of different names are different.
func NewTokens(t *change.Table, name string, parts []change.KeyPart) (*Tokens, error) {
	l, err := layoutOf(t)
	if err != nil {
		return nil, err
	}
	k := &Tokens{layout: l, name: name}
	last := 0
	for _, p := range parts {
		part, err := newKeyPart(t, p)
		if err != nil {
			return nil, err
		}
		k.parts = append(k.parts, part)
		last = max(last, p.Column)
	}
	k.values = make([][]byte, last+1)
	return k, nil
}

// Of returns the token of an image; ok is false when a column is NULL: such a row is equal to none.
func (k *Tokens) Of(img []byte) (token Token, ok bool, err error) {
	if err := k.layout.locate(img, k.values); err != nil {
		return 0, false, err
	}
	k.buf = append(k.buf[:0], k.name...)
	for i := range k.parts {
		p := &k.parts[i]
		v := k.values[p.column]
		if v == nil {
			return 0, false, nil
		}
		if !p.text {
			if k.buf, err = appendCanonical(k.buf, p.def, v); err != nil {
				return 0, false, err
			}
			continue
		}
		if v, err = p.canonicalText(v); err != nil {
			return 0, false, err
		}
		k.buf = appendFolded(k.buf, v)
	}
	return Token(maphash.Bytes(tokenSeed, k.buf)), true, nil
}

// appendFolded appends a text, length first, without the case of its ASCII letters.
func appendFolded(b, text []byte) []byte {
	b = appendSized(b, text)
	for i := len(b) - len(text); i < len(b); i++ {
		if 'A' <= b[i] && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return b
}
