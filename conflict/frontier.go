package conflict

import (
	"slices"
	"sync"

	"replicator/change"
)

// defaultSegments bounds the list of segments. The frontier then lags behind the truth by a few thousandths of the part
// of the binlog that is not stable, at most.
const defaultSegments = 1024

// boundary is a place in the target's own binlog with the fold of its clock there.
type boundary struct {
	position change.GTIDSet
	clock    change.Clock
}

// segment is a stretch of the target's own binlog that ends at a boundary.
type segment struct {
	end    boundary
	newest []change.Version // per origin the newest change in the stretch
	span   int              // how many checkpoints it runs over
}

func (s *segment) note(v change.Version) { s.newest = noteNewest(s.newest, v) }

func noteNewest(list []change.Version, v change.Version) []change.Version {
	for i := range list {
		if list[i].Origin == v.Origin {
			list[i].Time = max(list[i].Time, v.Time)
			return list
		}
	}
	return append(list, v)
}

// frontier keeps the segments that are not known to be stable, oldest first, and the boundary before them.
type frontier struct {
	limit int

	mu       sync.Mutex
	start    boundary // everything before it is stable
	known    bool     // start is set
	segments []segment
	open     segment // what was fed since the last boundary; it has no end yet
}

// note puts a change into the open segment.
func (f *frontier) note(v change.Version) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open.note(v)
}

// checkpoint ends the open segment at b.
func (f *frontier) checkpoint(b boundary) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.open.newest) == 0 { // nothing in between: the boundary before it moves here
		if n := len(f.segments); n > 0 {
			f.segments[n-1].end = b
		} else {
			f.start, f.known = b, true
		}
		return
	}
	f.open.end, f.open.span = b, 1
	f.segments = append(f.segments, f.open)
	f.open = segment{}
	if len(f.segments) > f.limit {
		f.merge()
	}
}

// merge joins the two neighbours that are shortest together, so that all segments stay about equally long.
func (f *frontier) merge() {
	at := 0
	for i := 1; i+1 < len(f.segments); i++ {
		if f.segments[i].span+f.segments[i+1].span < f.segments[at].span+f.segments[at+1].span {
			at = i
		}
	}
	joined := f.segments[at+1]
	joined.span += f.segments[at].span
	for _, v := range f.segments[at].newest {
		joined.note(v)
	}
	f.segments[at+1] = joined
	f.segments = slices.Delete(f.segments, at, at+1)
}

// advance moves the boundary over every leading segment that is stable, and returns it.
func (f *frontier) advance(s *stability) (boundary, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.segments) > 0 && stable(s, f.segments[0].newest) {
		f.start, f.known = f.segments[0].end, true
		f.segments[0] = segment{}
		f.segments = f.segments[1:]
	}
	return f.start, f.known
}

// behind reports whether there are changes behind the boundary.
func (f *frontier) behind() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.segments) > 0 || len(f.open.newest) > 0
}

func stable(s *stability, newest []change.Version) bool {
	return !slices.ContainsFunc(newest, func(v change.Version) bool { return v.Time > s.upTo(v.Origin) })
}
