package verify

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/resync/chunk"
	"replicator/server"
)

// tables are the names of the tables that any server has.
func (v *verifier) tables(ctx context.Context) ([]change.TableName, error) {
	lists := make([][]*server.Table, len(v.servers))
	err := each(len(v.servers), func(i int) (err error) {
		if lists[i], err = server.Tables(ctx, v.servers[i].DB, v.opt.Match); err != nil {
			return server.Fault(err, "read the tables of "+v.servers[i].Name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var names []change.TableName
	for _, list := range lists {
		for _, t := range list {
			names = append(names, t.Name)
		}
	}
	slices.SortFunc(names, func(a, b change.TableName) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.Table, b.Table))
	})
	return slices.Compact(names), nil
}

var errNumbered = errors.New("each server numbers its rows by itself")

// compare prepares the comparison of one table.
func (v *verifier) compare(ctx context.Context, result *Table) (*comparison, error) {
	name := result.Name
	tables := make([]*server.Table, len(v.servers))
	if err := each(len(v.servers), func(i int) (err error) {
		s := &v.servers[i]
		if tables[i], err = server.OneTable(ctx, s.DB, name); err != nil {
			return server.Fault(err, fmt.Sprintf("read the definition of %s on %s", name, s.Name))
		}
		if tables[i] == nil {
			return fault.New(fault.Definition, "make the table there, or leave it out of the replicated tables", "%s does not have table %s", s.Name, name)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if len(tables[0].PrimaryKey) == 0 {
		return nil, fault.New(fault.Definition, "give it a primary key", "table %s has none: its rows cannot be told apart", name)
	}
	first := &v.servers[0]
	c := &comparison{
		verifier: v, source: dml.TableOf(tables[0]), sums: true, result: result, definition: definitionOf(tables),
		keyer: image.NewKeyer(server.NewWeigher(first.DB, first.Flavor)),
	}
	if v.opt.Numbered != nil && v.opt.Numbered(c.source) {
		return nil, errNumbered
	}
	if err := c.measure(ctx); err != nil {
		return nil, err
	}
	var err error
	if result.Began, err = checkpoint.Now(ctx, first.DB); err != nil {
		return nil, server.Fault(err, "read the clock of "+first.Name)
	}
	c.place.rows = make([]int64, len(v.servers))
	for i, t := range tables {
		s := &v.servers[i]
		plan, err := dml.NewPlan(c.source, t, s.Flavor != first.Flavor)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		same, _ := dml.SameLayout(c.source, t)
		c.sums = c.sums && same && s.Flavor == first.Flavor
		for j := range t.Columns {
			if name := t.Columns[j].Name; tables[0].Column(name) < 0 {
				result.Lonely = append(result.Lonely, name+" ("+s.Name+")")
			}
		}
		c.sites = append(c.sites, &chunk.Site{Server: s.Name, DB: s.DB, Plan: plan})
	}
	return c, nil
}

// measure finds out how many rows may be read at once.
func (c *comparison) measure(ctx context.Context) error {
	first, name := &c.servers[0], c.result.Name
	var average sql.NullInt64
	err := first.DB.QueryRowContext(ctx, "SELECT AVG_ROW_LENGTH FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
		name.Database, name.Table).Scan(&average)
	if err != nil {
		return server.Fault(err, fmt.Sprintf("read the size of %s on %s", name, first.Name))
	}
	c.read = int(min(readRows, max(1, readBytes/max(1, average.Int64))))
	return nil
}
