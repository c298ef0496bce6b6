package server

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"replicator/change"
	"replicator/fault"
	"replicator/image"
)

// Weigher computes sort weights on a server: image.Weigher. It is safe for concurrent use.
type Weigher struct {
	q      Querier
	flavor change.Flavor
	mu     sync.Mutex
	names  map[uint16]string // of collations, by number
}

// NewWeigher makes a Weigher that asks the server behind q.
func NewWeigher(q Querier, flavor change.Flavor) *Weigher {
	return &Weigher{q: q, flavor: flavor, names: map[uint16]string{}}
}

// A statement asks for so many weights, and holds about so many bytes of text, at most.
const (
	weightsPerStatement = 200
	weightBytes         = 1 << 20
)

// Weights implements image.Weigher. A collation that the server does not have is a fault of class Definition.
func (w *Weigher) Weights(ctx context.Context, collation uint16, values [][]byte) ([][]byte, error) {
	c, known := image.CollationOf(collation)
	if !known {
		return nil, fault.New(fault.Definition, "give the key column another collation",
			"collation number %d is not known to this version", collation)
	}
	name, err := w.name(ctx, collation)
	if err != nil {
		return nil, err
	}
	weights := make([][]byte, 0, len(values))
	for len(values) > 0 {
		query := []byte("SELECT ")
		n := 0
		for n < len(values) && n < weightsPerStatement && (n == 0 || len(query)+2*len(values[n]) < weightBytes) {
			if n > 0 {
				query = append(query, ',')
			}
			query = fmt.Appendf(query, "WEIGHT_STRING(_%s X'%s' COLLATE %s)", c.Charset, hex.EncodeToString(values[n]), name)
			n++
		}
		row, err := w.row(ctx, string(query), n)
		if err != nil {
			return nil, err
		}
		weights = append(weights, row...)
		values = values[n:]
	}
	return weights, nil
}

func (w *Weigher) row(ctx context.Context, query string, n int) ([][]byte, error) {
	row := make([][]byte, n)
	into := make([]any, n)
	for i := range row {
		into[i] = &row[i]
	}
	if err := w.q.QueryRowContext(ctx, query).Scan(into...); err != nil {
		return nil, fmt.Errorf("ask for sort weights: %w", err)
	}
	for _, weight := range row {
		if weight == nil { // two texts without a weight must not pass for equal
			return nil, fault.New(fault.Row, "make the key value valid in its character set",
				"the server gives no sort weight for a key value")
		}
	}
	return row, nil
}

// name asks for a collation's name. MariaDB lists some collations once for several character sets, and their numbers and
// full names elsewhere.
func (w *Weigher) name(ctx context.Context, collation uint16) (string, error) {
	w.mu.Lock()
	name, ok := w.names[collation]
	w.mu.Unlock()
	if ok {
		return name, nil
	}
	query := "SELECT COLLATION_NAME FROM information_schema.COLLATIONS WHERE ID = %d"
	if w.flavor == change.MariaDB {
		query = "SELECT FULL_COLLATION_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY WHERE ID = %d LIMIT 1"
	}
	err := w.q.QueryRowContext(ctx, fmt.Sprintf(query, collation)).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fault.New(fault.Definition, "give the key column a collation that every server has",
			"the server has no collation number %d", collation)
	}
	if err != nil {
		return "", fmt.Errorf("ask for collation number %d: %w", collation, err)
	}
	w.mu.Lock()
	w.names[collation] = name
	w.mu.Unlock()
	return name, nil
}
