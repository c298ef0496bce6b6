package image

import (
	"encoding/binary"

	"replicator/change"
)

// Batch gathers what AsIs and Build return into the data of one BINLOG statement. Neighbours of one table become one
// statement with one TABLE_MAP event: the target opens the table once, and its own binlog names it once. The zero value is
// an empty batch.
type Batch struct {
	events []byte
	last   int           // offset of the last rows event
	table  *change.Table // of the last rows event
}

// Len is the size of the batch in bytes.
func (b *Batch) Len() int { return len(b.events) }

// Bytes are the events. They are valid until the next call of Add or Reset.
func (b *Batch) Bytes() []byte { return b.events }

// Reset empties the batch.
func (b *Batch) Reset() { *b = Batch{events: b.events[:0]} }

// Add appends what AsIs or Build made of ev.
func (b *Batch) Add(ev *change.RowsEvent, f *change.Format, events []byte) {
	if len(events) == 0 {
		return
	}
	if b.table == ev.Table && b.continues(ev) {
		end := b.events[b.last:]
		end[flagsOffset] &^= flagStatementEnd
		seal(end, f.Checksum)
		events = events[len(ev.Table.MapEvent):]
	}
	next := len(b.events)
	b.events = append(b.events, events...)
	b.table = ev.Table
	for next < len(b.events) {
		b.last = next
		next += int(binary.LittleEndian.Uint32(b.events[next+9:]))
	}
}

// continues reports whether ev may stand in the statement of the last event: the target looks at the table id and at the
// flags only where a statement begins.
func (b *Batch) continues(ev *change.RowsEvent) bool {
	const from, ignored = headerSize, flagStatementEnd | flagRelaxedUniqueChecks
	last := b.events[b.last:]
	mine, other := binary.LittleEndian.Uint16(ev.Data[flagsOffset:]), binary.LittleEndian.Uint16(last[flagsOffset:])
	return mine&^ignored == other&^ignored && string(ev.Data[from:flagsOffset]) == string(last[from:flagsOffset])
}
