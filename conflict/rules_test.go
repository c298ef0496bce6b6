package conflict_test

import (
	"replicator/change"
	"replicator/conflict"
)

// rule is a rule of the replicator that a history breaks on purpose. Where it is kept by the real code, the model calls
// that wrongly.
type rule int

const (
	healthy rule = iota
	// noBump: the time of a local transaction is its physical time, whatever the clock was.
	noBump
	// markerDoesNotRaise: applied changes do not lift the clock of the server that they are applied to.
	markerDoesNotRaise
	// markerWithoutClock: a reader that resumes begins its fold at 0.
	markerWithoutClock
	// birthAtZero: a server that joins may be behind what the others have forgotten.
	birthAtZero
	// joinUnannounced: a server is born while owners run that do not know it, and drop entries without its word.
	joinUnannounced
	// beginAtEnd: a link without a marker begins at the source's present end, not at its birth.
	beginAtEnd
	// rebuildFromEnd: a new owner begins its index at the present end, not at the frontier.
	rebuildFromEnd
	// smallestTime: entries are dropped at the smallest time read from every peer.
	smallestTime
	// pruneEarly: entries are dropped a little before they are stable.
	pruneEarly
	// appliedBeforeCommit: links report what they have read, not what they have committed.
	appliedBeforeCommit
	// heartbeatAhead: heartbeats tell what has been written, before it is committed.
	heartbeatAhead
	// noBarrier: the second look does not wait for the target's own binlog.
	noBarrier
	// noSecondLookup: the barrier is waited for, but the verdicts are not looked at again.
	noSecondLookup
	// noGapLock: a delete that finds nothing locks nothing.
	noGapLock
	// groupBlind: a decision does not see the changes before it in its own group.
	groupBlind
	// newKeyOnly: a change of the key is taken for a change of the new key alone.
	newKeyOnly
	// manifestWithoutNoop: the manifest leaves out rows that were applied but changed nothing.
	manifestWithoutNoop
	// manifestWithLost: the manifest lists rows that were not applied, as if they had been.
	manifestWithLost
	// manifestWithoutContext: the manifest has versions without contexts.
	manifestWithoutContext
	// originIgnored: of two changes with the same time, the one that arrives is applied.
	originIgnored
	// supersededAsConflict: whatever is not applied counts as a loser.
	supersededAsConflict
	// contextIgnored: whatever is newer counts as made on top.
	contextIgnored
	// copyWithoutHold: a copy keeps no entries: what its rows lack may be forgotten before it is written.
	copyWithoutHold
	// copyReadsFirst: entries are kept only after the rows of a copy have been read.
	copyReadsFirst
	// copyClockFirst: the clock that a copy waits for is older than its rows.
	copyClockFirst
	// copyBeforeLink: a copy does not wait until its link has passed the clock.
	copyBeforeLink
	// copyBeforeOthers: a copy does not wait for what other origins had sent to its source.
	copyBeforeOthers
	// copyJudgedByEnd: a copy is held to have in it what its source had when all was read, not when it began.
	copyJudgedByEnd
	// copyOverUncovered: a copy is written whatever the index says.
	copyOverUncovered
	// copyWithoutBarrier: the look before a copy does not wait for the target's own binlog.
	copyWithoutBarrier
	// copyUnlocked: rows are locked only after the look, when they are written.
	copyUnlocked
	// copySurvives: a copy goes on with the next owner of its target.
	copySurvives
	// copyFromAnyone: rows are copied from a server that does not receive what the target does.
	copyFromAnyone
	// copyFromNewborn: rows are copied from a server that lacks what the target's index began behind.
	copyFromNewborn
	// cloneUnannounced: owners do not know of a server that is being cloned, and drop entries without its word.
	cloneUnannounced
	// cloneUnsettled: a clone hands on what its donor has from some place on, whether all before it is stable or not.
	cloneUnsettled
	// cloneWithoutPast: a clone hands on no entries: rows come without their versions.
	cloneWithoutPast
	// cloneMarkersLate: a clone's links begin where the donor's stand when it is born, not when its rows were read.
	cloneMarkersLate
	// cloneFromEnd: the link from the donor begins at its present end.
	cloneFromEnd
	// cloneFromAnyone: a clone's donor does not receive what the new server does.
	cloneFromAnyone
	rules // how many there are
)

func (r rule) String() string {
	return [...]string{
		healthy:                "healthy",
		noBump:                 "no bump",
		markerDoesNotRaise:     "marker does not raise",
		markerWithoutClock:     "marker without clock",
		birthAtZero:            "birth at zero",
		joinUnannounced:        "join unannounced",
		beginAtEnd:             "begin at end",
		rebuildFromEnd:         "rebuild from end",
		smallestTime:           "smallest time",
		pruneEarly:             "prune early",
		appliedBeforeCommit:    "applied before commit",
		heartbeatAhead:         "heartbeat ahead",
		noBarrier:              "no barrier",
		noSecondLookup:         "no second lookup",
		noGapLock:              "no gap lock",
		groupBlind:             "group blind",
		newKeyOnly:             "new key only",
		manifestWithoutNoop:    "manifest without noop",
		manifestWithLost:       "manifest with lost",
		manifestWithoutContext: "manifest without context",
		originIgnored:          "origin ignored",
		supersededAsConflict:   "superseded as conflict",
		contextIgnored:         "context ignored",
		copyWithoutHold:        "copy without hold",
		copyReadsFirst:         "copy reads first",
		copyClockFirst:         "copy clock first",
		copyBeforeLink:         "copy before link",
		copyBeforeOthers:       "copy before others",
		copyJudgedByEnd:        "copy judged by end",
		copyOverUncovered:      "copy over uncovered",
		copyWithoutBarrier:     "copy without barrier",
		copyUnlocked:           "copy unlocked",
		copySurvives:           "copy survives",
		copyFromAnyone:         "copy from anyone",
		copyFromNewborn:        "copy from newborn",
		cloneUnannounced:       "clone unannounced",
		cloneUnsettled:         "clone unsettled",
		cloneWithoutPast:       "clone without past",
		cloneMarkersLate:       "clone markers late",
		cloneFromEnd:           "clone from end",
		cloneFromAnyone:        "clone from anyone",
	}[r]
}

// ofCopies reports whether histories without copies keep the rule in any case.
func (r rule) ofCopies() bool { return r >= copyWithoutHold && r <= copyFromNewborn }

// ofClones reports whether histories without clones keep the rule in any case.
func (r rule) ofClones() bool { return r >= cloneUnannounced && r <= cloneFromAnyone }

func (r rule) decide(incoming, entry change.Stamp, known bool) conflict.Verdict {
	v := conflict.Decide(incoming, entry, known)
	switch {
	case r == originIgnored && known && incoming.Version.Time == entry.Version.Time:
		return conflict.Apply
	case r == supersededAsConflict && v == conflict.Superseded:
		return conflict.Lose
	case r == contextIgnored && v == conflict.ApplyOver:
		return conflict.Apply
	}
	return v
}
