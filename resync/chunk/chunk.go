// Package chunk walks the rows of one table on several servers in the order of its primary key, a piece at a time.
package chunk

import (
	"context"
	"database/sql"
	"fmt"
	"sync"

	"replicator/dml"
	"replicator/image"
)

// Site is the table on one server. All sites of a table read its rows in terms of the same source table.
type Site struct {
	Server string
	DB     Querier
	Plan   *dml.Plan
}

// Querier runs queries: a *sql.DB, *sql.Conn or *sql.Tx.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Range is the rows whose key is above that of After and not above that of UpTo: rows with one value per column, of which
// those of the key count. nil is open.
type Range struct{ After, UpTo []image.Value }

// Sum is what a server says of the rows in a range.
type Sum struct {
	Rows int64
	Hash uint64
	// Whole says that every row is in Hash.
	Whole bool
}

// Sum counts the rows of a range and adds their checksums up.
func (s *Site) Sum(ctx context.Context, r Range) (sum Sum, err error) {
	query, args, err := s.Plan.Checksum(r.After, r.UpTo)
	if err != nil {
		return sum, err
	}
	var summed int64
	if err := s.DB.QueryRowContext(ctx, query, args...).Scan(&sum.Rows, &summed, &sum.Hash); err != nil {
		return sum, fmt.Errorf("%s: compute checksums of %s: %w", s.Server, s.Plan.Target().Name, err)
	}
	sum.Whole = summed == sum.Rows
	return sum, nil
}

// Rows reads at most limit rows of a range, the first in the order of the key.
func (s *Site) Rows(ctx context.Context, r Range, limit int) ([][]image.Value, error) {
	q, err := s.Plan.SelectRange(r.After, r.UpTo, limit)
	if err != nil {
		return nil, err
	}
	return s.run(ctx, q)
}

func (s *Site) run(ctx context.Context, q *dml.Query) ([][]image.Value, error) {
	found, err := q.Run(ctx, s.DB)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Server, err)
	}
	rows := make([][]image.Value, len(found))
	for i := range found {
		rows[i] = found[i].Values
	}
	return rows, nil
}

// Walk cuts the table above a row (nil: all of it) into ranges of size rows each, as the first of the sites has it, and hands
// them out in order. The last one is open.
func Walk(ctx context.Context, s *Site, after []image.Value, size int, do func(Range) error) error {
	r := Range{After: after}
	for {
		var err error
		if r.UpTo, err = s.Bound(ctx, Range{After: r.After}, size); err != nil {
			return err
		}
		if err := do(r); err != nil || r.UpTo == nil {
			return err
		}
		r.After = r.UpTo
	}
}

// Bound finds the row that is so many rows above the beginning of a range and inside of it: nil where there are fewer. It has
// values for the key alone.
func (s *Site) Bound(ctx context.Context, r Range, rows int) ([]image.Value, error) {
	q, err := s.Plan.SelectBound(r.After, r.UpTo, rows)
	if err != nil {
		return nil, err
	}
	bound, err := s.run(ctx, q)
	if err != nil || len(bound) == 0 {
		return nil, err
	}
	return bound[0], nil
}

// Read hands out the rows of a range in order, in pieces of at most size rows on each site: rows[i] are those of sites[i].
// Which rows those are, each site says for itself and at a time of its own. end is the last row of a piece, or the end of the range.
func Read(ctx context.Context, sites []*Site, r Range, size int, do func(end []image.Value, rows [][][]image.Value) error) error {
	for {
		piece, rows, err := readPiece(ctx, sites, r, size)
		if err != nil {
			return err
		}
		if err := do(piece.UpTo, rows); err != nil {
			return err
		}
		if sameKey(piece.UpTo, r.UpTo) {
			return nil
		}
		r.After = piece.UpTo
	}
}

// readPiece reads the first rows of a range. A site with many of them ends the piece where its own part is full; those
// that were read before it may have gone further and read again.
func readPiece(ctx context.Context, sites []*Site, r Range, size int) (Range, [][][]image.Value, error) {
	rows, readTo := make([][][]image.Value, len(sites)), make([][]image.Value, len(sites))
	for again := true; again; {
		again = false
		for i, s := range sites {
			if rows[i] != nil && sameKey(readTo[i], r.UpTo) {
				continue
			}
			var err error
			if rows[i], err = s.Rows(ctx, r, size+1); err != nil {
				return r, nil, err
			}
			if len(rows[i]) > size {
				rows[i] = rows[i][:size]
				r.UpTo = rows[i][size-1]
				again = true
			}
			readTo[i] = r.UpTo
		}
	}
	return r, rows, nil
}

// sameKey reports whether two bounds are one and the same row.
func sameKey(a, b []image.Value) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// Each runs do for the numbers below n at once, and returns one of the errors.
func Each(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
