package integration

import (
	"fmt"
	"testing"
	"time"

	"replicator/sandbox"
)

// A row of the target that an application keeps locked holds back what was committed behind its change, but not for long
// what was committed before it, although all of it would be one group.
func TestLockedRowHoldsBackWhatFollows(t *testing.T) {
	t.Parallel()
	const rows, locked = 400, 300
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavor, flavor)
			east, west := c.sites[0], c.sites[1]
			c.everywhere("CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, n INT)")
			c.start()
			c.awaitLinks(30 * time.Second)
			for i := range rows {
				east.exec(t, "INSERT INTO app.t VALUES (?, 0)", i)
			}
			c.awaitEqual(30*time.Second, "app.t")
			if err := east.proxy.Cut(); err != nil {
				t.Fatal(err)
			}
			for i := range rows {
				east.exec(t, "UPDATE app.t SET n = 1 WHERE id = ?", i)
			}
			tx, err := west.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }() // after the end it does nothing
			if _, err := tx.Exec("UPDATE app.t SET n = -1 WHERE id = ?", locked); err != nil {
				t.Fatal(err)
			}
			if err := east.proxy.Heal(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			count := func() (n int, err error) {
				return n, west.db.QueryRow("SELECT COUNT(*) FROM app.t WHERE n = 1").Scan(&n)
			}
			await(t, 3*time.Minute, func() error {
				n, err := count()
				if err == nil && n < locked {
					err = fmt.Errorf("%d of the %d changes before the locked row have arrived", n, locked)
				}
				return err
			})
			t.Logf("all before the locked row arrived after %s", time.Since(began).Round(100*time.Millisecond))
			if n, err := count(); err != nil || n != locked {
				t.Errorf("%d changes have arrived (%v), want the %d before the locked row", n, err, locked)
			}
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			c.awaitEqual(time.Minute, "app.t")
		})
	}
}
