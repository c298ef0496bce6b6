package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// weightProbe finds out whether two servers weigh texts alike under their collations. Row keys of the mesh are made of
// weights: servers that disagree would take two rows for one, or one for two.
type weightProbe struct {
	from, to *Subject
	known    map[[2]string]error // by collation on from and on to
}

func newWeightProbe(from, to *Subject) *weightProbe {
	return &weightProbe{from: from, to: to, known: map[[2]string]error{}}
}

// compare returns nil when both collations give the same weights to every character of the probe.
func (p *weightProbe) compare(ctx context.Context, from, to Column) error {
	pair := [2]string{from.Collation, to.Collation}
	if err, asked := p.known[pair]; asked {
		return err
	}
	p.known[pair] = p.ask(ctx, from, to)
	return p.known[pair]
}

func (p *weightProbe) ask(ctx context.Context, from, to Column) error {
	a, err := weightHash(ctx, p.from.Server.DB(), from)
	if err != nil {
		return fmt.Errorf("on %s: %w", p.from.Name, err)
	}
	b, err := weightHash(ctx, p.to.Server.DB(), to)
	if err != nil {
		return fmt.Errorf("on %s: %w", p.to.Name, err)
	}
	if a != b {
		return errWeights
	}
	return nil
}

type weightError string

func (e weightError) Error() string { return string(e) }

const errWeights weightError = "they order or equate some texts differently"

// weightHash hashes the weights of one long text under a column's collation.
func weightHash(ctx context.Context, q Querier, c Column) (string, error) {
	text := fmt.Sprintf("CONVERT(_utf8mb4 X'%X' USING %s)", alphabet(), c.Charset)
	if isSingleByte(c.Charset) {
		text = fmt.Sprintf("_%s X'%X'", c.Charset, singleBytes(c.Charset))
	}
	var hash sql.NullString
	err := q.QueryRowContext(ctx, "SELECT SHA2(WEIGHT_STRING("+text+" COLLATE "+c.Collation+"), 256)").Scan(&hash)
	if err != nil {
		return "", err
	}
	if !hash.Valid {
		return "", weightError("the server gives no weights")
	}
	return hash.String, nil
}

// alphabet is every character of the basic plane, some of the next, and texts that end in spaces.
func alphabet() []byte {
	var b strings.Builder
	for r := rune(1); r < 0x10000; r++ {
		if r < 0xD800 || r > 0xDFFF {
			b.WriteRune(r)
		}
	}
	for r := rune(0x10000); r < 0x20000; r += 7 {
		b.WriteRune(r)
	}
	b.WriteString("ch lj ß ss ae ö a  ")
	return []byte(b.String())
}

func isSingleByte(charset string) bool {
	for _, prefix := range []string{
		"latin", "cp125", "cp85", "cp866", "koi8", "greek", "hebrew", "ascii", "armscii8",
		"dec8", "hp8", "swe7", "tis620", "mac", "geostd8", "keybcs2",
	} {
		if strings.HasPrefix(charset, prefix) {
			return true
		}
	}
	return false
}

func singleBytes(charset string) []byte {
	end := 256
	if charset == "ascii" {
		end = 128
	}
	var b []byte
	for i := 1; i < end; i++ {
		b = append(b, byte(i))
	}
	return b
}

// compareKeyWeights checks the string columns of primary and unique keys.
func compareKeyWeights(ctx context.Context, r *report, l link, source, target *Table) {
	alike := l.from.Info.Flavor == l.to.Info.Flavor && l.from.Info.Version == l.to.Info.Version
	for _, i := range slices.Sorted(maps.Keys(keyColumns(source))) {
		s, t := source.Columns[i], target.Columns[i]
		if s.Collation == "" || t.Collation == "" || s.Charset != t.Charset || alike && s.Collation == t.Collation {
			continue
		}
		err := l.weights.compare(ctx, s, t)
		switch refused := weightError(""); {
		case err == nil:
		case !errors.As(err, &refused) && Classify(err).Transient(): // the server went away meanwhile
			r.failed("column "+t.Name, err)
		default:
			r.tableFail("column "+t.Name, "give it a collation that both servers know alike, such as utf8mb4_unicode_ci or utf8mb4_bin",
				"is in a key, and its collations %s on %s and %s on %s cannot be used together: %v", s.Collation, l.from.Name,
				t.Collation, l.to.Name, err)
		}
	}
}

// keyColumns are the indexes of the columns in the primary or a unique key.
func keyColumns(t *Table) map[int]bool {
	in := map[int]bool{}
	for _, p := range t.PrimaryKey {
		in[p.Column] = true
	}
	for _, k := range t.UniqueKeys {
		for _, p := range k.Parts {
			in[p.Column] = true
		}
	}
	delete(in, -1)
	return in
}
