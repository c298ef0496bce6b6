package demo

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// mark is the newest acknowledged transaction of every client of a site at one moment.
type mark map[int]int64

func (l *load) mark(s *site) mark {
	m := mark{}
	for _, c := range l.clients {
		if c.site == s.name {
			m[c.id] = c.seq.Load()
		}
	}
	return m
}

// reached reports whether a server has everything up to the mark: a source's transactions arrive in their order.
func (m mark) reached(ctx context.Context, s *site) error {
	for client, want := range m {
		var have sql.NullInt64
		err := s.server.DB().QueryRowContext(ctx, "SELECT MAX(seq) FROM "+database+".ledger WHERE client = ?", client).Scan(&have)
		if err != nil {
			return fmt.Errorf("read the ledger of %s: %w", s.name, err)
		}
		if have.Int64 < want {
			return fmt.Errorf("%s has %d of %d transactions of client %d", s.name, have.Int64, want, client)
		}
	}
	return nil
}

// ledger counts the transactions and row changes that have arrived on a server.
func (s *site) ledger(ctx context.Context) (transactions, changes int64, err error) {
	err = s.server.DB().QueryRowContext(ctx, "SELECT COUNT(*), COALESCE(SUM(changes), 0) FROM "+database+".ledger").Scan(&transactions, &changes)
	if err != nil {
		return 0, 0, fmt.Errorf("count the ledger of %s: %w", s.name, err)
	}
	return transactions, changes, nil
}

// digest is the number of a table's rows and a checksum of all their columns; neither order nor flavor matters to it.
func (s *site) digest(ctx context.Context, table string) (string, error) {
	columns, err := s.columns(ctx, table)
	if err != nil {
		return "", fmt.Errorf("read table %s of %s: %w", table, s.name, err)
	}
	for i, c := range columns {
		columns[i] = "COALESCE(HEX(`" + c + "`), '~')"
	}
	var rows int64
	var sum string
	err = s.server.DB().QueryRowContext(ctx, fmt.Sprintf(
		"SELECT COUNT(*), COALESCE(BIT_XOR(CAST(CONV(LEFT(SHA2(CONCAT_WS('#', %s), 256), 15), 16, 10) AS UNSIGNED)), 0) FROM %s",
		strings.Join(columns, ","), table)).Scan(&rows, &sum)
	if err != nil {
		return "", fmt.Errorf("read table %s of %s: %w", table, s.name, err)
	}
	return fmt.Sprintf("%d rows, checksum %s", rows, sum), nil
}

func (s *site) columns(ctx context.Context, table string) ([]string, error) {
	rows, err := s.server.DB().QueryContext(ctx, "SELECT * FROM "+table+" LIMIT 0")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	return columns, rows.Err()
}

// difference describes how a table differs between servers, "" when it does not.
func (st *stage) difference(ctx context.Context, table string) (string, error) {
	first, err := st.sites[0].digest(ctx, table)
	if err != nil {
		return "", err
	}
	for _, s := range st.sites[1:] {
		other, err := s.digest(ctx, table)
		if err != nil {
			return "", err
		}
		if other != first {
			return fmt.Sprintf("table %s differs: %s has %s; %s has %s", table, st.sites[0].name, first, s.name, other), nil
		}
	}
	return "", nil
}

// expected compares a table with what the clients were told: equal tables could lack the same change.
func (l *load) expected(ctx context.Context, s *site, table int) (string, error) {
	var wantRows, wantChanges int64
	for _, c := range l.clients {
		for _, it := range c.items {
			if it.table == table {
				wantRows++
				wantChanges += it.n
			}
		}
	}
	var rows, changes int64
	err := s.server.DB().QueryRowContext(ctx, "SELECT COUNT(*), COALESCE(SUM(n), 0) FROM "+itemTable(table)).Scan(&rows, &changes)
	if err != nil {
		return "", fmt.Errorf("count table %s of %s: %w", itemTable(table), s.name, err)
	}
	if rows != wantRows || changes != wantChanges {
		return fmt.Sprintf("table %s has %d rows with %d changes, the clients were told %d rows with %d changes",
			itemTable(table), rows, changes, wantRows, wantChanges), nil
	}
	return "", nil
}

// lostIncrements counts the acknowledged increments of shared rows that are not in the values that won.
func (l *load) lostIncrements(ctx context.Context, s *site) (int64, error) {
	var total, made int64
	err := s.server.DB().QueryRowContext(ctx, "SELECT SUM(n) FROM "+database+".shared").Scan(&total)
	if err != nil {
		return 0, fmt.Errorf("read the shared rows of %s: %w", s.name, err)
	}
	for _, c := range l.clients {
		for _, n := range c.shared {
			made += int64(n)
		}
	}
	return made - total, nil
}
