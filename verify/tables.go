package verify

import (
	"cmp"
	"context"
	"slices"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/resync/chunk"
	"replicator/server"
)

// tables are the names of the tables that any server has.
func (v *verifier) tables(ctx context.Context) ([]change.TableName, error) {
	lists := make([][]*server.Table, len(v.servers))
	err := chunk.Each(len(v.servers), func(i int) (err error) {
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

// compare prepares the comparison of one table.
func (v *verifier) compare(ctx context.Context, result *Table) (*comparison, error) {
	servers := make([]chunk.Server, len(v.servers))
	for i := range v.servers {
		s := &v.servers[i]
		servers[i] = chunk.Server{Name: s.Name, DB: s.DB, Flavor: s.Flavor}
	}
	t, err := chunk.Open(ctx, servers, result.Name, v.opt.Where, v.opt.Numbered)
	if err != nil {
		return nil, err
	}
	first := &v.servers[0]
	if result.Began, err = checkpoint.Now(ctx, first.DB); err != nil {
		return nil, server.Fault(err, "read the clock of "+first.Name)
	}
	result.Lonely = t.Lonely
	return &comparison{verifier: v, Table: t, result: result, place: place{rows: make([]int64, len(v.servers))}}, nil
}
