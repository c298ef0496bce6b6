package conflict_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"replicator/change"
	"replicator/conflict"
)

// world is a mesh of servers with their binlogs, the links between them and the owners that apply to them. Servers, links
// and owners are modelled; the clock's fold, contexts, positions, verdicts, index, stability and frontier are the real
// code. A history is a series of steps that a source of random numbers chooses, so that it can be replayed.
//
// Time runs in ticks; a clock of one-second resolution is modelled by one of fifty ticks.
type world struct {
	broken  rule
	seed    uint64
	source  *rand.PCG
	random  *rand.Rand // over source, which every step seeds anew: a history can be cut without changing its other steps
	now     change.Time
	keys    int
	servers []*server
	links   map[conflict.Link]*link
	owners  map[change.ServerID]*owner
	changes map[int][]*row // by key: every change ever committed by an application
	spill   bool           // indexes keep two entries in memory
	patient bool           // links wait a little for what a change was made on top of
	copies  *copies        // nil in histories without
	joined  *server        // the one that joined later
	clones  bool           // a server that joins may be a copy of another one
	clone   *rowClone      // under way
	counts  counts
	failure error
}

// counts are what happened, to prove that histories reach what they are meant to reach.
type counts struct {
	local, decided, over, lost, superseded, redone, waited, crashes, joins, thirdPath, unseen, beforeBirth, noop, rebuilt, peak int
	copied, kept, damaged, repaired, clones                                                                                     int
}

// server is one database server. It lives through everything; only what is in it is durable.
type server struct {
	id         change.ServerID
	number     int
	born       bool
	known      change.Time // the greatest time in the mesh when it was born
	skew       change.Time
	resolution change.Time
	rows       map[int]int // value by key; no entry: no row
	locks      map[int]*group
	binlog     []entry
	frontier   saved // the owner's, kept on the server

	// The rest is the oracle's.
	clock   change.Clock
	holder  map[int]*row    // the change that made the row what it is, deletes included
	decided map[int]setOfID // by key: every change that was applied here or lost here
	damaged map[int]bool    // rows that are not what their holder made them
	early   map[int]*row    // rows that a copy made what they are before their change was decided here
}

// saved is a position in a binlog with the clock's fold there.
type saved struct {
	position change.GTIDSet
	index    int
	clock    change.Clock
}

// entry is one transaction in a binlog: of an application (rows), of the applier (marker), or neither (a heartbeat).
type entry struct {
	physical change.Time
	raise    change.Time    // of a birth
	heard    change.Context // of a heartbeat: what the server has applied of others
	birth    bool
	rows     []*row
	marker   *marker
	stamp    change.Stamp // what the oracle's fold gives; every reader must come to the same
}

// marker is a change.Marker with the place in the source's binlog that it stands for.
type marker struct {
	change.Marker
	index int
}

// row is one row change of an application: key gets value, or goes away when value is 0.
type row struct {
	id, key, value int // id counts the changes of one key
	origin         *server
	stamp          change.Stamp
	before         bool    // the row leaves this key because the same statement changes its key
	direct         setOfID // the changes of the same key that had been decided at the origin
	past           setOfID // with everything that those had seen in turn
}

func (r *row) String() string {
	return fmt.Sprintf("change %d of key %d to %d at server %d (%d, context %v)",
		r.id, r.key, r.value, r.origin.number, r.stamp.Version.Time, r.stamp.Context)
}

func keyOf(n int) change.Key { return change.Key{byte(n), 0x80, byte(n >> 8)} }

func serverID(n int) change.ServerID { return change.ServerID{byte(n + 1)} }

func (w *world) chance(percent int) bool { return w.random.IntN(100) < percent }

func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf(format, args...)
	}
}

// newWorld draws a mesh: two to four servers, few keys or many, clocks that differ, and now and then missing links or a
// server that joins later.
func newWorld(seed uint64, broken rule) *world {
	source := rand.NewPCG(seed, 0)
	random := rand.New(source)
	w := &world{
		broken: broken, seed: seed, source: source, random: random, now: 1000, keys: []int{1, 2, 5, 40, 100}[random.IntN(5)],
		changes: map[int][]*row{}, links: map[conflict.Link]*link{}, owners: map[change.ServerID]*owner{}, spill: random.IntN(4) == 0,
		patient: random.IntN(2) == 0,
	}
	n := []int{2, 3, 3, 4}[random.IntN(4)]
	late := n > 2 && w.chance(40)
	for i := range n {
		w.servers = append(w.servers, &server{
			id: serverID(i), number: i, skew: w.skew(),
			resolution: []change.Time{1, 1, 50}[random.IntN(3)], rows: map[int]int{}, locks: map[int]*group{},
			holder: map[int]*row{}, decided: map[int]setOfID{}, damaged: map[int]bool{}, early: map[int]*row{},
			frontier: saved{position: change.NewGTIDSet(change.MySQL)},
		})
	}
	oneWay := w.chance(20)
	for _, from := range w.servers {
		for _, to := range w.servers {
			if from != to && (!oneWay || w.chance(70)) {
				w.links[conflict.Link{From: from.id, To: to.id}] = &link{source: from, target: to}
			}
		}
	}
	for i, s := range w.servers {
		if !late || i < n-1 {
			w.birth(s)
		} else if w.chance(50) {
			s.skew = -1000
		}
	}
	w.restartAll()
	if w.chance(50) || broken.ofCopies() {
		w.copies = &copies{damage: w.chance(50)}
	}
	w.clones = broken == healthy && w.chance(50) || broken.ofClones()
	return w
}

func (w *world) server(id change.ServerID) *server { return w.servers[int(id[0])-1] }

// birth begins a server's binlog with a clock that is not behind anything known.
func (w *world) birth(s *server) {
	var known change.Time
	for _, other := range w.servers {
		known = max(known, other.clock.Time)
	}
	s.born, s.known = true, known
	if w.broken == birthAtZero {
		known = 0
	}
	w.log(s, entry{birth: true, raise: known})
}

// join adds a server that was not there: every owner starts again with the mesh that has it, then it is born.
func (w *world) join() {
	for _, s := range w.servers {
		if s.born || w.clone != nil {
			continue
		}
		w.counts.joins++
		w.joined = s
		w.birth(s)
		for _, l := range w.linksTo(s) {
			l.down = w.copies != nil && w.chance(50) // it may take a while to get what was there
		}
		if w.broken == joinUnannounced { // the others learn of it when they start again
			w.restart(s)
			return
		}
		w.restartAll()
		return
	}
}

func (w *world) restartAll() {
	for _, s := range w.servers {
		if s.born {
			w.restart(s)
		}
	}
}

// topology is the mesh as it is configured now.
func (w *world) topology() conflict.Topology {
	var links []conflict.Link
	takesPart := func(id change.ServerID) bool {
		s := w.server(id)
		return s.born || w.clone != nil && w.clone.to == s && w.broken != cloneUnannounced
	}
	for l := range w.links {
		if takesPart(l.From) && takesPart(l.To) {
			links = append(links, l)
		}
	}
	return conflict.NewTopology(links...)
}

// skew draws how far a server's clock is ahead; one in eight is far behind.
func (w *world) skew() change.Time {
	if w.chance(12) {
		return -600
	}
	return change.Time(w.random.IntN(601) - 300)
}

// physical reads a server's clock.
func (w *world) physical(s *server) change.Time {
	t := max(0, w.now+s.skew)
	return t - t%s.resolution
}

// log appends a transaction to a server's binlog.
func (w *world) log(s *server, e entry) {
	e.physical = w.physical(s)
	e.stamp = fold(&s.clock, s.id, e, w.broken)
	s.binlog = append(s.binlog, e)
}

// fold folds one binlog entry into a clock, as every reader of a binlog does.
func fold(c *change.Clock, origin change.ServerID, e entry, broken rule) change.Stamp {
	switch {
	case e.birth:
		c.Raise(e.raise)
		return change.Stamp{}
	case e.marker != nil:
		var newest change.Time
		for _, m := range e.marker.Manifest {
			newest = max(newest, m.Stamp.Version.Time)
		}
		if broken == markerDoesNotRaise {
			newest = 0
		}
		c.Replicated(e.marker.Source, e.marker.Clock.Time, newest)
		return change.Stamp{}
	case broken == noBump:
		c.Time = e.physical
	default:
		c.Local(e.physical)
	}
	stamp := change.Stamp{Version: change.Version{Time: c.Time, Origin: origin}, Context: c.Context}
	c.Context = c.Context.Merge(e.heard)
	return stamp
}

// application commits a transaction of an application: rows are written, deleted, or moved to another key. A row that an
// open transaction of the applier holds would make it wait: it does something else. What changes nothing is not logged.
func (w *world) application(s *server) {
	var rows []*row
	write := func(key, value int, before bool) {
		rows = append(rows, &row{key: key, value: value, origin: s, before: before})
	}
	touched := map[int]bool{}
	for range 1 + w.random.IntN(3)/2 + w.random.IntN(4)/3 {
		key, other := w.random.IntN(w.keys), w.random.IntN(w.keys)
		_, exists := s.rows[key]
		_, taken := s.rows[other]
		if s.locks[key] != nil || s.locks[other] != nil || touched[key] || touched[other] {
			w.counts.waited++
			continue
		}
		touched[key], touched[other] = true, true
		value := 1 + w.random.IntN(3)
		switch x := w.random.IntN(100); {
		case x < 25 && exists:
			write(key, 0, false)
		case x < 40 && exists && !taken && key != other:
			write(key, 0, true)
			write(other, s.rows[key], false)
		case s.rows[key] != value:
			write(key, value, false)
		}
	}
	if len(rows) > 0 {
		w.commitLocal(s, rows)
	}
}

func (w *world) commitLocal(s *server, rows []*row) {
	w.log(s, entry{rows: rows})
	w.counts.local++
	for _, r := range rows {
		same := w.changes[r.key]
		r.stamp = s.binlog[len(s.binlog)-1].stamp
		r.id = len(same)
		r.direct = s.decided[r.key].clone()
		if top := s.top(r.key); top != nil {
			r.direct.add(top.id)
			if r.stamp.Version.Compare(top.stamp.Version) < 0 {
				w.fail("server %d: %v was made on top of what is newer: %v", s.number, r, top)
			}
		}
		r.past = r.direct.clone()
		for _, c := range same {
			if r.direct.has(c.id) {
				r.past.join(c.past)
			}
		}
		w.changes[r.key] = append(same, r)
		s.set(r)
	}
}

// set makes a change what the row is.
func (s *server) set(r *row) {
	s.put(r.key, r.value)
	s.holder[r.key] = r
	delete(s.damaged, r.key)
	delete(s.early, r.key)
	s.decide(r)
}

// put gives a row a value, or takes it away when that is 0.
func (s *server) put(key, value int) {
	if value == 0 {
		delete(s.rows, key)
	} else {
		s.rows[key] = value
	}
}

// top is the change that whoever reads the row sees: the holder, but for rows that were copied too early.
func (s *server) top(key int) *row { return cmp.Or(s.early[key], s.holder[key]) }

// decide notes that a change has been dealt with here. It reports false when it had been before.
func (s *server) decide(r *row) bool {
	set := s.decided[r.key]
	fresh := !set.has(r.id)
	set.add(r.id)
	s.decided[r.key] = set
	return fresh
}

// heartbeat commits a transaction that changes nothing but says what the server has applied of others: the progress over
// transactions without rows, for which there are no markers.
func (w *world) heartbeat(s *server) {
	var heard change.Context
	for _, l := range w.linksTo(s) {
		t := w.owners[s.id].state.AppliedUpTo(l.source.id)
		if w.broken == heartbeatAhead && l.group != nil {
			t = l.group.end.clock.Time
		}
		if t > 0 {
			heard = heard.With(l.source.id, t)
		}
	}
	w.log(s, entry{heard: heard})
}

// setOfID is a set of small numbers.
type setOfID []uint64

func (s setOfID) has(n int) bool { return n/64 < len(s) && s[n/64]>>(n%64)&1 == 1 }

func (s *setOfID) add(n int) {
	for n/64 >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[n/64] |= 1 << (n % 64)
}

func (s setOfID) clone() setOfID { return slices.Clone(s) }

func (s *setOfID) join(o setOfID) {
	for len(*s) < len(o) {
		*s = append(*s, 0)
	}
	for i, bits := range o {
		(*s)[i] |= bits
	}
}
