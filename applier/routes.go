package applier

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"replicator/change"
	"replicator/dml"
	"replicator/fault"
	"replicator/server"
)

// The paths by which rows reach a target.
const (
	Replay   = "replay"   // the source's events, through the target's own row applier
	Portable = "portable" // SQL
)

// Route is how one table's rows reach the target, and why.
type Route struct {
	Table  change.TableName
	Path   string
	Reason string
}

// Routes are a link's tables as they travel now, for people to see. It is safe for concurrent use.
type Routes struct {
	mu    sync.Mutex
	table map[change.TableName]Route
}

func (r *Routes) set(route Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table == nil {
		r.table = map[change.TableName]Route{}
	}
	r.table[route.Table] = route
}

// List returns the routes by table name.
func (r *Routes) List() []Route {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.table), func(a, b Route) int {
		return strings.Compare(a.Table.String(), b.Table.String())
	})
}

// routing decides once per source definition, and again after a DDL on the target, by which path rows travel.
type routing struct {
	opt       Options
	canReplay bool // the account may
	epoch     uint64
	known     map[*change.Table]routed
}

type routed struct {
	target *server.Table
	replay bool
}

func (r *routing) route(ctx context.Context, q server.Querier, t *change.Table) (routed, error) {
	if epoch := r.opt.Definitions.Epoch(); epoch != r.epoch || r.known == nil {
		r.epoch, r.known = epoch, map[*change.Table]routed{}
	}
	if found, ok := r.known[t]; ok {
		return found, nil
	}
	target, err := r.opt.Definitions.Table(ctx, q, t.Name)
	if err != nil {
		return routed{}, err
	}
	if target == nil {
		return routed{}, fault.New(fault.Definition,
			"create the table on "+r.opt.Target+" as it is on "+r.opt.Source+", or exclude it in `tables.exclude`; it is tried again by itself",
			"%s does not have table %s", r.opt.Target, t.Name)
	}
	decided, reason := routed{target: target}, "the account may not run BINLOG"
	switch {
	case t.Numbered:
		reason = "each server numbers its rows by itself"
	case r.opt.Registers.of(t) != nil:
		reason = "columns are added up or merged"
	case r.opt.SourceFlavor != r.opt.Flavor:
		reason = "source and target differ in flavor"
	case r.canReplay:
		decided.replay, reason = dml.SameLayout(t, target)
	}
	route := Route{Table: t.Name, Path: Replay, Reason: reason}
	if !decided.replay {
		route.Path = Portable
		if err := checkTriggers(target); err != nil {
			return routed{}, err
		}
		if _, err := dml.NewPlan(t, target, r.opt.SourceFlavor != r.opt.Flavor); err != nil {
			return routed{}, err
		}
	}
	r.opt.Routes.set(route)
	r.known[t] = decided
	return decided, nil
}

// checkTriggers refuses triggers that would fire for rows written by SQL: what they did on the origin arrives by itself.
func checkTriggers(target *server.Table) error {
	for _, trigger := range target.Triggers {
		if !trigger.Guarded() {
			return fault.New(fault.Precondition, trigger.Remedy(),
				"trigger %s of table %s would fire for rows that are applied by SQL", trigger.Name, target.Name)
		}
	}
	return nil
}
