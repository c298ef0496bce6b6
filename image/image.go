// Package image reads and rebuilds the row images of a binlog: it measures them, keys them, decodes them, and cuts and
// joins WRITE, UPDATE and DELETE rows events of both flavors (version 1 of MariaDB, version 2 of MySQL).
//
// Sources: MySQL's libs/mysql/binlog/event/rows_event.h and sql/log_event.cc, MariaDB's sql/rpl_utility_server.cc.
package image

import (
	"errors"
	"fmt"
	"slices"

	"replicator/change"
	"replicator/fault"
)

// Types of rows events.
const (
	writeV1  = 23
	updateV1 = 24
	deleteV1 = 25
	writeV2  = 30
	updateV2 = 31
	deleteV2 = 32
)

// header is where things are in a rows event.
type header struct {
	kind    change.RowKind
	version int
	bitmaps int // offset of the first column bitmap
	rows    int // offset of the first image
}

func kindOf(eventType byte) (kind change.RowKind, version int, ok bool) {
	switch eventType {
	case writeV1, writeV2:
		kind = change.Insert
	case updateV1, updateV2:
		kind = change.Update
	case deleteV1, deleteV2:
		kind = change.Delete
	default:
		return 0, 0, false
	}
	if eventType >= writeV2 {
		return kind, 2, true
	}
	return kind, 1, true
}

// Split fills in ev.Kind and the spans of ev.Rows from ev.Data, for ev.Table. Keys are left alone. A fault of class
// UnknownEvent says that the event is not one that can be replicated: images without all columns (another
// binlog_row_image than FULL), or bytes that do not fit the table.
func Split(ev *change.RowsEvent, checksum bool) error {
	l, err := layoutOf(ev.Table)
	if err != nil {
		return err
	}
	h, end, err := l.header(ev.Data, checksum)
	if err != nil {
		if _, ok := fault.As(err); ok {
			return err
		}
		return fault.Wrap(err, fault.UnknownEvent, "report this with the binlog file",
			"a rows event of table %s cannot be read", ev.Table.Name)
	}
	ev.Kind = h.kind
	ev.Rows, err = l.split(ev.Data, h, end, ev.Rows[:0])
	if err != nil {
		return fault.Wrap(err, fault.UnknownEvent, "report this with the binlog file",
			"a rows event of table %s cannot be read", ev.Table.Name)
	}
	return nil
}

// header reads all in front of the first image; end is where the images end.
func (l *layout) header(data []byte, checksum bool) (h header, end int, err error) {
	b, err := body(data, checksum)
	if err != nil {
		return header{}, 0, err
	}
	var ok bool
	if h.kind, h.version, ok = kindOf(data[4]); !ok {
		return header{}, 0, fmt.Errorf("event type %d is no rows event", data[4])
	}
	r := reader{b: b}
	r.take(tableIDSize + 2)
	if h.version == 2 {
		r.take(int(r.uint16()) - 2) // the length counts itself
	}
	columns := r.packed()
	h.bitmaps = headerSize + len(b) - len(r.b)
	before := r.take(l.nulls)
	after := before
	if h.kind == change.Update {
		after = r.take(l.nulls)
	}
	if r.bad {
		return header{}, 0, errCut
	}
	if columns != uint64(len(l.widths)) {
		return header{}, 0, fmt.Errorf("the event has %d columns, its table map %d", columns, len(l.widths))
	}
	if !l.full(before) || !l.full(after) {
		return header{}, 0, fault.New(fault.UnknownEvent,
			"set binlog_row_image = FULL on the source, globally and in every session, and copy the tables again: "+
				"see docs/operations.md, Cloning a server",
			"a rows event does not hold all columns")
	}
	h.rows = headerSize + len(b) - len(r.b)
	return h, headerSize + len(b), nil
}

func (l *layout) full(bitmap []byte) bool {
	last := l.nulls - 1
	for _, v := range bitmap[:last] {
		if v != 0xff {
			return false
		}
	}
	return bitmap[last]&l.lastMask == l.lastMask
}

var errImage = errors.New("a row image is cut short or does not fit the table map")

func (l *layout) split(data []byte, h header, end int, rows []change.Row) ([]change.Row, error) {
	pos := h.rows
	for pos < end {
		n := l.measure(data[pos:end])
		if n <= 0 {
			return nil, errImage
		}
		first := change.Span{Offset: uint32(pos), Length: uint32(n)}
		pos += n
		var row change.Row
		switch h.kind {
		case change.Insert:
			row.After = first
		case change.Delete:
			row.Before = first
		case change.Update:
			n := l.measure(data[pos:end])
			if n <= 0 {
				return nil, errImage
			}
			row.Before, row.After = first, change.Span{Offset: uint32(pos), Length: uint32(n)}
			pos += n
		}
		if len(rows) == 0 { // the first row foretells how many there are
			rows = slices.Grow(rows, 1+(end-h.rows-1)/(pos-h.rows))
		}
		rows = append(rows, row)
	}
	return rows, nil
}
