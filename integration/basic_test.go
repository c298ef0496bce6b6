package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"replicator/sandbox"
)

// meshes are the combinations of flavors that the main job is tried on.
var meshes = []struct {
	name    string
	flavors []sandbox.Flavor
}{
	{"mysql", []sandbox.Flavor{sandbox.MySQL97, sandbox.MySQL97, sandbox.MySQL97}},
	{"mariadb118", []sandbox.Flavor{sandbox.MariaDB118, sandbox.MariaDB118, sandbox.MariaDB118}},
	{"mariadb1011", []sandbox.Flavor{sandbox.MariaDB1011, sandbox.MariaDB1011, sandbox.MariaDB1011}},
	{"mixed", []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011}},
}

// usually returns those meshes of a long test on which it runs every time. With ALL_MESHES=1, as by make soak, it runs on all.
func usually(all map[string][]sandbox.Flavor, names ...string) map[string][]sandbox.Flavor {
	if os.Getenv("ALL_MESHES") != "" {
		return all
	}
	chosen := map[string][]sandbox.Flavor{}
	for _, n := range names {
		chosen[n] = all[n]
	}
	return chosen
}

func TestEveryChangeArrivesEverywhere(t *testing.T) {
	t.Parallel()
	for _, m := range meshes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, m.flavors...)
			c.everywhere("CREATE DATABASE app",
				"CREATE TABLE app.t (id BIGINT PRIMARY KEY, v VARCHAR(100), n INT) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci")
			c.start()
			c.awaitLinks(30 * time.Second)
			for i, s := range c.sites {
				for k := range 20 {
					s.exec(t, "INSERT INTO app.t VALUES (?, ?, ?)", i*100+k, fmt.Sprintf("from %s", s.name), k)
				}
			}
			c.awaitEqual(20*time.Second, "app.t")
			for _, s := range c.sites {
				s.exec(t, "UPDATE app.t SET n = n + 1 WHERE v = ?", "from "+s.name)
				s.exec(t, "DELETE FROM app.t WHERE v = ? AND n > 15", "from "+s.name)
			}
			c.awaitEqual(20*time.Second, "app.t")
			if took := c.stop(); took > 10*time.Second {
				t.Errorf("a clean stop took %s", took)
			}
		})
	}
}
