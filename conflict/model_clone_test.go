package conflict_test

import (
	"maps"
	"slices"

	"replicator/change"
	"replicator/conflict"
)

// rowClone makes a server that is not born yet a copy of another one, in these stages: every owner starts again with the mesh
// that it is to be part of; a place in the donor's binlog is noted; everything before it is stable there; the donor's rows
// are read at one moment, with its markers; the server is born with the rows, and with markers that say where its links begin
// and what of the rows is not stable yet.
type rowClone struct {
	to, donor *server
	start     saved // everything before it is stable on the donor
	settled   bool
	read      bool
	end       saved // the donor's place and clock when its rows were read
	rows      map[int]int
	holder    map[int]*row
	decided   map[int]setOfID
	early     map[int]*row
	markers   []*marker // the donor's newest ones, of each other source
}

// beginClone begins one, where there is a donor that receives what the new server is to receive.
func (w *world) beginClone(s *server) {
	var donors []*server
	for _, d := range w.servers {
		if d.born && w.links[conflict.Link{From: d.id, To: s.id}] != nil && (w.broken == cloneFromAnyone || w.receiveTheSame(d, s)) {
			donors = append(donors, d)
		}
	}
	if len(donors) == 0 {
		w.join()
		return
	}
	c := &rowClone{to: s, donor: donors[w.random.IntN(len(donors))]}
	o := w.owners[c.donor.id]
	w.feed(o, w.random.IntN(8))
	c.start = o.fed.clone()
	w.clone = c
	if w.broken != cloneUnannounced {
		w.restartAll()
	}
}

func (w *world) receiveTheSame(d, s *server) bool {
	return !slices.ContainsFunc(w.servers, func(o *server) bool {
		has := func(to *server) bool { return w.links[conflict.Link{From: o.id, To: to.id}] != nil }
		return o != d && o != s && has(d) != has(s)
	})
}

// cloneStep moves the clone on by a stage, if there is nothing to wait for.
func (w *world) cloneStep() {
	switch c := w.clone; {
	case !c.settled:
		c.settled = w.broken == cloneUnsettled || w.isSettled(c)
	case !c.read:
		w.readDonor(c)
	default:
		w.finishClone(c)
	}
}

// newestMarkers are those of every other source on a server.
func (w *world) newestMarkers(on, but *server) []*marker {
	var all []*marker
	for _, l := range w.linksTo(on) {
		if l.source == but {
			continue
		}
		for _, e := range slices.Backward(on.binlog) {
			if e.marker != nil && e.marker.Source == l.source.id {
				all = append(all, e.marker)
				break
			}
		}
	}
	return all
}

// isSettled asks the real rules of stability, in the mesh without the new server.
func (w *world) isSettled(c *rowClone) bool {
	var links []conflict.Link
	for l := range w.links {
		if l.From != c.to.id && l.To != c.to.id {
			links = append(links, l)
		}
	}
	state := conflict.NewState(c.donor.id, conflict.NewTopology(links...), conflict.Limits{})
	for _, m := range w.newestMarkers(c.donor, c.to) {
		state.Applied(m.Source, m.Clock)
	}
	stable := state.Stable(change.Version{Time: c.start.clock.Time, Origin: c.donor.id})
	for _, e := range c.start.clock.Context {
		stable = stable && state.Stable(change.Version{Time: e.Time, Origin: e.Origin})
	}
	return stable
}

func (w *world) readDonor(c *rowClone) {
	d := c.donor
	c.read, c.end = true, saved{index: len(d.binlog), clock: d.clock}
	c.rows, c.holder, c.early = maps.Clone(d.rows), maps.Clone(d.holder), maps.Clone(d.early)
	for key := range d.damaged { // whoever chooses the donor knows better
		if top := d.top(key); top != nil && top.value != 0 {
			c.rows[key] = top.value
		} else {
			delete(c.rows, key)
		}
	}
	c.decided = map[int]setOfID{}
	for key, set := range d.decided {
		c.decided[key] = set.clone()
	}
	c.markers = w.newestMarkers(d, c.to)
}

// finishClone gives birth to the server.
func (w *world) finishClone(c *rowClone) {
	s := c.to
	w.counts.clones++
	w.clone, w.joined = nil, s
	w.birth(s)
	if w.broken == cloneMarkersLate {
		c.markers = w.newestMarkers(c.donor, s)
	}
	s.rows, s.holder, s.decided, s.early = c.rows, c.holder, c.decided, c.early
	m := &marker{index: c.end.index}
	m.Source, m.Clock, m.Manifest = c.donor.id, c.end.clock, w.past(c)
	if w.broken == cloneFromEnd {
		m.index, m.Clock = len(c.donor.binlog), c.donor.clock
	}
	w.log(s, entry{marker: m})
	for _, m := range c.markers {
		again := &marker{index: m.index}
		again.Source, again.Clock = m.Source, m.Clock
		w.log(s, entry{marker: again})
	}
	w.restart(s) // the others have known of it since the clone began
}

// past is what the donor's binlog says, between the two places, to whoever builds an index.
func (w *world) past(c *rowClone) []change.ManifestEntry {
	var all []change.ManifestEntry
	if w.broken == cloneWithoutPast {
		return nil
	}
	for _, e := range c.donor.binlog[c.start.index:c.end.index] {
		switch {
		case e.marker != nil:
			all = append(all, e.marker.Manifest...)
		case e.rows != nil:
			all = append(all, change.ManifestEntry{Stamp: e.stamp, Keys: w.keysOf(e.rows)})
		}
	}
	return all
}
