package dml

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"replicator/change"
	"replicator/image"
)

// Statement is the SQL of one row change, for a session with the settings of package server and SET NAMES utf8mb4. Rows
// of the same kind and form are joined by appending what follows Head behind a Separator; one without a Separator stands
// alone.
type Statement struct {
	Text      []byte
	Head      int
	Separator string
	Tail      string // ends the statement, behind the last row; not part of Text
	Args      []any
	Loose     bool // holds an ENUM's error value 0, which strict mode refuses

	literal bool // for people: no arguments, and texts as they read
}

// ArgBytes is the size of the bytes among the arguments.
func (r *Statement) ArgBytes() (n int) {
	for _, a := range r.Args {
		if b, ok := a.([]byte); ok {
			n += len(b)
		}
	}
	return n
}

// Execer runs statements: a *sql.DB, *sql.Conn or *sql.Tx.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// The modes of a session: strict, as package server opens it, and one in which an ENUM takes its error value 0. Nothing
// else can go wrong in the latter unnoticed: a Plan has made sure that every other value fits.
const (
	looseMode  = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"
	strictMode = "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"
)

// Exec runs the statement on one session, and returns the number of rows that it found. Errors are the server's own.
func (r *Statement) Exec(ctx context.Context, on Execer) (found int64, err error) {
	if r.Loose {
		if _, err := on.ExecContext(ctx, looseMode); err != nil {
			return 0, fmt.Errorf("switch strict mode off: %w", err)
		}
		defer func() {
			if _, back := on.ExecContext(ctx, strictMode); back != nil {
				err = errors.Join(err, fmt.Errorf("switch strict mode on: %w", back))
			}
		}()
	}
	result, err := on.ExecContext(ctx, string(r.Text), r.Args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Change is one row change by values, one per column of the source's table. Insert has no Before, Delete no After; of
// Before only the primary key is looked at.
type Change struct {
	Kind          change.RowKind
	Before, After []image.Value
	// Only are the columns that an Update sets, as indexes into the source's columns; nil is all. The others keep their
	// values, those with ON UPDATE included.
	Only []int
	// Add are columns of an Update to which the difference of After and Before is added, in the place of After.
	Add []int
}

// RenderOp is Render for row images.
func (p *Plan) RenderOp(op image.Op) (*Statement, error) {
	c, err := p.change(op)
	if err != nil {
		return nil, err
	}
	return p.Render(c)
}

func (p *Plan) change(op image.Op) (Change, error) {
	c := Change{Kind: op.Kind, Only: op.Only, Add: op.Add}
	var err error
	if op.Kind != change.Insert {
		if c.Before, err = image.Values(p.source, op.Before); err != nil {
			return c, err
		}
	}
	if op.Kind != change.Delete {
		c.After, err = image.Values(p.source, op.After)
	}
	return c, err
}

// Render makes the statement of a row change. A value that the target would not take unchanged is a fault of class
// Definition.
func (p *Plan) Render(c Change) (*Statement, error) { return p.render(&Statement{}, c) }

// RenderText is Render for people: a statement without arguments.
func (p *Plan) RenderText(c Change) (string, error) {
	r, err := p.render(&Statement{literal: true}, c)
	if err != nil {
		return "", err
	}
	return string(r.Text), nil
}

func (p *Plan) render(r *Statement, c Change) (*Statement, error) {
	var err error
	switch c.Kind {
	case change.Insert:
		r.Text = append(r.Text, p.head...)
		r.Head, r.Separator = len(r.Text), ","
		err = p.appendTuple(r, c.After)
	case change.Update:
		r.Text = append(append(append(r.Text, "UPDATE "...), p.name...), " SET "...)
		if err = p.appendAssignments(r, c); err == nil {
			r.Text = append(r.Text, " WHERE "...)
			err = p.appendCondition(r, c.Before)
		}
	case change.Delete:
		r.Text = append(append(append(r.Text, "DELETE FROM "...), p.name...), " WHERE "...)
		// MariaDB finds no index for a list of tuples.
		r.Head, r.Separator = len(r.Text), " OR "
		err = p.appendCondition(r, c.Before)
	}
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", p.source.Name, err)
	}
	return r, nil
}

func (p *Plan) appendTuple(r *Statement, values []image.Value) error {
	separator := byte('(')
	for i := range p.columns {
		if p.columns[i].generated {
			continue
		}
		r.Text = append(r.Text, separator)
		separator = ','
		if err := p.columns[i].appendValue(r, values[p.columns[i].source]); err != nil {
			return err
		}
	}
	r.Text = append(r.Text, ')')
	return nil
}

// appendAssignments names every column: the row may hold anything, and columns with ON UPDATE would change by themselves.
func (p *Plan) appendAssignments(r *Statement, change Change) error {
	values, only := change.After, change.Only
	separator := ""
	for i := range p.columns {
		c := &p.columns[i]
		if c.generated {
			continue
		}
		keep := only != nil && !slices.Contains(only, c.source)
		if keep && !c.automatic {
			continue
		}
		r.Text = append(append(append(r.Text, separator...), c.quoted...), '=')
		separator = ","
		if keep {
			r.Text = append(r.Text, c.quoted...)
			continue
		}
		value := values[c.source]
		if slices.Contains(change.Add, c.source) {
			var err error
			if value, err = difference(&change.Before[c.source], &value); err != nil {
				return c.refuse("%v", err)
			}
			r.Text = append(append(r.Text, c.quoted...), '+')
		}
		if err := c.appendValue(r, value); err != nil {
			return err
		}
	}
	if separator == "" { // everything else is generated: the row is only to be found
		key := &p.columns[p.keys[0]]
		r.Text = append(append(append(r.Text, key.quoted...), '='), key.quoted...)
	}
	return nil
}

// difference is what an update adds to a number.
func difference(before, after *image.Value) (image.Value, error) {
	a, err := exact(before)
	if err != nil {
		return image.Value{}, err
	}
	b, err := exact(after)
	if err != nil {
		return image.Value{}, err
	}
	digits := 0
	if i := bytes.IndexByte(after.Bytes, '.'); i >= 0 {
		digits = len(after.Bytes) - i - 1
	}
	text := b.Sub(b, a).FloatString(digits)
	return image.Value{Kind: image.Number, Bytes: []byte("(" + text + ")")}, nil
}

func exact(v *image.Value) (*big.Rat, error) {
	n := new(big.Rat)
	switch v.Kind {
	case image.Int:
		return n.SetInt64(v.Int), nil
	case image.Uint:
		return n.SetUint64(v.Uint), nil
	case image.Number:
		if _, ok := n.SetString(string(v.Bytes)); ok {
			return n, nil
		}
	default:
	}
	return nil, errors.New("only whole numbers and decimals that are not NULL can be added")
}

// appendCondition names a row by its primary key.
func (p *Plan) appendCondition(r *Statement, values []image.Value) error {
	r.Text = append(r.Text, '(')
	for i, k := range p.keys {
		c := &p.columns[k]
		if i > 0 {
			r.Text = append(r.Text, " AND "...)
		}
		if err := c.appendEqual(r, values[c.source], c.keyPrefix); err != nil {
			return err
		}
	}
	r.Text = append(r.Text, ')')
	return nil
}

// appendEqual compares a column with a value. With a prefix the first characters alone count: a key holds no more, and the
// rest may have been changed.
func (c *columnPlan) appendEqual(r *Statement, v image.Value, prefix int) error {
	if v.Kind == image.Null {
		r.Text = append(append(r.Text, c.quoted...), " IS NULL"...)
		return nil
	}
	return c.appendCompared(r, v, "=", prefix)
}

// appendCompared compares a column with a value that is not NULL.
func (c *columnPlan) appendCompared(r *Statement, v image.Value, operator string, prefix int) error {
	if prefix > 0 {
		r.Text = fmt.Appendf(r.Text, "LEFT(%s,%d)%sLEFT(", c.quoted, prefix, operator)
	} else {
		r.Text = append(append(r.Text, c.quoted...), operator...)
	}
	if err := c.appendValue(r, v); err != nil {
		return err
	}
	if prefix > 0 {
		r.Text = fmt.Appendf(r.Text, ",%d)", prefix)
	}
	return nil
}
