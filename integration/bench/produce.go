package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// oltp produces transactions with one of sysbench's scripts; more options take the place of the usual ones.
func oltp(script string, transactions int, more ...string) func(ctx context.Context, f *field) error {
	return func(ctx context.Context, f *field) error {
		return f.sysbench(ctx, f.source, script, "run", append([]string{"--threads=8", "--time=0", "--events=" + strconv.Itoa(transactions)}, more...)...)
	}
}

const (
	// clients write at the same time.
	clients = 8
	// hotRows are all that the transactions of hot write to.
	hotRows = 4
	// postings belong to each entry.
	postings = 3
	// wideRows are what each transaction of wide changes.
	wideRows = 1000
)

// appendTables are only ever added to: an entry and its postings, as in a ledger or an order with its lines.
var appendTables = []string{
	"CREATE TABLE " + database + ".entry (id BIGINT NOT NULL PRIMARY KEY, made TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), note VARCHAR(100) NOT NULL)",
	"CREATE TABLE " + database + ".posting (entry BIGINT NOT NULL, line INT NOT NULL, account INT NOT NULL, amount DECIMAL(12,2) NOT NULL, " +
		"PRIMARY KEY (entry, line), KEY (account))",
}

// appending produces transactions that only insert: an entry, and one statement for each of its postings.
func appending(transactions int) func(ctx context.Context, f *field) error {
	return func(ctx context.Context, f *field) error {
		first := f.appended + 1
		f.appended += transactions
		g, ctx := errgroup.WithContext(ctx)
		for c := range clients {
			g.Go(func() error {
				for id := first + c; id <= f.appended; id += clients {
					if _, err := f.source.DB().ExecContext(ctx, appendEntry(id)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return g.Wait()
	}
}

// appendEntry is the transaction of one entry.
func appendEntry(id int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "BEGIN; INSERT INTO %s.entry (id, note) VALUES (%d, 'entry number %d of those that nobody changes');", database, id, id)
	for line := range postings {
		fmt.Fprintf(&b, "INSERT INTO %s.posting VALUES (%d, %d, %d, %d.50);", database, id, line, (7919*id+line)%10_000, id%1000)
	}
	b.WriteString("COMMIT")
	return b.String()
}

// wide produces transactions that change many rows each, as jobs do that work through a table in portions.
func wide(transactions int) func(ctx context.Context, f *field) error {
	return func(ctx context.Context, f *field) error {
		portions := max(1, f.options.rows/wideRows)
		for i := range transactions {
			from := i / tables % portions * wideRows
			_, err := f.source.DB().ExecContext(ctx, fmt.Sprintf("UPDATE %s.sbtest%d SET c = REVERSE(c), pad = REVERSE(pad) WHERE id BETWEEN %d AND %d",
				database, i%tables+1, from+1, from+wideRows))
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// largeTransaction inserts rows in one statement.
func largeTransaction(ctx context.Context, f *field) error {
	digits := 0
	for n := f.options.big; n > 1; n /= 10 {
		digits++
	}
	_, err := f.source.DB().ExecContext(ctx, fmt.Sprintf("INSERT INTO %s.big SELECT %d + x.id, x.id, REPEAT('abcdefghij', 15) FROM (SELECT %s AS id FROM %s) x",
		database, f.sentinel*f.options.big, nest(digits), of(digits)))
	return err
}

// of is where the digits of a number come from.
func of(digits int) string {
	from := make([]string, digits)
	for i := range from {
		from[i] = fmt.Sprintf("%s.digit d%d", database, i)
	}
	return strings.Join(from, ", ")
}

// nest writes a number by its digits: ((d0.n) * 10 + d1.n) * 10 + …
func nest(digits int) string {
	text := "d0.n"
	for i := 1; i < digits; i++ {
		text = fmt.Sprintf("(%s) * 10 + d%d.n", text, i)
	}
	return text
}
