package dml

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"

	"replicator/change"
	"replicator/image"
)

// Querier runs a query: a *sql.DB, *sql.Conn or *sql.Tx.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Lock makes a statement that locks the rows with the keys of the images, and returns the number of the image of each row
// that exists. The primary key is forced, so that nothing else is locked.
func (p *Plan) Lock(images [][]byte) (query string, args []any, err error) {
	conditions, err := p.imageConditions(images)
	if err != nil {
		return "", nil, err
	}
	s := p.selectStatement(conditions, "", " FORCE INDEX (PRIMARY)", Options{Lock: true})
	return string(s.Text), s.Args, nil
}

// Options of a Query.
type Options struct {
	Lock  bool // FOR UPDATE
	Limit int  // of rows; 0 is none
}

// Query is a SELECT that reads whole rows of the target.
type Query struct {
	Text string
	Args []any
	plan *Plan
}

// Found is a row that the target has.
type Found struct {
	// Index is the number of the first of the things asked for that the row meets.
	Index int
	// Values are one per column of the source's table, as image.Values gives them; Null where the target does not have the
	// column. JSON has no Document. A value that the target holds and the source's column could not (a longer text, more
	// digits) comes as it is.
	Values []image.Value
}

// SelectImages asks for the rows with the primary keys of the images; Found.Index is the image.
func (p *Plan) SelectImages(images [][]byte, o Options) (*Query, error) {
	conditions, err := p.imageConditions(images)
	if err != nil {
		return nil, err
	}
	return p.query(conditions, " FORCE INDEX (PRIMARY)", o), nil
}

// SelectRows asks for the rows with the primary keys of rows, which have one value per column of the source's table;
// Found.Index is the row.
func (p *Plan) SelectRows(rows [][]image.Value, o Options) (*Query, error) {
	conditions, err := p.rowConditions(rows)
	if err != nil {
		return nil, err
	}
	return p.query(conditions, " FORCE INDEX (PRIMARY)", o), nil
}

// SelectWhere asks for the rows in which the parts (columns of the source's table, of which the first characters alone
// count where a part has a prefix) equal the values of one of the tuples; each tuple has a value per part, and Null asks
// for NULL. Found.Index is the tuple.
func (p *Plan) SelectWhere(parts []change.KeyPart, tuples [][]image.Value, o Options) (*Query, error) {
	conditions := make([]Statement, len(tuples))
	for i, tuple := range tuples {
		r := &conditions[i]
		r.Text = append(r.Text, '(')
		for j, part := range parts {
			c := p.column(part.Column)
			if c == nil {
				return nil, p.refuse("it does not have column %s", p.source.Columns[part.Column].Name)
			}
			if j > 0 {
				r.Text = append(r.Text, " AND "...)
			}
			if err := c.appendEqual(r, tuple[j], part.Prefix); err != nil {
				return nil, fmt.Errorf("table %s: %w", p.source.Name, err)
			}
		}
		r.Text = append(r.Text, ')')
	}
	return p.query(conditions, "", o), nil
}

// column is the plan of a source's column, nil when the target does not have it.
func (p *Plan) column(source int) *columnPlan {
	for i := range p.columns {
		if p.columns[i].source == source {
			return &p.columns[i]
		}
	}
	return nil
}

func (p *Plan) imageConditions(images [][]byte) ([]Statement, error) {
	rows := make([][]image.Value, len(images))
	for i, img := range images {
		var err error
		if rows[i], err = image.Values(p.source, img); err != nil {
			return nil, err
		}
	}
	return p.rowConditions(rows)
}

func (p *Plan) rowConditions(rows [][]image.Value) ([]Statement, error) {
	conditions := make([]Statement, len(rows))
	for i, values := range rows {
		if err := p.appendCondition(&conditions[i], values); err != nil {
			return nil, fmt.Errorf("table %s: %w", p.source.Name, err)
		}
	}
	return conditions, nil
}

func (p *Plan) query(conditions []Statement, hint string, o Options) *Query {
	s := p.selectStatement(conditions, p.expressions(), hint, o)
	return &Query{Text: string(s.Text), Args: s.Args, plan: p}
}

// selectStatement selects the number of the condition that a row meets, then columns.
func (p *Plan) selectStatement(conditions []Statement, columns, hint string, o Options) Statement {
	var which, where Statement
	which.Text = append(which.Text, "SELECT CASE"...)
	for i := range conditions {
		c := &conditions[i]
		which.Text = append(append(which.Text, " WHEN "...), c.Text...)
		which.Text = strconv.AppendInt(append(which.Text, " THEN "...), int64(i), 10)
		which.Args = append(which.Args, c.Args...)
		if i > 0 {
			where.Text = append(where.Text, " OR "...)
		}
		where.Text = append(append(append(where.Text, '('), c.Text...), ')')
		where.Args = append(where.Args, c.Args...)
	}
	which.Text = append(append(which.Text, " END"...), columns...)
	which.Text = append(append(append(append(which.Text, " FROM "...), p.name...), hint...), " WHERE "...)
	which.Text = append(which.Text, where.Text...)
	if o.Limit > 0 {
		which.Text = strconv.AppendInt(append(which.Text, " LIMIT "...), int64(o.Limit), 10)
	}
	if o.Lock {
		which.Text = append(which.Text, " FOR UPDATE"...)
	}
	which.Args = append(which.Args, where.Args...)
	return which
}

// Run reads the rows. Errors of the server come wrapped; a value that the source's column has no word for (a label of an
// ENUM that only the target knows) is a fault of class Definition.
func (q *Query) Run(ctx context.Context, on Querier) ([]Found, error) {
	rows, err := on.QueryContext(ctx, q.Text, q.Args...)
	if err != nil {
		return nil, fmt.Errorf("read rows of %s: %w", q.plan.source.Name, err)
	}
	defer rows.Close()
	var all []Found
	for rows.Next() {
		f := Found{}
		raw := make([][]byte, len(q.plan.columns))
		into := []any{&f.Index}
		for i := range raw {
			into = append(into, &raw[i])
		}
		if err := rows.Scan(into...); err != nil {
			return nil, fmt.Errorf("read rows of %s: %w", q.plan.source.Name, err)
		}
		if f.Values, err = q.plan.values(raw); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read rows of %s: %w", q.plan.source.Name, err)
	}
	return all, nil
}

// values puts what was read into the order of the source's columns.
func (p *Plan) values(raw [][]byte) ([]image.Value, error) {
	values := make([]image.Value, len(p.source.Columns))
	for i := range p.columns {
		c := &p.columns[i]
		if raw[i] == nil {
			continue
		}
		v, err := c.parse(&p.source.Columns[c.source], raw[i])
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", p.source.Name, err)
		}
		values[c.source] = v
	}
	return values, nil
}
