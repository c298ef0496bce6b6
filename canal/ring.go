package canal

import "replicator/change"

// ring holds the newest transactions in binlog order, bounded by memory, but always the newest one.
type ring struct {
	generation uint64 // counts resets
	first      uint64 // number of the oldest entry; numbers go on across resets
	entries    []entry
	head       int // index of the oldest in entries
	memory     int64
	base       change.GTIDSet // the position before the oldest
}

type entry struct {
	tx     *change.Transaction
	memory int64
}

func (r *ring) len() int { return len(r.entries) - r.head }

// end is the number that the next entry gets.
func (r *ring) end() uint64 { return r.first + uint64(r.len()) }

func (r *ring) at(number uint64) *change.Transaction {
	return r.entries[r.head+int(number-r.first)].tx
}

// reset empties the ring: the next transaction is the one behind base.
func (r *ring) reset(base change.GTIDSet) {
	*r = ring{generation: r.generation + 1, first: r.end(), base: base}
}

// spooledShare is how much less a spooled transaction counts: it takes disk, not memory.
const spooledShare = 16

func (r *ring) push(tx *change.Transaction, memory, limit int64) {
	if tx.Spooled {
		memory += tx.Bytes / spooledShare
	}
	r.entries = append(r.entries, entry{tx, memory})
	r.memory += memory
	for r.memory > limit && r.len() > 1 {
		oldest := &r.entries[r.head]
		r.base.Add(oldest.tx.GTID)
		r.memory -= oldest.memory
		*oldest = entry{}
		r.head++
		r.first++
	}
	if r.head > len(r.entries)/2 { // make room at the front once it is the greater part
		n := copy(r.entries, r.entries[r.head:])
		clear(r.entries[n:])
		r.entries, r.head = r.entries[:n], 0
	}
}

// find returns the number of the first entry that is not in position, when the ring joins it without a gap. It looks at
// one after the other: a position need not cover a prefix of the binlog.
func (r *ring) find(position change.GTIDSet) (uint64, bool) {
	if !position.Covers(r.base) {
		return 0, false
	}
	number := r.first
	for number < r.end() && position.Contains(r.at(number).GTID) {
		number++
	}
	return number, true
}
