package model

import (
	"encoding/binary"
	"fmt"
	"slices"

	"replicator/change"
)

// tuple is the values of a row; 0 stands for NULL. Disciplines use what they need of it. It is immutable.
type tuple struct {
	unique  [2]int
	parent  int
	columns [2]int
	amount  int
}

// write is one row change of a transaction.
type write struct {
	id       int // of an application's change, else -1
	value    int // whose change this one states again; -1: nobody's
	key      int
	before   *tuple // nil: no row
	after    *tuple
	whole    bool         // every column counts as written, as by an insert
	silent   bool         // done by a cascade that the server does not log
	original change.Stamp // of the change that this one states again
	stamp    change.Stamp
	origin   *server

	values      [2]int  // by column: whose value it is; -1: nobody's
	over        [2]bool // by column: the same, for that column
	overwritten bool    // an application that knew this change has changed the row again
}

func (x *write) String() string {
	return fmt.Sprintf("change %d of key %d from %v to %v (%d)", x.id, x.key, x.before, x.after, x.stamp.Version.Time)
}

func keyOf(n int) change.Key {
	var k change.Key
	binary.BigEndian.PutUint64(k[:], uint64(n)*0x9e3779b97f4a7c15)
	k[15] = byte(n)
	return k
}

// rowOnly is what disciplines have in common whose rows stand in the index under their own key.
type rowOnly struct{}

func (rowOnly) feed(x *write) []change.Key { return []change.Key{keyOf(x.key)} }

// application commits a transaction of an application.
func (w *world) application(s *server) {
	writes := w.discipline.application(w, s)
	for _, x := range writes {
		if s.locks[x.key] != nil || x.after != nil && x.after.parent != 0 && s.locks[x.after.parent] != nil {
			w.counts.waited++
			return
		}
	}
	if len(writes) == 0 {
		return
	}
	w.counts.local++
	for _, x := range writes {
		if x.silent {
			x.id, x.value = -1, -1
		} else {
			w.register(x)
		}
	}
	w.commitLocal(s, writes, 0)
}

func (w *world) register(x *write) {
	x.id, x.value = len(w.writes), len(w.writes)
	w.writes = append(w.writes, x)
}

// commitLocal commits a transaction that carries no marker: of an application, or published by the replicator.
func (w *world) commitLocal(s *server, writes []*write, raise change.Time) {
	logged := slices.DeleteFunc(slices.Clone(writes), func(x *write) bool { return x.silent })
	stamp := w.log(s, entry{writes: logged, raise: raise})
	for _, x := range writes {
		x.stamp, x.origin = stamp, s
		w.commitColumns(s, x)
		if x.id >= 0 || x.silent {
			w.knownTo(s.holder[x.key])
		}
		s.set(x.key, x.after, x)
	}
	w.discipline.check(w, s)
}

// commitColumns makes a change what the columns of the row are.
func (w *world) commitColumns(s *server, x *write) {
	if x.id >= 0 {
		for c := range x.values {
			if h := s.columns[place2{x.key, c}]; h != nil {
				x.values[c] = h.values[c]
			}
		}
	}
	for _, c := range x.changed() {
		h := s.columns[place2{x.key, c}]
		if x.id >= 0 && h != nil && h.values[c] >= 0 {
			w.writes[h.values[c]].over[c] = true
		}
		if x.id >= 0 {
			x.values[c] = x.id
		}
		s.columns[place2{x.key, c}] = x
	}
}

// knownTo notes that an application changed a row again that h had made.
func (w *world) knownTo(h *write) {
	if h != nil && h.value >= 0 {
		h.overwritten = true
		w.writes[h.value].overwritten = true
	}
}

func (s *server) set(key int, row *tuple, by *write) {
	if row == nil {
		delete(s.rows, key)
	} else {
		s.rows[key] = row
	}
	s.holder[key] = by
}

// equal checks that all servers hold the same rows.
func (w *world) equal() {
	for _, s := range w.servers[1:] {
		for key := range w.keys + 1 {
			a, b := w.servers[0].rows[key], s.rows[key]
			if (a == nil) != (b == nil) || a != nil && *a != *b {
				w.fail("diverged: key %d is %v at server 0 and %v at server %d", key, a, b, s.number)
			}
		}
	}
}

// accounted checks that every acknowledged change that no application knowingly overwrote is visible or in a journal.
func (w *world) accounted() {
	for _, x := range w.writes {
		if x.overwritten {
			continue
		}
		visible, journaled := false, false
		for _, s := range w.servers {
			h := s.holder[x.key]
			visible = visible || h != nil && h.value == x.id
			journaled = journaled || s.journal[x.id]
		}
		if !visible && !journaled {
			w.fail("lost without a word: %v of server %d; now %v", x, x.origin.number, w.servers[0].holder[x.key])
		}
	}
}
