package integration

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"replicator/mesh"
)

// stepPatience is how long a step may take to show what it waits for.
const stepPatience = slowness * 20 * time.Second

// step does one step of a scenario.
func (g *stage) step(t *testing.T, s *scenario, st step) {
	t.Helper()
	where := fmt.Sprintf("%s.txt:%d", s.name, st.line)
	switch st.verb {
	case "sql":
		g.write(t, where, st)
	case "cut":
		g.links(t, st.who, func(p *site) error { return p.proxy.Cut() })
	case "heal":
		g.heal(t, st.who)
	case "await":
		g.await(t)
	case "kill":
		g.each(t, func(p *cluster) { p.kill(); p.start() })
	case "stopped":
		g.stopped(t, where, st)
	case "program":
		g.program(t, where, s, st)
	case "refused":
		if out, err := g.operate(g.arguments(t, where, s, st.text)...); err == nil {
			t.Fatalf("%s: the command succeeds:\n%s", where, out)
		}
	case "rows":
		g.rows(t, where, st)
	case "journal":
		g.journal(t, where, s, st)
	}
}

// write runs a statement as an application does.
func (g *stage) write(t *testing.T, where string, st step) {
	t.Helper()
	query := strings.Join(append([]string{st.text}, st.more...), "\n")
	sites := g.sites
	if st.who != "all" {
		sites = []*site{g.site(st.who)}
	}
	for _, s := range sites {
		if st.who != "all" {
			g.pace(s)
		}
		ctx, cancel := context.WithTimeout(context.Background(), stepPatience)
		_, err := g.connections[s.name].ExecContext(ctx, query)
		cancel()
		g.wroteAt = time.Now() // not before: the next write must be later than this commit
		if err != nil {
			t.Fatalf("%s: on %s: %v", where, s.name, err)
		}
	}
}

// pace makes the order of a scenario's writes that of their times: MariaDB tells the time of a commit in whole seconds.
func (g *stage) pace(s *site) {
	if g.wrote != nil && g.wrote != s && s.server.Flavor().MariaDB() && !g.unpaced {
		<-time.After(time.Until(g.wroteAt.Truncate(time.Second).Add(time.Second + 10*time.Millisecond)))
	}
	g.wrote = s
}

// links does something to the proxies that stand for links: all of them, those of a server, or one.
func (g *stage) links(t *testing.T, which string, f func(*site) error) {
	t.Helper()
	from, to, one := strings.Cut(which, "->")
	for _, target := range g.sites {
		for _, source := range g.processes[target.name].sites {
			switch {
			case source.name == target.name, // the owner keeps its own server
				one && (g.site(from).name != source.name || g.site(to).name != target.name),
				!one && which != "" && g.site(which).name != source.name && g.site(which).name != target.name:
				continue
			}
			if err := f(source); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (g *stage) heal(t *testing.T, which string) {
	t.Helper()
	g.links(t, which, func(p *site) error { return p.proxy.Heal() })
}

// await returns when everything that was committed before has been decided everywhere. What a server writes to settle a
// conflict is a commit of its own, and may in turn be answered.
func (g *stage) await(t *testing.T) {
	t.Helper()
	g.each(t, func(p *cluster) { p.awaitLinks(30 * time.Second) })
	for range 3 {
		g.heartbeat++
		for _, s := range g.sites {
			s.exec(t, "INSERT INTO stage.beat VALUES (?, ?) ON DUPLICATE KEY UPDATE n = VALUES(n)", s.name, g.heartbeat)
		}
		for _, s := range g.sites {
			awaitSoon(t, 30*time.Second, func() error { return g.beats(s) })
		}
	}
	g.wrote = nil
}

func (g *stage) beats(s *site) error {
	var n int
	if err := s.db.QueryRow("SELECT COUNT(*) FROM stage.beat WHERE n = ?", g.heartbeat).Scan(&n); err != nil {
		return err
	}
	if n != len(g.sites) {
		return fmt.Errorf("%s has %d of %d heartbeats", s.name, n, len(g.sites))
	}
	return nil
}

func (g *stage) stopped(t *testing.T, where string, st step) {
	t.Helper()
	from, to, _ := strings.Cut(st.who, "->")
	from, to = g.site(from).name, g.site(to).name
	process := *g.processes[to]
	process.tb = t
	link := process.awaitLink(stepPatience/slowness, from, to, mesh.Stopped)
	if link.Error == nil || link.Error.Class != st.text {
		t.Errorf("%s: the link stopped with %+v", where, link.Error)
	}
}

func (g *stage) program(t *testing.T, where string, s *scenario, st step) {
	t.Helper()
	arguments := g.arguments(t, where, s, st.text)
	if g.wrote != nil {
		for _, s := range g.sites { // it may write to any of them
			g.pace(s)
		}
	}
	out, err := g.operate(arguments...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", where, err, out)
	}
	for _, want := range st.more {
		if !strings.Contains(out, want) {
			t.Errorf("%s: the command does not print %q:\n%s", where, want, out)
		}
	}
	g.wrote, g.wroteAt = &site{}, time.Now()
}

// arguments splits a command and replaces {...} by the id of the conflict that it describes.
func (g *stage) arguments(t *testing.T, where string, s *scenario, text string) []string {
	t.Helper()
	for {
		before, rest, found := strings.Cut(text, "{")
		if !found {
			return strings.Fields(text)
		}
		what, after, _ := strings.Cut(rest, "}")
		text = before + g.conflictID(t, where, s, what) + after
	}
}

// rows awaits what a query answers.
func (g *stage) rows(t *testing.T, where string, st step) {
	t.Helper()
	sites := g.sites
	if st.who != "" {
		sites = []*site{g.site(st.who)}
	}
	for _, s := range sites {
		var got []string
		deadline := time.Now().Add(stepPatience)
		for {
			var err error
			if got, err = answer(g.connections[s.name], st.text); err != nil {
				t.Fatalf("%s: on %s: %v", where, s.name, err)
			}
			if slices.Equal(got, st.more) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s has\n%s\nwant\n%s", where, s.name, strings.Join(got, "\n"), strings.Join(st.more, "\n"))
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// answer is the result of a query, one line a row.
func answer(conn *sql.Conn, query string) (lines []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepPatience)
	defer cancel()
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		targets := make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		texts := make([]string, len(columns))
		for i, v := range values {
			texts[i] = "NULL"
			if v.Valid {
				texts[i] = v.String
			}
		}
		lines = append(lines, strings.Join(texts, " | "))
	}
	return lines, rows.Err()
}
