// Package model runs random histories of a mesh whose tables have more than rows that win or lose by themselves: secondary
// unique keys, foreign keys, policies, merged columns and deltas. Servers, links and owners are modelled; the clock's fold,
// contexts, verdicts, index, stability and frontier are the real code, as are the rules of package conflict.
//
// The model beside the core (conflict.TestConvergence) proves that core; this one takes it as given and proves what stands
// on it. Every discipline has its histories, its oracle, and rules to break.
package model

import (
	"fmt"
	"math/rand/v2"

	"replicator/change"
	"replicator/conflict"
)

// world is a full mesh of servers with their binlogs, links and owners, under one discipline.
type world struct {
	discipline discipline
	broken     rule
	random     *rand.Rand
	now        change.Time
	keys       int
	servers    []*server
	links      []*link
	writes     []*write // of applications, by id
	stated     []*write // published
	counts     counts
	failure    error
}

// discipline is what a table asks of the replicator beyond rows that win or lose by themselves.
type discipline interface {
	// application returns the row changes of a random transaction at a server; none: it had nothing to do.
	application(w *world, s *server) []*write
	// incoming decides a row change and carries it out on the plan.
	incoming(p *plan, x item)
	// settle looks at what a whole group would leave behind.
	settle(p *plan)
	// feed returns the keys under which a change of a server's own stands in its index.
	feed(x *write) []change.Key
	// check holds a server against what must be true after every commit, and verdict the mesh at rest.
	check(w *world, s *server)
	verdict(w *world)
}

// counts are what happened, to prove that histories reach what they are meant to reach.
type counts struct{ local, decided, over, lost, superseded, redone, waited, crashes, settled, left, cascaded int }

func (c *counts) add(o counts) {
	c.local += o.local
	c.decided += o.decided
	c.over += o.over
	c.lost += o.lost
	c.superseded += o.superseded
	c.redone += o.redone
	c.waited += o.waited
	c.crashes += o.crashes
	c.settled += o.settled
	c.left += o.left
	c.cascaded += o.cascaded
}

// server is one database server with the owner that applies to it.
type server struct {
	id         change.ServerID
	number     int
	skew       change.Time
	resolution change.Time
	rows       map[int]*tuple
	holder     map[int]*write // what made the row what it is, deletes included: the oracle's
	columns    map[place2]*write
	journal    map[int]bool // ids of the writes in it
	locks      map[int]*link
	binlog     []entry
	clock      change.Clock
	frontier   place

	state *conflict.State // the owner's; lost in a crash
	fed   place
}

// place is a position in a binlog with the clock's fold there.
type place struct {
	index int
	clock change.Clock
}

func (p place) gtids(s *server) change.GTIDSet {
	set := change.NewGTIDSet(change.MySQL)
	for n := range p.index {
		set.Add(change.GTID{UUID: s.id, Number: uint64(n + 1)})
	}
	return set
}

// entry is one transaction in a binlog: rows of an application or published by the replicator, a marker, or a heartbeat.
type entry struct {
	physical change.Time
	raise    change.Time // of a published transaction: what it must be newer than
	heard    change.Context
	writes   []*write
	marker   *change.Marker
	at       place // of a marker: how far the source had been read
	stamp    change.Stamp
}

func (w *world) chance(percent int) bool { return w.random.IntN(100) < percent }

func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf(format, args...)
	}
}

func (w *world) must(err error) {
	if err != nil {
		w.fail("%w", err)
	}
}

func newWorld(seed uint64, d discipline, broken rule) *world {
	random := rand.New(rand.NewPCG(seed, 7))
	w := &world{discipline: d, broken: broken, random: random, now: 1000, keys: []int{2, 3, 5, 12, 40}[random.IntN(5)]}
	for i := range []int{2, 3, 3, 4}[random.IntN(4)] {
		w.servers = append(w.servers, &server{
			id: change.ServerID{byte(i + 1)}, number: i, skew: w.skew(), resolution: []change.Time{1, 1, 50}[random.IntN(3)],
			rows: map[int]*tuple{}, holder: map[int]*write{}, columns: map[place2]*write{}, journal: map[int]bool{}, locks: map[int]*link{},
		})
	}
	for _, from := range w.servers {
		for _, to := range w.servers {
			if from != to {
				w.links = append(w.links, &link{source: from, target: to})
			}
		}
	}
	for _, s := range w.servers {
		w.restart(s)
	}
	return w
}

// skew draws how far a server's clock is ahead; one in eight is far behind.
func (w *world) skew() change.Time {
	if w.chance(12) {
		return -600
	}
	return change.Time(w.random.IntN(601) - 300)
}

// log appends a transaction to a server's binlog.
func (w *world) log(s *server, e entry) change.Stamp {
	t := max(0, w.now+s.skew)
	e.physical = t - t%s.resolution
	e.stamp = fold(&s.clock, s.id, e)
	s.binlog = append(s.binlog, e)
	return e.stamp
}

// fold folds one binlog entry into a clock, as every reader of a binlog does.
func fold(c *change.Clock, origin change.ServerID, e entry) change.Stamp {
	if e.marker != nil {
		var newest change.Time
		for _, m := range e.marker.Manifest {
			newest = max(newest, m.Stamp.Version.Time)
		}
		c.Replicated(e.marker.Source, e.marker.Clock.Time, newest)
		return change.Stamp{}
	}
	c.Raise(e.raise)
	c.Local(e.physical)
	stamp := change.Stamp{Version: change.Version{Time: c.Time, Origin: origin}, Context: c.Context}
	c.Context = c.Context.Merge(e.heard)
	return stamp
}

func (w *world) linksTo(s *server) []*link {
	var all []*link
	for _, l := range w.links {
		if l.target == s {
			all = append(all, l)
		}
	}
	return all
}

// restart makes a new owner, which reads the server's binlog from the frontier; its links go on from their markers.
func (w *world) restart(s *server) {
	var ids []change.ServerID
	for _, other := range w.servers {
		ids = append(ids, other.id)
	}
	s.state = conflict.NewState(s.id, conflict.FullMesh(ids...), conflict.Limits{Segments: 4, Lives: w.broken != withoutReset})
	s.fed = s.frontier
	s.state.Checkpoint(s.fed.gtids(s), s.fed.clock)
	for _, l := range w.linksTo(s) {
		l.rollback()
		l.resume()
		s.state.Applied(l.source.id, l.place.clock)
	}
}

// feed gives the index what is in the server's own binlog.
func (w *world) feed(s *server, steps int) {
	for ; steps > 0 && s.fed.index < len(s.binlog); steps-- {
		e := s.binlog[s.fed.index]
		stamp := fold(&s.fed.clock, s.id, e)
		s.fed.index++
		if e.marker != nil {
			w.must(s.state.Replicated(e.marker))
			continue
		}
		if stamp.Version != e.stamp.Version {
			w.fail("two readers disagree on transaction %d of server %d", s.fed.index, s.number)
		}
		var keys []change.Key
		for _, x := range e.writes {
			keys = append(keys, w.discipline.feed(x)...)
		}
		w.must(s.state.Local(e.stamp, keys))
		for _, x := range e.writes {
			if x.original.Version != e.stamp.Version && !x.original.Version.IsZero() {
				s.state.Reasserted(keyOf(x.key), e.stamp.Version, x.original.Version)
			}
		}
	}
}

// save keeps the frontier on the server.
func (w *world) save(s *server) {
	if s.fed.index%3 == 0 || w.chance(30) {
		s.state.Checkpoint(s.fed.gtids(s), s.fed.clock)
	}
	position, clock, ok := s.state.Frontier()
	if !ok {
		w.fail("server %d has no frontier", s.number)
		return
	}
	index := 0
	for position.Contains(change.GTID{UUID: s.id, Number: uint64(index + 1)}) {
		index++
	}
	s.frontier = place{index, clock}
}

func (w *world) heartbeat(s *server) {
	var heard change.Context
	for _, l := range w.linksTo(s) {
		if t := s.state.AppliedUpTo(l.source.id); t > 0 {
			heard = heard.With(l.source.id, t)
		}
	}
	w.log(s, entry{heard: heard})
}
