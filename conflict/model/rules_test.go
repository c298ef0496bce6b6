package model

// rule is a rule that a history breaks on purpose.
type rule string

const (
	healthy rule = ""
	// withoutRaise: what is published may be older than the change that it is published against.
	withoutRaise rule = "without raise"
	// physicalOnly: a row that loses its place is deleted on this server and nobody is told.
	physicalOnly rule = "physical only"
	// withoutTombstone: the deletion of a row that is not there is not published.
	withoutTombstone rule = "without tombstone"
	// arrivedStays: of two rows that clash, the one that arrives stays.
	arrivedStays rule = "arrived stays"
	// withoutExpansion: what a cascade did where it was not logged is not done on the target.
	withoutExpansion rule = "without expansion"
	// withoutWait: what a cascade did that was not logged is done before everything is there that the source had seen.
	withoutWait rule = "without wait"
	// waitWhole: a transaction that waits holds back those before it.
	waitWhole rule = "wait whole"
	// withoutOriginal: a value that is stated again counts as old as the transaction that states it.
	withoutOriginal rule = "without original"
	// arrivedLeft: a child that arrives after its parent's deletion is left to the server that made it.
	arrivedLeft rule = "arrived left"
	// presentLeft: a child that is there when its parent's deletion arrives is left to the others.
	presentLeft rule = "present left"
	// childAlone: what is published removes a child without the rows below it.
	childAlone rule = "child alone"
	// silentChains: children that go in a cascade that is not logged are parents themselves.
	silentChains rule = "silent chains"
	// lifeIgnored: an update counts whatever life of the row it was made on.
	lifeIgnored rule = "life ignored"
	// winnerAdds: an update that loses its other columns adds nothing.
	winnerAdds rule = "winner adds"
	// withoutReset: updates of a former life of a row stay in the index.
	withoutReset rule = "without reset"
	// nobodyStates: a row that stays, or comes back, against a concurrent deletion is not published.
	nobodyStates rule = "nobody states"
	keptAlone    rule = "kept alone"
	// resurrectedAlone: one that comes back is not, one that stays is.
	resurrectedAlone rule = "resurrected alone"
)
