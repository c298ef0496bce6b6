package server

import (
	"context"
	"fmt"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
)

// checkHistory looks whether the source's binlog still reaches back to what the target has of it. Before the source's
// birth there is nothing to look for.
func checkHistory(ctx context.Context, r *report, from, to *Subject) {
	const name = "history"
	if from.Identity == nil || to.Identity == nil {
		return
	}
	position := from.Identity.Position
	state, found, err := checkpoint.Latest(ctx, to.Server.DB(), from.Info.Flavor, from.Identity.ID)
	if err == nil && found {
		position = state.Position
	}
	var purged change.GTIDSet
	if err == nil {
		purged, err = from.Dialect.Purged(ctx, from.Server.DB())
	}
	switch {
	case err != nil:
		r.failed(name, err)
	case position.Covers(purged):
		r.check(true, Pass, name, "", "the binlog of %s reaches back to what was applied here", from.Name)
	default:
		r.add(Fail, fault.Purged, name,
			fmt.Sprintf("make %s a copy of it: replicator clone --from %s --to %[1]s --replace; and keep binlogs longer than an outage may last (binlog_expire_logs_seconds)",
				to.Name, from.Name),
			"%s has purged the binlog behind %s, which is what was applied here", from.Name, position)
	}
}
