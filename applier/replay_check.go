package applier

import (
	"replicator/change"
	"replicator/dml"
	"replicator/server"
)

// replayable reports whether a target's row applier, which goes by position, would take the source's row images for what
// they are. The flavors must be the same; the caller knows. reason says what differs.
func replayable(source *change.Table, target *server.Table) (ok bool, reason string) {
	return dml.SameLayout(source, target)
}
