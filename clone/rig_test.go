package clone

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/config"
	"replicator/sandbox"
	"replicator/server"
)

// rig is two servers.
type rig struct {
	hosts    [2]*sandbox.Server
	sides    [2]Side
	sessions int
}

func newRig(t testing.TB, from, to sandbox.Flavor, args ...string) *rig {
	t.Helper()
	r := &rig{sessions: 3}
	for i, flavor := range []sandbox.Flavor{from, to} {
		name := []string{"a", "b"}[i]
		r.hosts[i] = sandbox.StartTest(t, sandbox.Options{Flavor: flavor, Name: name, Args: args})
		r.sides[i] = side(t, name, r.hosts[i], "root", r.hosts[i].Password())
	}
	return r
}

func side(t testing.TB, name string, s *sandbox.Server, user, password string) Side {
	t.Helper()
	c := &config.Server{
		Name: name, Endpoints: []string{s.Addr()}, Own: true, TLS: config.TLS{Mode: config.TLSPreferred},
		Account: config.Account{User: user, Secret: config.NewSecret(password)},
	}
	c.Reader = &c.Account
	opened, err := server.Open(c, server.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, opened.Close()) })
	info, err := server.Probe(t.Context(), opened.DB())
	require.NoError(t, err)
	return Side{Name: name, DB: opened.DB(), Flavor: info.Flavor, Dialect: server.NewDialect(info)}
}

// eachFlavor runs a test between two servers of each flavor.
func eachFlavor(t *testing.T, f func(t *testing.T, r *rig)) {
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) { f(t, newRig(t, flavor, flavor)) })
	}
}

func exec(t testing.TB, s *sandbox.Server, statements ...string) {
	t.Helper()
	conn, err := s.DB().Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	for _, q := range append([]string{"SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00', foreign_key_checks = 0"}, statements...) {
		_, err := conn.ExecContext(t.Context(), q)
		require.NoError(t, err, "%.500s", q)
	}
	discard(conn)
}

// both runs statements on both servers.
func (r *rig) both(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range r.hosts {
		exec(t, s, statements...)
	}
}

// options are those of a copy of the databases.
func (r *rig) options(t testing.TB, databases ...string) *Options {
	t.Helper()
	tables, err := server.Tables(t.Context(), r.sides[0].DB, func(n change.TableName) bool {
		return slices.Contains(databases, n.Database)
	})
	require.NoError(t, err)
	return &Options{Source: r.sides[0], Target: r.sides[1], Tables: tables}
}

// copy makes a snapshot, and the target equal to it.
func (r *rig) copy(t testing.TB, o *Options) Report {
	t.Helper()
	report, err := r.try(t.Context(), o)
	require.NoError(t, err)
	return report
}

func (r *rig) try(ctx context.Context, o *Options) (Report, error) {
	if err := Check(ctx, o); err != nil {
		return Report{}, err
	}
	snap, err := Freeze(ctx, o.Source, r.sessions)
	if err != nil {
		return Report{}, err
	}
	defer snap.Close()
	return Copy(ctx, snap, o)
}

// contents are the rows that a query finds, as text.
func contents(t *testing.T, s *sandbox.Server, query string) []string {
	t.Helper()
	conn, err := s.DB().Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), "SET NAMES utf8mb4")
	require.NoError(t, err)
	_, err = conn.ExecContext(t.Context(), "SET SESSION time_zone = '+00:00', sql_mode = 'ALLOW_INVALID_DATES'")
	require.NoError(t, err)
	defer discard(conn)
	rows, err := conn.QueryContext(t.Context(), query)
	require.NoError(t, err, query)
	defer rows.Close()
	names, err := rows.Columns()
	require.NoError(t, err)
	var all []string
	for rows.Next() {
		values, into := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		require.NoError(t, rows.Scan(into...))
		parts := make([]string, len(values))
		for i, v := range values {
			parts[i] = names[i] + "=NULL"
			if v.Valid {
				parts[i] = names[i] + "=" + v.String
			}
		}
		all = append(all, strings.Join(parts, " "))
	}
	require.NoError(t, rows.Err())
	return all
}

// equal compares what a query finds on both servers, and says how many rows it finds.
func (r *rig) equal(t *testing.T, query string) int {
	t.Helper()
	want, got := contents(t, r.hosts[0], query), contents(t, r.hosts[1], query)
	for i := range max(len(want), len(got)) {
		a, b := row(want, i), row(got, i)
		if a == b {
			continue
		}
		at := 0 // where they begin to differ
		for at < min(len(a), len(b)) && a[at] == b[at] {
			at++
		}
		at = max(0, at-100)
		t.Fatalf("%.100s: %d rows on a, %d on b; row %d: …%.300q, on b …%.300q", query, len(want), len(got), i, a[min(at, len(a)):], b[min(at, len(b)):])
	}
	return len(want)
}

func row(rows []string, i int) string {
	if i < len(rows) {
		return rows[i]
	}
	return "none"
}

// values makes an INSERT of rows from..to, each of which is a format of its number.
func values(table, format string, from, to int) string {
	rows := make([]string, 0, to-from)
	for n := from; n < to; n++ {
		rows = append(rows, strings.ReplaceAll(format, "#", fmt.Sprint(n)))
	}
	return "INSERT INTO " + table + " VALUES " + strings.Join(rows, ",")
}
