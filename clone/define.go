package clone

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"replicator/change"
	"replicator/fault"
	"replicator/server"
)

// define makes databases and tables that the target lacks, drops those first that are others, and the triggers that would
// fire. It tells which tables it has made.
func (c *copying) define(ctx context.Context, conn *sql.Conn, pairs []*pair) (created map[change.TableName]bool, err error) {
	created = map[change.TableName]bool{}
	databases := map[string]bool{}
	parents := map[change.TableName]bool{}
	for _, p := range pairs {
		for _, k := range p.source.ForeignKeys {
			parents[k.Parent] = true
		}
	}
	for _, p := range pairs {
		name := p.source.Name
		if p.target != nil && p.differs == "" {
			if err := c.dropTriggers(ctx, conn, p.target); err != nil {
				return nil, err
			}
			if p.heap() && p.full {
				if err := execAll(ctx, conn, "TRUNCATE TABLE "+quoted(name)); err != nil {
					return nil, server.Fault(err, fmt.Sprintf("empty table %s on %s", name, c.Target.Name))
				}
				p.full = false
			}
			continue
		}
		if !databases[name.Database] {
			databases[name.Database] = true
			if err := c.createDatabase(ctx, conn, name.Database); err != nil {
				return nil, err
			}
		}
		if p.target != nil {
			if err := execAll(ctx, conn, "DROP TABLE "+quoted(name)); err != nil {
				return nil, server.Fault(err, fmt.Sprintf("drop table %s on %s", name, c.Target.Name))
			}
		}
		create := p.create
		// Where definitions are not compared as text, the next copy would not notice that a killed one has not made the keys.
		if p.alike && c.sizes[name].bytes >= c.deferBytes() && !parents[name] {
			create, p.keys = splitKeys(p.create)
		}
		if err := execAll(ctx, conn, "USE "+server.Quote(name.Database), create); err != nil {
			return nil, c.unmade(err, name)
		}
		created[name], p.full = true, false
	}
	return created, nil
}

// unmade says why a table could not be made. What the servers understand differs.
func (c *copying) unmade(err error, name change.TableName) error {
	doing := fmt.Sprintf("make table %s on %s", name, c.Target.Name)
	switch class := server.Classify(err); class {
	case fault.Row, fault.Bug, fault.Definition, fault.Configuration, fault.Precondition:
		return fault.Wrap(err, fault.Definition, "make the table on "+c.Target.Name+" by hand, then run it again", "%s", doing)
	default:
		return server.Fault(err, doing)
	}
}

func (c *copying) dropTriggers(ctx context.Context, conn *sql.Conn, t *server.Table) error {
	for _, trigger := range t.Triggers {
		if trigger.Guarded() {
			continue
		}
		if err := execAll(ctx, conn, "DROP TRIGGER "+server.Quote(t.Name.Database)+"."+server.Quote(trigger.Name)); err != nil {
			return server.Fault(err, fmt.Sprintf("drop trigger %s of %s on %s", trigger.Name, t.Name, c.Target.Name))
		}
	}
	return nil
}

// createDatabase makes a database with the source's character set and collation. Where the other flavor does not know the
// collation, it takes its own for the character set: tables name theirs.
func (c *copying) createDatabase(ctx context.Context, conn *sql.Conn, name string) error {
	var exists int
	if err := conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?", name).Scan(&exists); err != nil {
		return server.Fault(err, "look for database "+name+" on "+c.Target.Name)
	}
	if exists > 0 {
		return nil
	}
	var same, text, charset string
	if err := c.Source.DB.QueryRowContext(ctx, "SHOW CREATE DATABASE "+server.Quote(name)).Scan(&same, &text); err != nil {
		return server.Fault(err, "read the definition of database "+name+" on "+c.Source.Name)
	}
	const find = "SELECT DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?"
	if err := c.Source.DB.QueryRowContext(ctx, find, name).Scan(&charset); err != nil {
		return server.Fault(err, "read the character set of database "+name+" on "+c.Source.Name)
	}
	err := execAll(ctx, conn, text)
	if err != nil && server.Classify(err) != fault.Privilege {
		err = execAll(ctx, conn, "CREATE DATABASE "+server.Quote(name)+" CHARACTER SET "+strings.TrimSpace(charset))
	}
	if err != nil {
		return server.Fault(err, "make database "+name+" on "+c.Target.Name)
	}
	return nil
}

// finish makes sure that what was copied is still the source's definition, and gives counters the source's values.
func (c *copying) finish(ctx context.Context) error {
	conn, err := c.targetSession(ctx)
	if err != nil {
		return err
	}
	defer discard(conn)
	for _, j := range c.jobs {
		now, err := c.Source.createTable(ctx, c.Source.DB, j.name)
		if err != nil && !server.IsStaleView(err) {
			return err
		}
		if definitionText(now) != definitionText(j.create) {
			return fault.New(fault.Busy, "run it again, and let nobody change definitions meanwhile", "table %s was defined anew on %s while it was copied", j.name, c.Source.Name)
		}
		there, err := c.Target.createTable(ctx, conn, j.name)
		if err != nil {
			return err
		}
		if next := counterOf(j.create); next > counterOf(there) {
			if err := execAll(ctx, conn, fmt.Sprintf("ALTER TABLE %s AUTO_INCREMENT = %d", quoted(j.name), next)); err != nil {
				return server.Fault(err, fmt.Sprintf("set the counter of %s on %s", j.name, c.Target.Name))
			}
		}
	}
	return nil
}
