package integration

import (
	"fmt"
	"testing"
	"time"

	"replicator/sandbox"
)

// Two links that find a row absent can both lock its absence: gap locks do not exclude each other. One of them commits that
// the row is deleted, which needs no lock beyond that, while the other one, which has decided already, still waits to
// insert it. It must decide again.
func TestAbsentRowIsDecidedOnce(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavor, flavor, flavor)
			c.everywhere("CREATE DATABASE app", plainTable,
				"CREATE TABLE app.held (id INT PRIMARY KEY, u INT UNIQUE)", "CREATE TABLE app.beat (id INT PRIMARY KEY)")
			c.start()
			c.awaitLinks(30 * time.Second)
			for try := 1; ; try++ {
				if c.deleteWhileInserting(t, 10*try) {
					return
				}
				if try == 5 {
					t.Fatal("the two links did not meet in any of five attempts")
				}
			}
		})
	}
}

// deleteWhileInserting lets a deletion overtake the insert of its row; false: it was too slow.
func (c *cluster) deleteWhileInserting(t *testing.T, id int) bool {
	t.Helper()
	east, west, north := c.sites[0], c.sites[1], c.sites[2]
	disputed, row := id, id+1
	if err := west.proxy.Cut(); err != nil {
		t.Fatal(err)
	}
	north.exec(t, "INSERT INTO app.t VALUES (?, 'of north')", disputed)
	tx, err := west.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	for _, query := range []string{
		"INSERT INTO app.t VALUES (%d, 'of west')",   // a conflict: the rows are locked before they are decided
		"INSERT INTO app.held VALUES (%[1]d, %[1]d)", // waits at north
	} {
		if _, err := tx.Exec(fmt.Sprintf(query, disputed)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.Exec("INSERT INTO app.t VALUES (?, 'of west')", row); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	holder, err := north.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback() }() // after the end it does nothing
	if _, err := holder.Exec("INSERT INTO app.held VALUES (?, ?)", row, disputed); err != nil {
		t.Fatal(err)
	}
	if err := west.proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	await(t, 30*time.Second, func() error { return east.shows("SELECT COUNT(*) FROM app.t WHERE id = ?", row) })
	// Both flavors answer from a copy that they renew only when nobody has read it for 100 ms: who asks more often never
	// sees a change.
	poll(t, 30*time.Second, 250*time.Millisecond, func() error {
		return north.shows("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
	})
	blocked := time.Now()
	east.exec(t, "DELETE FROM app.t WHERE id = ?", row)
	east.exec(t, "INSERT INTO app.beat VALUES (?)", row)
	await(t, 30*time.Second, func() error { return north.shows("SELECT COUNT(*) FROM app.beat WHERE id = ?", row) })
	met := time.Since(blocked)
	if err := holder.Rollback(); err != nil {
		t.Fatal(err)
	}
	await(t, 30*time.Second, func() error { return north.shows("SELECT COUNT(*) FROM app.held WHERE id = ?", disputed) })
	c.awaitEqual(20*time.Second, "app.t", "app.held", "app.beat")
	t.Logf("the deletion arrived %s after the insert began to wait", met.Round(time.Millisecond))
	return met < 4*time.Second // before the server gave the insert up
}

// shows demands that a count is not 0.
func (s *site) shows(query string, args ...any) error {
	var n int
	err := s.db.QueryRow(query, args...).Scan(&n)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s: nothing yet for %s", s.name, query)
	}
	return err
}
