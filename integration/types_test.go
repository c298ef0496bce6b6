package integration

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"replicator/image/imagetest"
	"replicator/sandbox"
)

// TestEveryTypeArrivesExactly sends the table of all types through a mesh, over the replay path within a flavor and over
// the portable path between flavors, and compares what the servers themselves say of every value.
func TestEveryTypeArrivesExactly(t *testing.T) {
	t.Parallel()
	for _, m := range []struct {
		name    string
		flavors []sandbox.Flavor
		path    string
	}{
		{"mysql", []sandbox.Flavor{sandbox.MySQL97, sandbox.MySQL97}, "replay"},
		{"mariadb118", []sandbox.Flavor{sandbox.MariaDB118, sandbox.MariaDB118}, "replay"},
		{"mariadb1011", []sandbox.Flavor{sandbox.MariaDB1011, sandbox.MariaDB1011}, "replay"},
		{"mysql and mariadb118", []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118}, "portable"},
		{"mysql and mariadb1011", []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB1011}, "portable"},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, m.flavors...)
			// The checks refuse COMPRESSED columns, which both paths could copy.
			table := imagetest.TypesFor("app.types", m.flavors...).Without("z_text", "z_blob")
			c.everywhere("CREATE DATABASE app")
			for _, s := range c.sites {
				imagetest.Exec(t, s.server, "SET NAMES utf8mb4", table.Create())
			}
			c.start()
			c.awaitLinks(30 * time.Second)
			// Of the second server's changes every column travels back, JSON as the text that MariaDB made of it too.
			touch := []string{"SET SESSION sql_mode = ''", "UPDATE app.types SET INT_c = INT_c + 1 WHERE id < 3"}
			for _, stage := range []struct {
				name       string
				site       int
				statements []string
			}{{"inserted", 0, table.Fill()}, {"updated", 0, table.Change()}, {"touched", 1, touch}, {"deleted", 1, table.Delete()}} {
				imagetest.Exec(t, c.sites[stage.site].server, stage.statements...)
				await(t, 30*time.Second, func() error {
					if err := sameTypes(t, c, table); err != nil {
						return fmt.Errorf("%s: %w", stage.name, err)
					}
					return nil
				})
			}
			status, err := c.status()
			if err != nil || len(status.Tables) == 0 {
				t.Fatalf("status %v has no tables: %v", status, err)
			}
			for _, s := range status.Tables {
				if s.Path != m.path {
					t.Errorf("table %s from %s to %s: path %s (%s), want %s", s.Table, s.From, s.To, s.Path, s.Reason, m.path)
				}
			}
		})
	}
}

func sameTypes(t *testing.T, c *cluster, table imagetest.TypesTable) error {
	t.Helper()
	want, got := exactRows(t, c.sites[0], table), exactRows(t, c.sites[1], table)
	if len(want) != len(got) || len(want) == 0 {
		return fmt.Errorf("%d rows and %d", len(want), len(got))
	}
	for i := range want {
		for j := range want[i] {
			if want[i][j] == got[i][j] {
				continue
			}
			column := "a number"
			if j >= 3 {
				column = table.Columns[j-3].Name
			}
			return fmt.Errorf("row %s, column %s: %.200s and %.200s", want[i][0].String, column, want[i][j].String, got[i][j].String)
		}
	}
	return nil
}

func exactRows(t *testing.T, s *site, table imagetest.TypesTable) [][]sql.NullString {
	t.Helper()
	conn, err := s.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "SET SESSION time_zone = '+00:00'"); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.QueryContext(t.Context(), table.Select())
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all [][]sql.NullString
	for rows.Next() {
		row := make([]sql.NullString, len(table.Columns)+3)
		into := make([]any, len(row))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
