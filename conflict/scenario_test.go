package conflict_test

import (
	"math/rand/v2"
	"testing"

	"replicator/change"
	"replicator/conflict"
)

// scene is a world without chance: the test says what happens, the oracle of the world judges it.
type scene struct {
	t *testing.T
	*world
}

// newScene returns a full mesh of n servers with exact clocks that agree; born of them exist.
func newScene(t *testing.T, n, born int) scene {
	t.Helper()
	source := rand.NewPCG(1, 1)
	w := &world{
		source: source, random: rand.New(source), now: 1000, keys: 4,
		changes: map[int][]*row{}, links: map[conflict.Link]*link{}, owners: map[change.ServerID]*owner{},
	}
	for i := range n {
		w.servers = append(w.servers, &server{
			id: serverID(i), number: i, resolution: 1, rows: map[int]int{}, locks: map[int]*group{},
			holder: map[int]*row{}, decided: map[int]setOfID{}, frontier: saved{position: change.NewGTIDSet(change.MySQL)},
		})
	}
	for _, from := range w.servers {
		for _, to := range w.servers {
			if from != to {
				w.links[conflict.Link{From: from.id, To: to.id}] = &link{source: from, target: to}
			}
		}
	}
	for _, s := range w.servers[:born] {
		w.birth(s)
	}
	w.restartAll()
	return scene{t, w}
}

func (s scene) link(from, to int) *link {
	return s.links[conflict.Link{From: serverID(from), To: serverID(to)}]
}

// write lets an application give a key a value, 0 to delete it, some ticks later.
func (s scene) write(server, key, value int) {
	s.now += 10
	s.commitLocal(s.servers[server], []*row{{key: key, value: value, origin: s.servers[server]}})
}

// send brings everything from one server to the other.
func (s scene) send(from, to int) {
	s.t.Helper()
	l := s.link(from, to)
	for l.group != nil || l.place.index < len(l.source.binlog) {
		s.step(l)
	}
	s.ok()
}

func (s scene) ok() {
	s.t.Helper()
	if s.failure != nil {
		s.t.Fatal(s.failure)
	}
}

// tidy lets an owner read, sweep and save everything that it can.
func (s scene) tidy(server int) {
	s.t.Helper()
	o := s.owners[serverID(server)]
	s.feed(o, len(o.target.binlog))
	o.state.Checkpoint(o.fed.position, o.fed.clock)
	s.sweepAll(o)
	s.save(o)
	s.ok()
}

// expect compares the counts of conflicts with what they should be, then lets the mesh come to rest.
func (s scene) expect(over, lost, superseded, key, value int) {
	s.t.Helper()
	s.quiesce()
	s.verdict()
	s.ok()
	if c := s.counts; c.over != over || c.lost != lost || c.superseded != superseded {
		s.t.Errorf("%d overwritten, %d lost, %d superseded; not %d, %d, %d", c.over, c.lost, c.superseded, over, lost, superseded)
	}
	for _, server := range s.servers {
		if server.rows[key] != value {
			s.t.Errorf("server %d has %d, not %d", server.number, server.rows[key], value)
		}
	}
}

// A delete overtakes the insert that it follows; the owner crashes; the insert arrives: the row stays away.
func TestDeleteOvertakesInsert(t *testing.T) {
	s := newScene(t, 3, 3)
	s.write(0, 1, 7)
	s.send(0, 1)
	s.write(1, 1, 0)
	s.send(1, 2) // finds nothing
	s.tidy(2)
	s.crash(s.servers[2])
	s.send(0, 2)
	s.expect(0, 0, 1, 1, 0)
}

// An application inserts a key after the index was read and before the delete that finds nothing is committed.
func TestInsertBeforeDeleteThatFindsNothing(t *testing.T) {
	s := newScene(t, 2, 2)
	s.write(0, 1, 7)
	s.write(0, 1, 0)
	s.send(0, 1)
	s.tidy(1)
	s.write(0, 1, 8)
	s.write(0, 1, 0)
	s.write(1, 1, 9) // in the binlog of 1, not yet in its index
	l := s.link(0, 1)
	s.step(l)
	if !l.group.verdicts[0].Applies() {
		t.Fatal("the index knew of the insert: the scene is not what it should be")
	}
	s.send(0, 1)
	if s.counts.redone != 1 {
		t.Errorf("decided again %d times", s.counts.redone)
	}
	s.expect(1, 2, 0, 1, 9) // both changes of 0 lose at 1, and the insert wins over the delete at 0
}

// While a delete that finds nothing is open, its key is held: an application that inserts it waits.
func TestKeyOfDeleteThatFindsNothingIsHeld(t *testing.T) {
	s := newScene(t, 3, 3)
	s.write(0, 1, 7)
	s.send(0, 1)
	s.write(1, 1, 0)
	l := s.link(1, 2)
	s.step(l)
	if s.servers[2].locks[1] != l.group || l.group == nil {
		t.Error("the key is free")
	}
	s.send(1, 2)
	s.expect(0, 0, 1, 1, 0)
}

// The link t→p is cut while p→t works: a concurrent overwrite by p is noticed at t, however long it takes.
func TestOneDirectionCut(t *testing.T) {
	s := newScene(t, 2, 2)
	s.write(0, 1, 7)
	for range 20 {
		s.now += 10_000
		s.heartbeat(s.servers[1])
		s.send(1, 0)
		s.tidy(0)
	}
	s.write(1, 1, 8)
	s.send(1, 0)
	if s.counts.over != 1 {
		t.Errorf("%d overwrites are noticed", s.counts.over)
	}
	s.expect(1, 1, 0, 1, 8)
}

// A server whose clock is far behind joins: its first change is not older than what others have forgotten, and it gets
// everything that was committed since the others were born.
func TestSlowClockJoins(t *testing.T) {
	s := newScene(t, 3, 2)
	s.servers[2].skew = -900
	s.write(0, 1, 7)
	s.write(1, 2, 5)
	for range 2 {
		s.send(0, 1)
		s.send(1, 0)
		s.tidy(0)
		s.tidy(1)
	}
	if n := s.owners[serverID(0)].state.Stats().Entries; n != 0 {
		t.Fatalf("%d entries are left: the scene is not what it should be", n)
	}
	s.join()
	s.write(2, 1, 8)
	s.send(2, 0)
	s.send(2, 1)
	s.expect(0, 1, 0, 1, 8) // the old value loses at the server that joined
	if s.servers[2].rows[2] != 5 {
		t.Error("a change from before the birth of the link is missing")
	}
}

// Updates of one row from changing sites, each after it has seen the one before, are no conflicts.
func TestTurnsAreNoConflicts(t *testing.T) {
	s := newScene(t, 3, 3)
	for turn := range 9 {
		s.write(turn%3, 1, turn+1)
		for to := range 3 {
			if to != turn%3 {
				s.send(turn%3, to)
			}
		}
		if turn == 4 {
			s.crash(s.servers[0])
		}
	}
	s.expect(0, 0, 0, 1, 9)
}

// Two servers change a row at the same instant: the same change stays on both.
func TestEqualTimes(t *testing.T) {
	s := newScene(t, 2, 2)
	s.write(0, 1, 7)
	s.now -= 10
	s.write(1, 1, 8)
	s.send(0, 1)
	s.send(1, 0)
	s.expect(1, 1, 0, 1, 8)
}

// A changes a row to x and back while B changes it once: B's later change stays, and both of A's are known to have lost.
func TestThereAndBack(t *testing.T) {
	s := newScene(t, 2, 2)
	s.write(0, 1, 7)
	s.send(0, 1)
	s.write(0, 1, 8)
	s.write(0, 1, 7)
	s.write(1, 1, 9)
	s.send(0, 1)
	s.send(1, 0)
	s.expect(1, 2, 0, 1, 9)
}

// The key of a row is changed on A from 1 to 2 while B updates the row under its old key.
func TestKeyChangeAgainstUpdate(t *testing.T) {
	s := newScene(t, 2, 2)
	s.write(0, 1, 7)
	s.send(0, 1)
	s.now += 10
	a := s.servers[0]
	s.commitLocal(a, []*row{{key: 1, origin: a, before: true}, {key: 2, value: 7, origin: a}})
	s.write(1, 1, 9)
	s.send(0, 1)
	s.send(1, 0)
	s.expect(1, 1, 0, 1, 9) // B's update stands under the old key, A's row under the new one
	for _, server := range s.servers {
		if server.rows[2] != 7 {
			t.Errorf("server %d has %d under the new key", server.number, server.rows[2])
		}
	}
}

// Third path: the one kind of false report that contexts allow, and what avoids it.
func TestThirdPath(t *testing.T) {
	s := newScene(t, 3, 3)
	s.write(0, 1, 7)
	s.send(0, 1)
	s.send(0, 2)
	s.write(0, 1, 8)
	s.send(0, 1) // and not to 2, yet
	s.write(1, 1, 9)
	s.send(1, 0)
	s.send(1, 2)
	s.write(2, 1, 10)
	if s.counts.over+s.counts.lost != 0 {
		t.Error("a conflict is reported where everything was seen")
	}
	s.send(0, 2)
	s.send(2, 0)
	s.send(2, 1)
	if s.counts.thirdPath != 1 {
		t.Errorf("%d false reports", s.counts.thirdPath)
	}
	s.expect(0, 1, 0, 1, 10)
}
