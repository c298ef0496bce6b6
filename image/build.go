package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"replicator/change"
)

// Flags of a rows event.
const (
	flagStatementEnd        = 0x1
	flagRelaxedUniqueChecks = 0x4
	flagsOffset             = headerSize + tableIDSize
)

// Op is one row change to be carried out: images as change.RowsEvent gives them. Insert has no Before, Delete no After.
type Op struct {
	Kind          change.RowKind
	Before, After []byte
	// Add are columns of an Update to which the difference of the images is added, whatever the row has in them; Only are
	// those that it sets, nil is all. Both are for SQL alone: Build refuses them.
	Add, Only []int
}

// AsIs appends the event as a statement of its own that BINLOG can replay: its TABLE_MAP event, then the event with the
// flag that ends a statement, without the one that relaxes unique checks, and with its CRC32 computed again.
func AsIs(out []byte, ev *change.RowsEvent, f *change.Format) []byte {
	out = slices.Grow(out, len(ev.Table.MapEvent)+len(ev.Data))
	out = appendMap(out, ev, f)
	start := len(out)
	out = append(out, ev.Data...)
	setFlags(out[start:])
	seal(out[start:], f.Checksum)
	return out
}

// Build returns events that carry out ops, in order, in the place of ev: one statement like that of AsIs for each run of
// ops of one kind. They belong to ev's table and keep its other flags. No ops give no bytes.
func Build(ev *change.RowsEvent, f *change.Format, ops []Op) ([]byte, error) {
	l, err := layoutOf(ev.Table)
	if err != nil {
		return nil, err
	}
	h, _, err := l.header(ev.Data, f.Checksum)
	if err != nil {
		return nil, fmt.Errorf("build events of table %s: %w", ev.Table.Name, err)
	}
	size := 0
	for _, op := range ops {
		size += len(op.Before) + len(op.After)
	}
	out := make([]byte, 0, size+len(ev.Table.MapEvent)+len(ev.Data)-int(imagesSize(ev)))
	for len(ops) > 0 {
		n := 1
		for n < len(ops) && ops[n].Kind == ops[0].Kind {
			n++
		}
		out = appendMap(out, ev, f)
		if out, err = appendRun(out, ev, h, f, ops[:n], l.nulls); err != nil {
			return nil, fmt.Errorf("build events of table %s: %w", ev.Table.Name, err)
		}
		ops = ops[n:]
	}
	return out, nil
}

func imagesSize(ev *change.RowsEvent) (n uint32) {
	for _, r := range ev.Rows {
		n += r.Before.Length + r.After.Length
	}
	return n
}

// appendRun appends one rows event: header, table id and flags of ev, no extra row info (it names partitions of the
// source and nothing reads it), all columns, and the images.
func appendRun(out []byte, ev *change.RowsEvent, h header, f *change.Format, ops []Op, nulls int) ([]byte, error) {
	start := len(out)
	out = append(out, ev.Data[:flagsOffset+2]...)
	out[start+4] = eventType(ops[0].Kind, h.version)
	if h.version == 2 {
		out = append(out, 2, 0)
	}
	out = appendPacked(out, uint64(len(ev.Table.Columns)))
	bitmap := ev.Data[h.bitmaps : h.bitmaps+nulls]
	out = append(out, bitmap...)
	if ops[0].Kind == change.Update {
		out = append(out, bitmap...)
	}
	for _, op := range ops {
		if op.Add != nil || op.Only != nil {
			return nil, errors.New("bug: an event cannot add to a column, or leave one out")
		}
		if (len(op.Before) > 0) != (op.Kind != change.Insert) || (len(op.After) > 0) != (op.Kind != change.Delete) {
			return nil, fmt.Errorf("bug: %s with images of %d and %d bytes", op.Kind, len(op.Before), len(op.After))
		}
		out = append(append(out, op.Before...), op.After...)
	}
	if f.Checksum {
		out = append(out, 0, 0, 0, 0)
	}
	setFlags(out[start:])
	seal(out[start:], f.Checksum)
	return out, nil
}

// appendMap appends the table's TABLE_MAP event with the table id of ev: definitions are shared by events with different
// ids.
func appendMap(out []byte, ev *change.RowsEvent, f *change.Format) []byte {
	start := len(out)
	out = append(out, ev.Table.MapEvent...)
	id, mine := ev.Data[headerSize:headerSize+tableIDSize], out[start+headerSize:start+headerSize+tableIDSize]
	if string(id) != string(mine) {
		copy(mine, id)
		seal(out[start:], f.Checksum)
	}
	return out
}

func setFlags(event []byte) {
	flags := binary.LittleEndian.Uint16(event[flagsOffset:])
	binary.LittleEndian.PutUint16(event[flagsOffset:], flags&^flagRelaxedUniqueChecks|flagStatementEnd)
}

// seal writes the size into an event's header, and the CRC32 over all before it.
func seal(event []byte, checksum bool) {
	binary.LittleEndian.PutUint32(event[9:], uint32(len(event)))
	if checksum {
		end := len(event) - checksumSize
		binary.LittleEndian.PutUint32(event[end:], crc32.ChecksumIEEE(event[:end]))
	}
}

func eventType(k change.RowKind, version int) byte {
	t := byte(writeV1) + byte(k-change.Insert)
	if version == 2 {
		t += writeV2 - writeV1
	}
	return t
}

func appendPacked(b []byte, v uint64) []byte {
	if v < 0xfb {
		return append(b, byte(v))
	}
	return append(b, 0xfc, byte(v), byte(v>>8)) // a table has at most 4096 columns
}
