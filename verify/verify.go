// Package verify compares the tables of all servers of a mesh while they are written to.
//
// Two readings of servers that replicate to each other differ all the time: changes are under way. A row differs only if it
// still does after every link has applied whatever the servers held when the row was read, and it has not been changed
// anywhere meanwhile.
package verify

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/image"
	"replicator/journal"
	"replicator/resync/chunk"
	"replicator/server"
)

// Server is one of the servers that are compared.
type Server struct {
	Name    string
	DB      *sql.DB
	ID      change.ServerID
	Flavor  change.Flavor
	Dialect server.Dialect
}

// Link applies one server's changes to another: indexes into the servers.
type Link struct{ From, To int }

// Options say what is compared, and how.
type Options struct {
	Match func(change.TableName) bool
	// Check is asked before the comparison whether these are the tables that were meant. Optional.
	Check func(names []change.TableName) error
	// Numbered reports whether each server gives the rows of a table numbers of its own.
	Numbered func(*change.Table) bool
	// Scope says in words what Match accepts: a comparison goes on where an earlier one of the same scope, limit and servers
	// was when it was killed.
	Scope string
	// Anew has it begin at the beginning instead.
	Anew bool
	// Passing leaves nothing behind: neither how far the comparison was nor what it has found.
	Passing bool
	// Where is a condition (SQL) that the rows must meet; "" is none.
	Where string
	// Others are servers that are not compared. Links of theirs lead to those that are, with indexes behind the servers'.
	Others []Server
	// Limit is how many differences of a table are kept; all are counted.
	Limit int
	// Quick ends the comparison of a table at its first difference, which is not kept.
	Quick bool
	// Patience bounds the wait for a link. Optional: a minute.
	Patience time.Duration
	// Rounds is how often rows are looked at that are changed all the time. Optional: 30.
	Rounds int
	// Progress is told of each piece of a table. Optional.
	Progress func(Progress)
	// Note is told, in a sentence, where a comparison begins that does not begin at the beginning, and what cannot be kept of
	// it. Optional.
	Note func(text string)
	// Conclude is called in the transaction that records on the first server what was found. Optional.
	Conclude func(ctx context.Context, q checkpoint.Querier, r *Report) error

	// What tests set; 0 is what is usual.
	pause time.Duration // between two records of how far it is
	open  int           // rows that wait to be looked at again
}

// Progress is how far a table is.
type Progress struct {
	Table change.TableName
	Rows  int64 // compared so far, of the server with the most
	Open  int   // differences that are looked at again
}

// Report is what was found.
type Report struct {
	Tables  []Table
	Elapsed time.Duration
}

// Table is what was found in one table.
type Table struct {
	Name  change.TableName
	Began time.Time // by the first server's clock; zero: it was not compared
	Rows  []int64   // by server, as they were counted on the way
	Total int64     // differences
	// Differences are the first of them.
	Differences []Difference
	// Err says why the comparison is not complete: then nothing but the differences is known.
	Err error
	// Skipped says why the table is none that can be compared; "" of all others.
	Skipped string
	// Lonely are columns that were not compared, because the first server does not have them: "name (server)".
	Lonely []string

	cut bool // not all rows were counted
}

// Equal reports whether the table is equal on all servers, nil where that is not known.
func (t *Table) Equal() *bool { return verdict(t.Total > 0, t.Err != nil || t.Skipped != "") }

// Difference is a row that is not the same on all servers.
type Difference struct {
	Rows []*journal.Row // by server; nil where there is none
}

// Any is the row as one of the servers has it.
func (d *Difference) Any() *journal.Row {
	for _, r := range d.Rows {
		if r != nil {
			return r
		}
	}
	return nil
}

// Missing reports whether some server does not have the row at all.
func (d *Difference) Missing() bool {
	for _, r := range d.Rows {
		if r == nil {
			return true
		}
	}
	return false
}

// Columns are those in which the rows differ, where they are.
func (d *Difference) Columns() (names []string) {
	first, seen := d.Any(), map[string]bool{}
	for _, r := range d.Rows {
		if r == nil {
			continue
		}
		for _, name := range journal.Differing(first, r) {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

const (
	openRows  = 5000 // that differ and wait to be looked at again
	openBytes = 32 << 20
)

// Run compares the tables.
func Run(ctx context.Context, servers []Server, links []Link, o Options) (Report, error) {
	begin := time.Now()
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	if o.Rounds == 0 {
		o.Rounds = rounds
	}
	if o.open == 0 {
		o.open = openRows
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	v := &verifier{servers: servers, all: slices.Concat(servers, o.Others), links: links, opt: o, began: begin}
	names, err := v.tables(ctx)
	if err != nil {
		return Report{}, err
	}
	if o.Check != nil {
		if err := o.Check(names); err != nil {
			return Report{}, err
		}
	}
	if !o.Passing {
		v.resume(ctx, names)
		defer func() { v.keep.release(ctx) }()
	}
	tables := make([]*Table, len(names))
	for i, name := range names {
		tables[i] = &Table{Name: name, Rows: make([]int64, len(servers))}
		if err := v.table(ctx, tables[i]); err != nil {
			return Report{}, err
		}
	}
	if err := v.settle(ctx); err != nil {
		return Report{}, err
	}
	r := Report{Elapsed: time.Since(begin)}
	for _, t := range tables {
		r.Tables = append(r.Tables, *t)
	}
	if o.Passing {
		return r, nil
	}
	return r, v.conclude(ctx, &r)
}

type verifier struct {
	servers []Server
	all     []Server // and others
	links   []Link
	opt     Options
	open    []*suspect // of all tables so far
	bytes   int        // of their rows
	keep    *keeper    // nil: nothing is kept
	began   time.Time
	hurried time.Duration // of the time since
}

// comparison is one table under way.
type comparison struct {
	*verifier
	*chunk.Table
	result *Table
	place  place
	kept   [][]image.Value // rows of which it is known that they differ, as long as there are not too many
}

// place is how far the walk through a table is: at the end of a range.
type place struct {
	upTo []image.Value // the last row; nil: none has been compared
	rows []int64       // by server
	done bool
}

// over reports whether there is nothing more to find out about the table.
func (c *comparison) over() bool { return c.result.Err != nil || c.opt.Quick && c.result.Total > 0 }

// errOver ends the walk through a table that is over.
var errOver = errors.New("nothing more is to be found out")

// table walks through a table. What goes wrong with it alone is part of the result.
func (v *verifier) table(ctx context.Context, t *Table) error {
	c, err := v.compare(ctx, t)
	if err == nil {
		c.restore()
		err = c.walk(ctx)
		c.changed()
	}
	switch {
	case errors.Is(err, errOver):
		t.cut = true
	case errors.Is(err, chunk.ErrNumbered):
		t.Skipped = err.Error()
	case err != nil:
		t.Err = err
	}
	v.record(ctx)
	return ctx.Err()
}

// walk compares what has not been compared yet.
func (c *comparison) walk(ctx context.Context) error {
	if c.place.done {
		return nil
	}
	if c.hurries() { // what an earlier comparison found decides
		if err := c.hurry(ctx); err != nil {
			return err
		}
		if c.over() {
			return errOver
		}
	}
	err := c.Compare(ctx, c.place.upTo, func(rows []int64, different []chunk.Difference, end []image.Value) error {
		if err := c.piece(ctx, rows, different); err != nil {
			return err
		}
		c.place = place{upTo: end, rows: slices.Clone(c.result.Rows), done: end == nil}
		c.changed()
		c.record(ctx)
		return ctx.Err()
	})
	return err
}

// piece takes what differs in a piece of the table.
func (c *comparison) piece(ctx context.Context, rows []int64, different []chunk.Difference) error {
	for i, n := range rows {
		c.result.Rows[i] += n
	}
	for i := range different {
		c.suspect(&suspect{of: c, rows: different[i].Rows})
	}
	c.progress()
	switch {
	case len(c.open) >= c.opt.open || c.bytes >= openBytes:
		if err := c.settle(ctx); err != nil {
			return err
		}
	case c.hurries():
		if err := c.hurry(ctx); err != nil {
			return err
		}
	}
	if c.over() {
		return errOver
	}
	return nil
}

func (c *comparison) suspect(s *suspect) {
	c.open = append(c.open, s)
	c.bytes += s.size()
}

func (c *comparison) progress() {
	p := Progress{Table: c.result.Name, Open: len(c.open)}
	for _, n := range c.result.Rows {
		p.Rows = max(p.Rows, n)
	}
	c.opt.Progress(p)
}
