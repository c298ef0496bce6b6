package canal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"replicator/change"
	"replicator/fault"
)

// collector gathers the rows events of one transaction: in memory, and in a file once they are more than limit.
type collector struct {
	dir    string
	limit  int64
	events change.Events
	file   *spool
	rows   int64
	bytes  int64
	memory int64
}

// The memory that values take besides the bytes of their events.
const (
	rowMemory         = int64(unsafe.Sizeof(change.Row{}))
	eventMemory       = int64(unsafe.Sizeof(change.RowsEvent{})) + 16
	transactionMemory = int64(unsafe.Sizeof(change.Transaction{})) + 64
	logRowMemory      = int64(unsafe.Sizeof(change.LogRow{}))
)

// add takes an event whose data are valid only now.
func (c *collector) add(ev *change.RowsEvent) error {
	c.rows += int64(len(ev.Rows))
	c.bytes += int64(len(ev.Data))
	if c.file != nil {
		return c.file.write(ev)
	}
	ev.Data = bytes.Clone(ev.Data)
	c.events = append(c.events, ev)
	c.memory += int64(len(ev.Data)) + int64(len(ev.Rows))*rowMemory + eventMemory
	if c.memory <= c.limit {
		return nil
	}
	return c.spill()
}

// spill moves what was gathered so far to a file.
func (c *collector) spill() error {
	file, err := newSpool(c.dir)
	if err != nil {
		return err
	}
	c.file = file
	for _, ev := range c.events {
		if err := file.write(ev); err != nil {
			return err
		}
	}
	c.events, c.memory = nil, eventMemory
	return nil
}

// finish returns the body; nothing may be added behind it.
func (c *collector) finish() (change.Body, error) {
	if c.file == nil {
		return c.events, nil
	}
	return c.file, c.file.flush()
}

// discard frees the file of a transaction that was not published.
func (c *collector) discard() {
	if c.file != nil {
		c.file.close()
	}
	*c = collector{dir: c.dir, limit: c.limit}
}

// spool is a Body in a file without a name. The file is closed, and its space freed, when the garbage collector finds
// that no transaction refers to it any more.
//
// A record is: table (uint32, index into tables), kind (1 byte), size of the event (uint32), number of rows (uint32),
// the event, and the rows as they lie in memory, keys included, so that a second reading computes nothing.
type spool struct {
	file   *os.File
	out    *bufio.Writer
	size   int64
	tables []*change.Table
	index  map[*change.Table]uint32
}

const (
	spoolBuffer = 256 << 10
	recordHead  = 4 + 1 + 4 + 4
)

func newSpool(dir string) (*spool, error) {
	file, err := os.CreateTemp(dir, "spool-*")
	if err == nil {
		err = os.Remove(file.Name())
	}
	if err != nil {
		return nil, spoolFault(err)
	}
	return &spool{file: file, out: bufio.NewWriterSize(file, spoolBuffer), index: map[*change.Table]uint32{}}, nil
}

func spoolFault(err error) error {
	return fault.Wrap(err, fault.DiskFull, "make room in state_dir, or let it be written to; then it is tried again by itself",
		"a large transaction cannot be kept in the state directory")
}

func (s *spool) write(ev *change.RowsEvent) error {
	table, known := s.index[ev.Table]
	if !known {
		table = uint32(len(s.tables))
		s.index[ev.Table] = table
		s.tables = append(s.tables, ev.Table)
	}
	head := make([]byte, 0, recordHead)
	head = binary.LittleEndian.AppendUint32(head, table)
	head = append(head, byte(ev.Kind))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(ev.Data)))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(ev.Rows)))
	for _, part := range [][]byte{head, ev.Data, rowBytes(ev.Rows)} {
		if _, err := s.out.Write(part); err != nil {
			return spoolFault(err)
		}
		s.size += int64(len(part))
	}
	return nil
}

// rowBytes views rows as bytes. The file never outlives the process that wrote it, so its byte order is the machine's.
func rowBytes(rows []change.Row) []byte {
	if len(rows) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(rows))), int64(len(rows))*rowMemory)
}

func (s *spool) flush() error {
	if err := s.out.Flush(); err != nil {
		return spoolFault(err)
	}
	s.out, s.index = nil, nil
	return nil
}

func (s *spool) close() { _ = s.file.Close() }

// Each implements change.Body. It holds one event at a time.
func (s *spool) Each(f func(*change.RowsEvent) error) error {
	in := bufio.NewReaderSize(io.NewSectionReader(s.file, 0, s.size), spoolBuffer)
	var head [recordHead]byte
	var ev change.RowsEvent
	for {
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a spooled transaction: %w", err)
		}
		table := binary.LittleEndian.Uint32(head[:])
		if table >= uint32(len(s.tables)) {
			return fmt.Errorf("bug: a spooled event refers to table %d of %d", table, len(s.tables))
		}
		ev.Table, ev.Kind = s.tables[table], change.RowKind(head[4])
		ev.Data = resize(ev.Data, int(binary.LittleEndian.Uint32(head[5:])))
		ev.Rows = resize(ev.Rows, int(binary.LittleEndian.Uint32(head[9:])))
		for _, part := range [][]byte{ev.Data, rowBytes(ev.Rows)} {
			if _, err := io.ReadFull(in, part); err != nil {
				return fmt.Errorf("read a spooled transaction: %w", err)
			}
		}
		if err := f(&ev); err != nil {
			return err
		}
	}
}

func resize[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n)
}
