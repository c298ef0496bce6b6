package clone

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"replicator/fault"
	"replicator/server"
)

// named is how many tables one message names.
const named = 10

// Check refuses, before anything is changed, what cannot be done. Each problem is a fault with its remedy; several are joined.
func Check(ctx context.Context, o *Options) error {
	if err := o.unknownKinds(); err != nil {
		return err
	}
	pairs, err := o.survey(ctx)
	if err != nil {
		return err
	}
	problems := o.problems(pairs)
	if conn, err := o.Target.writing(ctx, o.Unlogged); err != nil {
		problems = append(problems, err)
	} else {
		discard(conn)
	}
	return join(problems)
}

// join makes one error of several, which stays itself where it is the only one.
func join(problems []error) error {
	if len(problems) == 1 {
		return problems[0]
	}
	return errors.Join(problems...)
}

// problems are what keeps the tables from being copied.
func (o *Options) problems(pairs []*pair) []error {
	var all []error
	refuse := func(remedy, format string, args ...any) {
		all = append(all, fault.New(fault.Definition, remedy, format, args...))
	}
	var full []string
	for _, p := range pairs {
		name := p.source.Name
		if p.source.Kind != "BASE TABLE" {
			refuse("leave it out of the replicated tables", "%s is a %s on %s, which cannot be copied", name, strings.ToLower(p.source.Kind), o.Source.Name)
		} else if !strings.EqualFold(p.source.Engine, "InnoDB") {
			refuse(fmt.Sprintf("ALTER TABLE %s ENGINE = InnoDB, or leave it out of the replicated tables", quoted(name)),
				"table %s is %s on %s, which no snapshot can show", name, p.source.Engine, o.Source.Name)
		}
		if label := p.lostLabel(); label != "" && (p.target == nil || p.differs != "") {
			refuse("make the table on "+o.Target.Name+" by hand, then run it again",
				"table %s has label %s: servers print characters outside of the basic plane as question marks, so the label cannot be made from that", name, label)
			continue
		}
		if p.target == nil {
			continue
		}
		switch {
		case p.differs != "" && o.mixed():
			refuse("change its definition on "+o.Target.Name+" by hand", "table %s on %s: %s", name, o.Target.Name, p.differs)
		case p.differs != "" && !o.Replace:
			refuse("add --replace: it is then dropped and made anew; or change its definition by hand",
				"table %s on %s is defined otherwise: %s", name, o.Target.Name, p.differs)
		case p.differs == "":
			all = append(all, o.firing(p)...)
		}
		if p.full && !o.Replace {
			full = append(full, name.String())
		}
	}
	if len(full) > 0 {
		rest := ""
		if len(full) > named {
			rest = fmt.Sprintf(" and %d more", len(full)-named)
		}
		all = append(all, fault.New(fault.Precondition, "add --replace: rows that differ are replaced, and others removed; or empty them",
			"tables on %s have rows already, %d of them: %s%s", o.Target.Name, len(full), strings.Join(full[:min(named, len(full))], ", "), rest))
	}
	return all
}

// lostLabel is a label of an ENUM or SET of which SHOW CREATE TABLE may not tell all, "" where there is none.
func (p *pair) lostLabel() string {
	for _, c := range p.source.Columns {
		if (c.DataType == "enum" || c.DataType == "set") && strings.Contains(c.Type, "?") {
			return c.Name + " " + c.Type
		}
	}
	return ""
}

// firing are the triggers of a table that stays that would fire for the rows that are copied.
func (o *Options) firing(p *pair) []error {
	var all []error
	for _, t := range p.target.Triggers {
		if t.Guarded() || o.Replace && o.with("triggers") {
			continue
		}
		remedy := t.Remedy() + "; or drop it; or add --replace and --with triggers: it is then replaced by those of " + o.Source.Name
		all = append(all, fault.New(fault.Definition, remedy, "trigger %s of table %s on %s would fire for copied rows", t.Name, p.target.Name, o.Target.Name))
	}
	return all
}

// prepare makes the tables on the target that are not there, or are others, and plans the copy of each.
func (c *copying) prepare(ctx context.Context) error {
	if err := c.unknownKinds(); err != nil {
		return err
	}
	pairs, err := c.survey(ctx)
	if err != nil {
		return err
	}
	if err := join(c.problems(pairs)); err != nil {
		return err
	}
	conn, err := c.targetSession(ctx)
	if err != nil {
		return err
	}
	defer discard(conn)
	if err := conn.QueryRowContext(ctx, "SELECT @@max_allowed_packet").Scan(&c.packet); err != nil {
		return server.Fault(err, "ask "+c.Target.Name+" for max_allowed_packet")
	}
	if c.sizes, err = c.readSizes(ctx, c.snap.Session()); err != nil {
		return err
	}
	created, err := c.define(ctx, conn, pairs)
	if err != nil {
		return err
	}
	return c.plans(ctx, pairs, created)
}
