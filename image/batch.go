package image

import (
	"bytes"
	"encoding/binary"

	"replicator/change"
)

// joinBytes is how long an event grows by the rows of the events behind it.
const joinBytes = 64 << 10

// Batch gathers what AsIs and Build return into the data of one BINLOG statement. Neighbours with equal flags become one
// replication statement, whose TABLE_MAP events stand in front: the target opens and locks each table once for all of
// them, and its own binlog names it once. Neighbours that differ in their rows alone become one event. The zero value is
// an empty batch.
type Batch struct {
	done []byte // finished statements

	maps     []byte // of the open statement
	rows     []byte
	last     int // offset of the last rows event in rows, which may grow: its size and CRC32 are written when it is complete
	checksum bool
	tables   map[uint64]*change.Table
}

// Len is the size of the batch in bytes.
func (b *Batch) Len() int { return len(b.done) + len(b.maps) + len(b.rows) }

// Bytes are the events. They are valid until the next call of Add or Reset.
func (b *Batch) Bytes() []byte {
	b.finish()
	return b.done
}

// Reset empties the batch.
func (b *Batch) Reset() {
	clear(b.tables)
	b.done, b.maps, b.rows, b.last = b.done[:0], b.maps[:0], b.rows[:0], 0
}

// finish closes the open statement: its last event has the flag that ends it.
func (b *Batch) finish() {
	if len(b.rows) == 0 {
		return
	}
	seal(b.rows[b.last:], b.checksum)
	b.done = append(append(b.done, b.maps...), b.rows...)
	b.maps, b.rows, b.last = b.maps[:0], b.rows[:0], 0
	clear(b.tables)
}

// Add appends what AsIs or Build made of ev.
func (b *Batch) Add(ev *change.RowsEvent, f *change.Format, events []byte) {
	if len(events) == 0 {
		return
	}
	id := tableID(ev.Data)
	if len(b.rows) > 0 && !b.continues(ev, id) {
		b.finish()
	}
	b.checksum = f.Checksum
	// AsIs and Build put the TABLE_MAP event in front of each rows event and end a statement with each.
	for len(events) > 0 {
		mapped := int(binary.LittleEndian.Uint32(events[9:]))
		if b.tables[id] == nil {
			if b.tables == nil {
				b.tables = map[uint64]*change.Table{}
			}
			b.tables[id] = ev.Table
			b.maps = append(b.maps, events[:mapped]...)
		}
		events = events[mapped:]
		size := int(binary.LittleEndian.Uint32(events[9:]))
		b.append(events[:size])
		events = events[size:]
	}
}

// append adds a rows event, which ends a statement, to the open statement.
func (b *Batch) append(event []byte) {
	if len(b.rows) > 0 {
		end := b.rows[b.last:]
		if at := imagesAt(event); len(end)+len(event) <= joinBytes && sameButRows(end, event, at) {
			if b.checksum {
				b.rows = b.rows[:len(b.rows)-checksumSize]
			}
			b.rows = append(b.rows, event[at:]...)
			return
		}
		end[flagsOffset] &^= flagStatementEnd
		seal(end, b.checksum)
	}
	b.last = len(b.rows)
	b.rows = append(b.rows, event...)
}

// sameButRows reports whether two rows events are equal in all but their sizes, positions and images, which begin at an
// offset.
func sameButRows(a, b []byte, at int) bool {
	const size, flags = 9, 17 // in the header; size and position are between them
	return len(a) >= at && bytes.Equal(a[:size], b[:size]) && bytes.Equal(a[flags:at], b[flags:at])
}

// imagesAt is the offset of the first image in a rows event that AsIs or Build made.
func imagesAt(event []byte) int {
	kind, version, _ := kindOf(event[4])
	r := reader{b: event[flagsOffset+2:]}
	if version == 2 {
		r.take(int(r.uint16()) - 2) // the length counts itself
	}
	bitmap := int(r.packed()+7) / 8
	if kind == change.Update {
		bitmap *= 2
	}
	r.take(bitmap)
	return len(event) - len(r.b)
}

// continues reports whether ev may stand in the open statement: the target looks at the flags only where a statement
// begins, and finds tables by their number.
func (b *Batch) continues(ev *change.RowsEvent, id uint64) bool {
	const ignored = flagStatementEnd | flagRelaxedUniqueChecks
	mine, other := binary.LittleEndian.Uint16(ev.Data[flagsOffset:]), binary.LittleEndian.Uint16(b.rows[b.last+flagsOffset:])
	known := b.tables[id]
	return mine&^ignored == other&^ignored && (known == nil || known == ev.Table)
}

// tableID is the number of the table that a rows event refers to.
func tableID(event []byte) uint64 {
	var id [8]byte
	copy(id[:], event[headerSize:headerSize+tableIDSize])
	return binary.LittleEndian.Uint64(id[:])
}
