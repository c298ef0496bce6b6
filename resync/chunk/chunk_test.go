package chunk

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"replicator/change"
	"replicator/dml"
	"replicator/image"
	"replicator/image/imagetest"
	"replicator/sandbox"
	"replicator/server"
)

// TestEveryRowIsReadOnce walks tables that have little in common: a site with few rows and one with many, at either end.
func TestEveryRowIsReadOnce(t *testing.T) {
	for _, flavor := range sandbox.Flavors {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
		imagetest.Exec(t, s, "CREATE DATABASE a", "CREATE DATABASE b")
		for name, key := range map[string]struct{ columns, value string }{
			"number":    {"k INT PRIMARY KEY", "%d"},
			"decimal":   {"k DECIMAL(20,3) PRIMARY KEY", "%d.125"},
			"text":      {"k VARCHAR(40) COLLATE utf8mb4_general_ci PRIMARY KEY", "'kEy %d'"},
			"bytes":     {"k BINARY(4) PRIMARY KEY", "UNHEX(LPAD(HEX(%d),8,'0'))"},
			"composite": {"j INT DEFAULT 0, k VARCHAR(40) COLLATE utf8mb4_bin, PRIMARY KEY (j, k)", "'%d'"},
			"prefix":    {"k TEXT CHARACTER SET utf8mb4, PRIMARY KEY (k(8))", "LPAD(%d, 9, '0')"},
			"time":      {"k DATETIME(6) PRIMARY KEY", "'2024-01-01' + INTERVAL %d SECOND"},
		} {
			t.Run(string(flavor)+" "+name, func(t *testing.T) {
				has := [][]int{{3, 500, 501, 900}, nil}
				for n := range 1000 {
					has[1] = append(has[1], n)
				}
				var sites []*Site
				var source *change.Table
				for i, database := range []string{"a", "b"} {
					var values []string
					for _, n := range has[i] {
						values = append(values, "("+fmt.Sprintf(key.value, 10*n)+")")
					}
					imagetest.Exec(t, s, "DROP TABLE IF EXISTS "+database+".t", "CREATE TABLE "+database+".t ("+key.columns+")",
						"INSERT INTO "+database+".t (k) VALUES "+strings.Join(values, ","))
					table, err := server.OneTable(t.Context(), s.DB(), change.TableName{Database: database, Table: "t"})
					if err != nil {
						t.Fatal(err)
					}
					if i == 0 {
						source = dml.TableOf(table)
					}
					plan, err := dml.NewPlan(source, table, false)
					if err != nil {
						t.Fatal(err)
					}
					sites = append(sites, &Site{Server: database, DB: s.DB(), Plan: plan})
				}
				for _, order := range [][]int{{0, 1}, {1, 0}} {
					walked := []*Site{sites[order[0]], sites[order[1]]}
					got, counted := make([][]string, 2), make([]int64, 2)
					err := Walk(t.Context(), walked[0], nil, 3, func(r Range) error {
						for i, site := range walked {
							sum, err := site.Sum(t.Context(), r)
							if err != nil {
								return err
							}
							counted[i] += sum.Rows
						}
						return Read(t.Context(), walked, r, 7, func(_ []image.Value, rows [][][]image.Value) error {
							for i := range rows {
								if len(rows[i]) > 7 {
									t.Errorf("%d rows in a piece", len(rows[i]))
								}
								for _, values := range rows[i] {
									got[i] = append(got[i], fmt.Sprint(values))
								}
							}
							return nil
						})
					})
					if err != nil {
						t.Fatal(err)
					}
					for i, at := range order {
						seen := slices.Compact(slices.Sorted(slices.Values(got[i])))
						if want := len(has[at]); len(got[i]) != want || len(seen) != want || counted[i] != int64(want) {
							t.Errorf("%s: %d rows, %d of them different, %d counted, want %d", walked[i].Server, len(got[i]), len(seen), counted[i], want)
						}
					}
				}
			})
		}
	}
}

// TestJSONIsComparedByValue: what MySQL writes in its own way is the same document, whichever server is the first.
func TestJSONIsComparedByValue(t *testing.T) {
	names := []sandbox.Flavor{sandbox.MariaDB118, sandbox.MySQL97}
	servers := make([]Server, len(names))
	for i, flavor := range names {
		s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor})
		imagetest.Exec(t, s, "CREATE DATABASE a", "CREATE TABLE a.t (id INT PRIMARY KEY, j JSON, v TEXT) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
			`INSERT INTO a.t VALUES (1, '{"b":1,"aa":[1,2.50,"x"]}', '{"a":1}'), (2, '[ 1 ]', 'x'), (3, NULL, NULL), (4, '{"a":1}', NULL),
 (5, '{"n":[2.50, 1e2, 12345678901234567, true],"m":{"z":"\u00e4","y":null}}', NULL)`)
		servers[i] = Server{Name: string(flavor), DB: s.DB(), Flavor: []change.Flavor{change.MariaDB, change.MySQL}[i]}
	}
	exec := func(i int, q string) {
		if _, err := servers[i].DB.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	exec(1, `UPDATE a.t SET j = '{"a":2}' WHERE id = 4`)
	exec(1, `UPDATE a.t SET v = '{"a": 1}' WHERE id = 1`)
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		table, err := Open(t.Context(), []Server{servers[order[0]], servers[order[1]]}, change.TableName{Database: "a", Table: "t"}, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		err = table.Compare(t.Context(), nil, func(_ []int64, different []Difference, _ []image.Value) error {
			for _, d := range different {
				found = append(found, fmt.Sprint(d.Named()[0].Int))
			}
			return nil
		})
		if err != nil || !slices.Equal(found, []string{"1", "4"}) {
			t.Errorf("%s first: %v differ, %v", servers[order[0]].Name, found, err)
		}
	}
}
