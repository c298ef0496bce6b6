package clone

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"replicator/change"
	"replicator/dml"
	"replicator/fault"
	"replicator/server"
)

// object is a view, routine, trigger or event.
type object struct {
	kind     string // as SHOW CREATE calls it: "VIEW", "PROCEDURE"
	database string
	name     string
}

// String is how reports call it.
func (o object) String() string {
	return strings.ToLower(o.kind) + " " + o.database + "." + o.name
}

func (o object) quoted() string { return server.Quote(o.database) + "." + server.Quote(o.name) }

// definition is what SHOW CREATE says of an object.
type definition struct {
	text      string // in the character set client
	mode      string
	client    string
	collation string
	zone      string // of events
}

// listings find the objects of a kind: columns kind, database, name, and, of triggers, the table.
var listings = map[string]string{
	"routines": `SELECT ROUTINE_TYPE, ROUTINE_SCHEMA, ROUTINE_NAME, '' FROM information_schema.ROUTINES ORDER BY ROUTINE_SCHEMA, ROUTINE_TYPE, ROUTINE_NAME`,
	"views":    `SELECT 'VIEW', TABLE_SCHEMA, TABLE_NAME, '' FROM information_schema.VIEWS ORDER BY TABLE_SCHEMA, TABLE_NAME`,
	"triggers": `SELECT 'TRIGGER', EVENT_OBJECT_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS
 ORDER BY EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER`,
	"events": `SELECT 'EVENT', EVENT_SCHEMA, EVENT_NAME, '' FROM information_schema.EVENTS ORDER BY EVENT_SCHEMA, EVENT_NAME`,
}

// copyObjects makes what else is asked for. What the target refuses is reported, and is no error.
func (c *copying) copyObjects(ctx context.Context, report *Report) error {
	if len(c.With) == 0 {
		return nil
	}
	from, err := c.Source.DB.Conn(ctx)
	if err != nil {
		return server.Fault(err, "connect to "+c.Source.Name)
	}
	defer discard(from)
	to, err := c.targetSession(ctx)
	if err != nil {
		return err
	}
	defer discard(to)
	for _, kind := range Kinds {
		if !c.with(kind) {
			continue
		}
		objects, err := c.list(ctx, from, kind)
		if err != nil {
			return err
		}
		if err := c.makeAll(ctx, from, to, objects, report); err != nil {
			return err
		}
	}
	return nil
}

// list finds the objects of a kind: those of the tables' databases, and triggers of the tables.
func (c *copying) list(ctx context.Context, from *sql.Conn, kind string) ([]object, error) {
	databases := map[string]bool{}
	names := c.names()
	for n := range names {
		databases[n.Database] = true
	}
	rows, err := from.QueryContext(ctx, listings[kind])
	if err != nil {
		return nil, server.Fault(err, "list "+kind+" on "+c.Source.Name)
	}
	defer rows.Close()
	var all []object
	for rows.Next() {
		var o object
		var table string
		if err := rows.Scan(&o.kind, &o.database, &o.name, &table); err != nil {
			return nil, server.Fault(err, "list "+kind+" on "+c.Source.Name)
		}
		if databases[o.database] && (kind != "triggers" || names[change.TableName{Database: o.database, Table: table}]) {
			all = append(all, o)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, server.Fault(err, "list "+kind+" on "+c.Source.Name)
	}
	return all, nil
}

// makeAll makes objects, of which some may need others: as long as one more succeeds, the rest is tried again.
func (c *copying) makeAll(ctx context.Context, from, to *sql.Conn, objects []object, report *Report) error {
	for {
		var left []object
		var why []string
		for _, o := range objects {
			made, err := c.makeOne(ctx, from, to, o)
			switch {
			case err != nil && (ctx.Err() != nil || server.Classify(err) == fault.Network):
				return fmt.Errorf("copy %s: %w", o, err)
			case err != nil:
				left, why = append(left, o), append(why, o.String()+": "+reason(err))
			case made && o.kind == "EVENT":
				report.Objects = append(report.Objects, o.String()+" (disabled)")
			case made:
				report.Objects = append(report.Objects, o.String())
			}
		}
		if len(left) == 0 || len(left) == len(objects) {
			report.Missing = append(report.Missing, why...)
			return nil
		}
		objects = left
	}
}

// reason is what an error says, without what to do.
func reason(err error) string {
	if f, ok := fault.As(err); ok {
		return f.Text()
	}
	return err.Error()
}

// makeOne makes an object on the target as it is on the source; made is false where it is there already.
func (c *copying) makeOne(ctx context.Context, from, to *sql.Conn, o object) (made bool, err error) {
	want, err := show(ctx, from, o)
	if err != nil {
		return false, err
	}
	if want == nil {
		return false, fmt.Errorf("it is no longer on %s", c.Source.Name)
	}
	there, err := show(ctx, to, o)
	if err != nil {
		return false, err
	}
	if there != nil {
		switch {
		case disabled(there.text) == disabled(want.text) && there.mode == want.mode:
			return false, nil
		case !c.Replace:
			return false, fmt.Errorf("%s has another one of that name", c.Target.Name)
		}
		if err := execAll(ctx, to, "DROP "+o.kind+" "+o.quoted()); err != nil {
			return false, err
		}
	}
	if o.kind == "EVENT" { // it would do on two servers what is copied from one to the other
		want.text = disabled(want.text)
	}
	if err := create(ctx, to, o, want); err != nil {
		if there != nil { // better the old one than none
			_ = create(ctx, to, o, there)
		}
		return false, err
	}
	return true, nil
}

// show reads an object's definition, nil where there is no such object. A view comes in utf8mb4; the others keep the bytes
// that they were written in.
func show(ctx context.Context, conn *sql.Conn, o object) (*definition, error) {
	results := dml.RawResults
	if o.kind == "VIEW" {
		results = "SET SESSION character_set_results = utf8mb4"
	}
	if err := execAll(ctx, conn, results); err != nil {
		return nil, err
	}
	rows, err := conn.QueryContext(ctx, "SHOW CREATE "+o.kind+" "+o.quoted())
	if missing := server.IsMissingObject(err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values, into := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	if !rows.Next() {
		return nil, rows.Err()
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	d := &definition{}
	for i, name := range names {
		switch lower := strings.ToLower(name); {
		case strings.HasPrefix(lower, "create "), lower == "sql original statement":
			d.text = values[i].String
		case lower == "sql_mode":
			d.mode = values[i].String
		case lower == "character_set_client":
			d.client = values[i].String
		case lower == "collation_connection":
			d.collation = values[i].String
		case lower == "time_zone":
			d.zone = values[i].String
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if d.text == "" {
		return nil, errors.New("the account may not read its definition")
	}
	return d, nil
}

// create makes an object in the setting that it was made in on the other server.
func create(ctx context.Context, conn *sql.Conn, o object, d *definition) error {
	set := "SET SESSION character_set_client = " + server.QuoteText(d.client)
	if o.kind == "VIEW" {
		set = "SET SESSION character_set_client = utf8mb4"
	} else {
		set += ", sql_mode = " + server.QuoteText(d.mode)
	}
	set += ", collation_connection = " + server.QuoteText(d.collation)
	if d.zone != "" {
		set += ", time_zone = " + server.QuoteText(d.zone)
	}
	err := execAll(ctx, conn, "USE "+server.Quote(o.database), set, d.text)
	back := execAll(ctx, conn, "SET NAMES utf8mb4",
		"SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'")
	if err == nil {
		err = back
	}
	return err
}

// state finds what SHOW CREATE EVENT says about whether the event runs.
var state = regexp.MustCompile(` ON COMPLETION (?:NOT )?PRESERVE (ENABLE|DISABLE ON SLAVE|DISABLE ON REPLICA|DISABLE)`)

// disabled is an event's definition as that of one that does not run; other texts stay as they are.
func disabled(text string) string {
	at := state.FindStringSubmatchIndex(text)
	if at == nil || !slices.Contains(strings.Fields(text[:at[0]]), "EVENT") {
		return text
	}
	return text[:at[2]] + "DISABLE" + text[at[3]:]
}
