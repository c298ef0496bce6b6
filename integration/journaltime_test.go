package integration

import (
	"testing"
	"time"

	"replicator/sandbox"
)

// An entry's time, and a marker's, is that of the decision, by the clock of the server that has it, however old the changes
// are that arrive.
func TestJournalTellsWhenItWasDecided(t *testing.T) {
	t.Parallel()
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011} {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, flavor, flavor)
			c.everywhere("CREATE DATABASE app", plainTable)
			c.start()
			c.awaitLinks(30 * time.Second)
			east, west := c.sites[0], c.sites[1]
			if err := east.proxy.Cut(); err != nil {
				t.Fatal(err)
			}
			east.exec(t, "INSERT INTO app.t VALUES (1, 'of east')")
			west.exec(t, "INSERT INTO app.t VALUES (1, 'of west'), (2, 'of west')")
			<-time.After(4 * time.Second) // the changes grow old
			healed := time.Now()
			if err := east.proxy.Heal(); err != nil {
				t.Fatal(err)
			}
			await(t, 30*time.Second, func() error { return east.has("app.t", 2) })
			rows, err := readRows(east.db.Query("SELECT decided_at FROM replicator.conflict UNION ALL SELECT MAX(applied_at) FROM replicator.marker"))
			if err != nil || len(rows) != 2 {
				t.Fatalf("%v %v", rows, err)
			}
			for _, row := range rows {
				at, err := time.Parse("2006-01-02 15:04:05.999999", row["decided_at"])
				if err != nil || at.Before(healed.Add(-2*time.Second)) {
					t.Errorf("decided or applied at %s, the link healed at %s: %v", row["decided_at"], healed.UTC(), err)
				}
			}
		})
	}
}
