package integration

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"replicator/mesh"
	"replicator/sandbox"
)

// scenarioMeshes are the combinations of flavors that scenarios run on; the servers are east, west and north.
var scenarioMeshes = []struct {
	name    string
	flavors []sandbox.Flavor
}{
	{"mysql", []sandbox.Flavor{sandbox.MySQL97, sandbox.MySQL97, sandbox.MySQL97}},
	{"mariadb", []sandbox.Flavor{sandbox.MariaDB118, sandbox.MariaDB118, sandbox.MariaDB1011}},
	{"mixed", []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118, sandbox.MariaDB1011}},
}

// scenarioNeeds is configuration below "conflict" that scenarios ask for by name.
var scenarioNeeds = map[string]string{
	"priority":   "priority: [west, east, north]",
	"change_log": "change_log: {table: logbook.log, columns: {table: table, key: record_id, user: user_id, time: timestamp, comment: comment}}",
}

// Every file of testdata/scenarios, on meshes that keep running from one scenario to the next. A mesh whose links do not work
// after a scenario that failed is given up, so that the next one starts on a sound one.
//
// A scenario plays on one of the meshes in turn, or with ALL_MESHES=1 on all of them; those about unique and foreign keys, on
// which servers differ, always play on all.
func TestScenarios(t *testing.T) {
	t.Parallel()
	all := readScenarios(t)
	for n, m := range scenarioMeshes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			var stage *stage
			for i, s := range all {
				if !s.runsOn(m.name) || !s.turn(i, n) {
					continue
				}
				if stage == nil {
					stage = newScenarioStage(t, m.name, m.flavors, all)
				}
				if !t.Run(s.name, func(t *testing.T) { stage.play(t, s) }) && !stage.sound() {
					stage.close()
					stage = nil
				}
			}
		})
	}
}

// stage is a running mesh with one process per server, so that each link can be cut by itself.
type stage struct {
	*cluster                        // the process of the first server
	processes   map[string]*cluster // by server
	desk        *cluster            // where an operator's commands run: no proxy is in their way
	aliases     map[string]string   // low, mid and high to servers
	identities  map[string]string   // server ids to servers
	heartbeat   int                 // the last one that await wrote
	wrote       *site               // the last one that an application wrote to since the last await, and when
	wroteAt     time.Time
	unpaced     bool                 // the scenario says by itself when its writes were
	ahead       time.Time            // until then the mesh's clocks may be ahead of the machine's
	connections map[string]*sql.Conn // of the scenario that plays
}

// newScenarioStage makes the tables of all scenarios of a mesh and starts the program.
func newScenarioStage(t *testing.T, name string, flavors []sandbox.Flavor, all []*scenario) *stage {
	t.Helper()
	options := make([]sandbox.Options, len(flavors))
	for i, f := range flavors {
		options[i].Flavor = f
	}
	var rules, needs []string
	for _, s := range all {
		if s.runsOn(name) && s.rule != "" {
			rules = append(rules, strings.Replace(s.rule, "{", "{match: \""+s.database()+".*\", ", 1))
		}
		if s.runsOn(name) {
			needs = append(needs, s.needs...)
		}
	}
	slices.Sort(needs)
	g := newStage(t, scenarioConfiguration(rules, slices.Compact(needs)), options...)
	g.everywhere("CREATE DATABASE logbook DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci",
		"CREATE TABLE logbook.log (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id VARCHAR(64), `table` VARCHAR(64), "+
			"record_id VARCHAR(64), comment VARCHAR(255), timestamp TIMESTAMP(6) NULL)")
	for _, s := range all {
		if !s.runsOn(name) {
			continue
		}
		g.everywhere("CREATE DATABASE " + s.database() + " DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci")
		g.open(t, s)
		for _, st := range s.before {
			g.step(t, s, st)
		}
		g.closeConnections()
	}
	g.run(t)
	return g
}

// newStage prepares servers and processes, and starts no process.
func newStage(t *testing.T, extra string, options ...sandbox.Options) *stage {
	t.Helper()
	c := newClusterOf(t, options...)
	c.extra = extra
	g := &stage{cluster: c, processes: map[string]*cluster{}}
	c.everywhere("CREATE DATABASE stage DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci",
		"CREATE TABLE stage.beat (site VARCHAR(20) PRIMARY KEY, n INT)")
	g.desk = &cluster{tb: t, dir: t.TempDir(), binary: c.binary, extra: c.extra, listen: c.listen}
	for _, s := range c.sites {
		twin := *s
		twin.direct = s.server.Addr()
		g.desk.sites = append(g.desk.sites, &twin)
	}
	g.desk.configure()
	for _, s := range c.sites[1:] {
		g.processes[s.name] = c.apart(s.name)
	}
	g.processes[c.sites[0].name] = c
	return g
}

// run starts the processes.
func (g *stage) run(t *testing.T) {
	t.Helper()
	g.each(t, func(p *cluster) { p.start() })
	g.each(t, func(p *cluster) { p.awaitLinks(60 * time.Second) })
	g.nameServers(t)
}

func scenarioConfiguration(rules, needs []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "conflict:\n  max_clock_skew: %s\n", lead+3*time.Second)
	for _, n := range needs {
		fmt.Fprintf(&b, "  %s\n", scenarioNeeds[n])
	}
	if len(rules) > 0 {
		b.WriteString("tables:\n  rules:\n")
	}
	for _, r := range rules {
		fmt.Fprintf(&b, "    - %s\n", r)
	}
	return b.String()
}

// each runs f for every process, with failures those of t.
func (g *stage) each(t *testing.T, f func(*cluster)) {
	t.Helper()
	for _, s := range g.sites {
		p := g.processes[s.name]
		outer := p.tb
		p.tb = t
		f(p)
		p.tb = outer
	}
}

// nameServers reads the servers' identities.
func (g *stage) nameServers(t *testing.T) {
	t.Helper()
	g.identities = map[string]string{}
	var ids []string
	for _, s := range g.sites {
		var id string
		if err := s.db.QueryRow("SELECT LOWER(HEX(id)) FROM replicator.identity").Scan(&id); err != nil {
			t.Fatal(err)
		}
		g.identities[id] = s.name
		ids = append(ids, id)
	}
	slices.Sort(ids)
	g.aliases = map[string]string{"low": g.identities[ids[0]], "mid": g.identities[ids[1]], "high": g.identities[ids[2]]}
}

func (g *stage) close() {
	for _, p := range g.processes {
		p.kill()
	}
	for _, s := range g.sites {
		_ = s.server.Close()
	}
}

func (g *stage) site(name string) *site {
	if alias, ok := g.aliases[name]; ok {
		name = alias
	}
	i := slices.IndexFunc(g.sites, func(s *site) bool { return s.name == name })
	return g.sites[i]
}

// open gives every server a connection that uses the scenario's database.
func (g *stage) open(t *testing.T, s *scenario) {
	t.Helper()
	g.connections = map[string]*sql.Conn{}
	for _, server := range g.sites {
		conn, err := server.db.Conn(context.Background())
		if err == nil {
			_, err = conn.ExecContext(context.Background(), "USE "+s.database())
		}
		if err == nil {
			_, err = conn.ExecContext(context.Background(), "SET time_zone = '+00:00'")
		}
		if err != nil {
			t.Fatal(err)
		}
		g.connections[server.name] = conn
	}
}

func (g *stage) closeConnections() {
	for _, c := range g.connections {
		_ = c.Close()
	}
	g.connections = nil
}

// sound reports whether another scenario can use the mesh.
func (g *stage) sound() bool {
	for _, p := range g.processes {
		for _, s := range p.sites {
			if s.proxy.Heal() != nil {
				return false
			}
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if !slices.ContainsFunc(g.sites, func(s *site) bool { return !g.processes[s.name].allRun() }) {
			return true
		}
		<-time.After(100 * time.Millisecond)
	}
	return false
}

// allRun reports whether every link is running.
func (c *cluster) allRun() bool {
	s, err := c.status()
	return err == nil && !slices.ContainsFunc(s.Links, func(l mesh.LinkStatus) bool { return l.State != mesh.Running })
}

// play runs one scenario.
func (g *stage) play(t *testing.T, s *scenario) {
	<-time.After(time.Until(g.ahead))
	began := time.Now()
	g.wrote, g.unpaced = nil, strings.Contains(s.rule, "time_column") || slices.Contains(s.needs, "change_log")
	if s.last != "" {
		defer func() { g.ahead = time.Now().Add(lead + 100*time.Millisecond) }()
	}
	g.open(t, s)
	defer g.closeConnections()
	defer func() {
		if t.Failed() {
			for _, p := range g.processes {
				t.Logf("a process's log:\n%s", since(p.log.String(), began))
			}
		}
	}()
	for _, st := range s.steps {
		g.step(t, s, st.fill(began))
	}
	g.heal(t, "")
	g.await(t)
	g.compare(t, s)
}

// since leaves out the lines of a log that were written before a time.
func since(log string, from time.Time) string {
	stamp := from.UTC().Format("2006-01-02T15:04:05")
	lines := strings.Split(log, "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return len(l) >= 19 && l[4:5] == "-" && l[:19] >= stamp })
	if i < 0 {
		return log[max(0, len(log)-4000):]
	}
	return strings.Join(lines[max(i, len(lines)-60):], "\n")
}

// compare awaits that all tables of the scenario are equal.
func (g *stage) compare(t *testing.T, s *scenario) {
	t.Helper()
	rows, err := g.sites[0].db.Query("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?", s.database())
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, s.database()+"."+name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	check := *g.cluster
	check.tb = t
	check.awaitEqual(10*time.Second, tables...)
}

// operate runs a command of an operator and returns its standard output.
func (g *stage) operate(args ...string) (string, error) { return g.desk.output(args...) }

// output runs a command of the program with the configuration of the mesh and returns its standard output.
func (c *cluster) output(args ...string) (string, error) {
	cmd := exec.Command(c.binary, append(args, "--config", filepath.Join(c.dir, "replicator.yaml"))...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), errors.Join(fmt.Errorf("%s: %w", strings.Join(args, " "), err), errors.New(problems.String()))
	}
	return out.String(), nil
}

// turn reports whether the i-th scenario plays on the n-th mesh.
func (s *scenario) turn(i, n int) bool {
	keys := strings.HasPrefix(s.name, "12-") || strings.HasPrefix(s.name, "13-")
	return keys || s.meshes != nil || os.Getenv("ALL_MESHES") != "" || i%len(scenarioMeshes) == n
}
