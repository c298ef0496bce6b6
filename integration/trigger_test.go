package integration

import (
	"testing"
	"time"

	"replicator/mesh"
	"replicator/sandbox"
)

// A trigger that is created while the mesh runs stops the links whose rows would fire it; once it is guarded they go on.
// Replayed rows fire none.
func TestTriggersAreNotFiredTwice(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sandbox.MySQL97, sandbox.MariaDB118)
	c.everywhere("CREATE DATABASE app", plainTable, "CREATE TABLE app.log (id INT PRIMARY KEY, v VARCHAR(50))")
	c.start()
	c.awaitLinks(30 * time.Second)
	c.sites[0].exec(t, "INSERT INTO app.t VALUES (1, 'before')")
	c.awaitEqual(20*time.Second, "app.t")
	const effect = "INSERT INTO app.log VALUES (NEW.id, 'fired')"
	c.everywhere("CREATE TRIGGER app.tr AFTER INSERT ON app.t FOR EACH ROW " + effect)
	c.sites[0].exec(t, "INSERT INTO app.t VALUES (2, 'with a trigger')")
	stopped := c.awaitLink(20*time.Second, "east", "west", mesh.Stopped)
	if stopped.Error.Class != "precondition" {
		t.Errorf("the link shows %+v", stopped.Error)
	}
	c.everywhere("DROP TRIGGER app.tr",
		"CREATE TRIGGER app.tr AFTER INSERT ON app.t FOR EACH ROW IF @replicator_apply IS NULL THEN "+effect+"; END IF")
	c.resume("east", "west")
	c.resume("west", "east")
	c.awaitLinks(30 * time.Second)
	c.sites[1].exec(t, "INSERT INTO app.t VALUES (3, 'with a guarded trigger')")
	c.awaitEqual(20*time.Second, "app.t", "app.log")
	for _, s := range c.sites {
		for _, id := range []int{2, 3} {
			if err := s.has("app.log", id); err != nil {
				t.Errorf("the effect of the trigger for row %d is missing on %s: %v", id, s.name, err)
			}
		}
	}
}
