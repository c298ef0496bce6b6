package clone

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"replicator/change"
	"replicator/dml"
	"replicator/fault"
	"replicator/server"
)

// pair is one table on both sides.
type pair struct {
	source *server.Table
	target *server.Table // nil: it is not there
	create string        // SHOW CREATE TABLE of the source
	// differs says why the target's definition is another one; "": it is not.
	differs string
	keys    []string // of the source's, that the target's table is given when it has its rows
	full    bool     // the target's table has rows
	alike   bool     // both servers print definitions alike
}

// heap reports whether the table has no primary key.
func (p *pair) heap() bool { return len(dml.TableOf(p.source).PrimaryKey) == 0 }

// survey reads the definitions of all tables on both sides, in the order of their names.
func (o *Options) survey(ctx context.Context) ([]*pair, error) {
	names := o.names()
	match := func(n change.TableName) bool { return names[n] }
	sources, err := server.Tables(ctx, o.Source.DB, match)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Source.Name, err)
	}
	if len(sources) < len(names) {
		return nil, fault.New(fault.Busy, "run it again, and let nobody change definitions meanwhile",
			"%d of %d tables are no longer on %s", len(names)-len(sources), len(names), o.Source.Name)
	}
	targets, err := server.Tables(ctx, o.Target.DB, match)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Target.Name, err)
	}
	alike, err := o.sameVersion(ctx)
	if err != nil {
		return nil, err
	}
	pairs := make([]*pair, len(sources))
	for i, t := range sources {
		p := &pair{source: t, alike: alike}
		pairs[i] = p
		if p.create, err = o.Source.createTable(ctx, o.Source.DB, t.Name); err != nil {
			return nil, err
		}
		at := slices.IndexFunc(targets, func(x *server.Table) bool { return x.Name == t.Name })
		if at < 0 {
			continue
		}
		p.target = targets[at]
		if p.differs, err = o.differs(ctx, p); err != nil {
			return nil, err
		}
		if p.full, err = o.Target.hasRows(ctx, t.Name); err != nil {
			return nil, err
		}
	}
	return pairs, nil
}

// sameVersion reports whether both servers print definitions alike.
func (o *Options) sameVersion(ctx context.Context) (bool, error) {
	var versions [2]string
	for i, s := range []Side{o.Source, o.Target} {
		if err := s.DB.QueryRowContext(ctx, "SELECT VERSION()").Scan(&versions[i]); err != nil {
			return false, server.Fault(err, "ask "+s.Name+" for its version")
		}
	}
	return versions[0] == versions[1], nil
}

// quoted is a table's name in SQL.
func quoted(n change.TableName) string { return server.Quote(n.Database) + "." + server.Quote(n.Table) }

// createTable reads the statement that makes a table.
func (s Side) createTable(ctx context.Context, q server.Querier, n change.TableName) (string, error) {
	var name, text string
	if err := q.QueryRowContext(ctx, "SHOW CREATE TABLE "+quoted(n)).Scan(&name, &text); err != nil {
		return "", server.Fault(err, fmt.Sprintf("read the definition of %s on %s", n, s.Name))
	}
	return text, nil
}

func (s Side) hasRows(ctx context.Context, n change.TableName) (bool, error) {
	var one int
	err := s.DB.QueryRowContext(ctx, "SELECT 1 FROM "+quoted(n)+" LIMIT 1").Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, server.Fault(err, fmt.Sprintf("look for rows of %s on %s", n, s.Name))
	}
	return true, nil
}

// differs says in what the target's definition is another one. Servers of one version print equal definitions alike; between
// others what matters to rows is compared.
func (o *Options) differs(ctx context.Context, p *pair) (string, error) {
	if p.alike {
		there, err := o.Target.createTable(ctx, o.Target.DB, p.target.Name)
		if err != nil {
			return "", err
		}
		a, b := definitionText(p.create), definitionText(there)
		keys, same := missingKeys(a, b)
		if same && (len(keys) == 0 || o.Replace) { // a copy that was killed may not have made them yet
			p.keys = keys
			return "", nil
		}
		return firstDifference(a, b), nil
	}
	source := dml.TableOf(p.source)
	if _, err := o.plan(source, p.target); err != nil {
		if f, ok := fault.As(err); ok {
			return f.Text(), nil
		}
		return "", err
	}
	if !o.mixed() {
		if same, why := dml.SameLayout(source, p.target); !same {
			return why, nil
		}
	}
	if s, t := uniqueKeys(p.source), uniqueKeys(p.target); s != t {
		return fmt.Sprintf("its unique keys are [%s], on the source [%s]", t, s), nil
	}
	return "", nil
}

// plan says how rows of a table are written into one of the target.
func (o *Options) plan(source *change.Table, target *server.Table) (*dml.Plan, error) {
	if len(source.PrimaryKey) == 0 {
		return dml.NewHeap(source, target, o.mixed())
	}
	return dml.NewPlan(source, target, o.mixed())
}

// uniqueKeys are the secondary unique keys as text; their names do not matter.
func uniqueKeys(t *server.Table) string {
	var all []string
	for _, k := range t.UniqueKeys {
		var parts []string
		for _, p := range k.Parts {
			name := "an expression"
			if p.Column >= 0 {
				name = strings.ToLower(t.Columns[p.Column].Name)
			}
			parts = append(parts, fmt.Sprintf("%s:%d", name, p.Prefix))
		}
		all = append(all, strings.Join(parts, ","))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// counter finds AUTO_INCREMENT among the options behind a table's columns.
var counter = regexp.MustCompile(`(?m)^(\).*?) AUTO_INCREMENT=(\d+)`)

// collated finds the character set that a column's collation implies: MySQL prints it where it was given with the column, as
// in a definition that it has printed itself.
var collated = regexp.MustCompile(` CHARACTER SET \w+( COLLATE )`)

// definitionText is a definition in the form in which two of them are compared.
func definitionText(create string) string {
	return collated.ReplaceAllString(counter.ReplaceAllString(create, "$1"), "$1")
}

// counterOf is the next number that a table gives, 0 where it has given none.
func counterOf(create string) uint64 {
	m := counter.FindStringSubmatch(create)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseUint(m[2], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// firstDifference names the first line in which two definitions differ, "" when they are equal.
func firstDifference(source, target string) string {
	if source == target {
		return ""
	}
	a, b := strings.Split(source, "\n"), strings.Split(target, "\n")
	line := func(lines []string, i int) string {
		if i >= len(lines) {
			return "nothing"
		}
		return strings.TrimSuffix(strings.TrimSpace(lines[i]), ",")
	}
	for i := range max(len(a), len(b)) {
		if s, t := line(a, i), line(b, i); s != t {
			return fmt.Sprintf("it has %s, the source has %s", t, s)
		}
	}
	return "they differ in commas" // a column more at the end differs in its own line before
}
