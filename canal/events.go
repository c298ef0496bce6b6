package canal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"replicator/change"
)

// A binlog event is a header of 19 bytes, a body, and a CRC32 where the format has one. Layouts are those of MySQL's
// libbinlogevents and MariaDB's log_event.h.
const (
	headerSize   = 19
	checksumSize = 4

	flagArtificial = 0x20

	// maxEvent is the largest event that a server writes.
	maxEvent = 1 << 30
)

var errCut = errors.New("the event is cut short")

// event is one raw event.
type event []byte

func (e event) kind() replication.EventType { return replication.EventType(e[4]) }
func (e event) seconds() uint32             { return binary.LittleEndian.Uint32(e) }
func (e event) serverID() uint32            { return binary.LittleEndian.Uint32(e[5:]) }
func (e event) logPos() uint32              { return binary.LittleEndian.Uint32(e[13:]) }
func (e event) flags() uint16               { return binary.LittleEndian.Uint16(e[17:]) }

func (e event) body(checksum bool) []byte {
	if checksum && len(e) >= headerSize+checksumSize {
		return e[headerSize : len(e)-checksumSize]
	}
	return e[headerSize:]
}

// seal writes size and CRC32 into an event that was put together here; its last four bytes are the place of the CRC32
// where the format has one.
func (e event) seal(checksum bool) event {
	binary.LittleEndian.PutUint32(e[9:], uint32(len(e)))
	if checksum {
		end := len(e) - checksumSize
		binary.LittleEndian.PutUint32(e[end:], crc32.ChecksumIEEE(e[:end]))
	}
	return e
}

// intact verifies the CRC32 of an event in a stream whose format has them or not. A format is described with its own.
func (e event) intact(checksum bool) bool {
	end := len(e) - checksumSize
	if e.kind() == replication.FORMAT_DESCRIPTION_EVENT {
		checksum = end > headerSize && e[end-1] == 1
	}
	if !checksum {
		return true
	}
	return end >= headerSize && binary.LittleEndian.Uint32(e[end:]) == crc32.ChecksumIEEE(e[:end])
}

// parseFormat reads a FORMAT_DESCRIPTION event.
func parseFormat(e event) (*change.Format, error) {
	body := e[headerSize:]
	if len(body) < 2+50+4+1+checksumSize+1 {
		return nil, errCut
	}
	algorithm := body[len(body)-checksumSize-1]
	if algorithm > 1 {
		return nil, fmt.Errorf("checksum algorithm %d is not known", algorithm)
	}
	version, _, _ := bytes.Cut(body[2:52], []byte{0})
	return &change.Format{Event: bytes.Clone(e), ServerVersion: string(version), Checksum: algorithm == 1}, nil
}

// sameFormat reports whether two formats differ only in when and where they were written.
func sameFormat(a, b *change.Format) bool {
	if a == nil || len(a.Event) != len(b.Event) {
		return false
	}
	const created = headerSize + 2 + 50
	end := len(a.Event) - checksumSize
	return bytes.Equal(a.Event[headerSize:created], b.Event[headerSize:created]) &&
		bytes.Equal(a.Event[created+4:end], b.Event[created+4:end])
}

// begin is what the event that opens a transaction says.
type begin struct {
	gtid change.GTID
	// committed and original are commit times in µs, on the server and where the transaction came from: MySQL only.
	committed, original change.Time
	standalone          bool // MariaDB: one event follows, and it is the whole transaction
	alter               byte // MariaDB: the phase of an ALTER in two phases
}

// Phases of a MariaDB ALTER.
const (
	startAlter    = 2
	commitAlter   = 4
	rollbackAlter = 8
)

func parseGTID(body []byte) (begin, error) {
	const times = 1 + 16 + 8 + 1 + 16
	if len(body) < times+7 {
		return begin{}, errCut
	}
	b := begin{gtid: change.GTID{UUID: [16]byte(body[1:17]), Number: binary.LittleEndian.Uint64(body[17:])}}
	const hasOriginal = 1 << 55
	committed := uint56(body[times:])
	b.committed = change.Time(committed &^ hasOriginal)
	b.original = b.committed
	if committed&hasOriginal != 0 {
		if len(body) < times+14 {
			return begin{}, errCut
		}
		b.original = change.Time(uint56(body[times+7:]))
	}
	return b, nil
}

func uint56(b []byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(b)) | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48
}

func parseTaggedGTID(body []byte) (b begin, err error) {
	defer func() { // the library's decoder panics at a field that no server writes yet
		if r := recover(); r != nil {
			err = fmt.Errorf("decode a tagged GTID: %v", r)
		}
	}()
	var e replication.GtidTaggedLogEvent
	if err := e.Decode(body); err != nil {
		return begin{}, err
	}
	b.gtid = change.GTID{UUID: [16]byte(e.SID), Tag: e.Tag.String(), Number: uint64(e.GNO)}
	b.committed = change.Time(e.ImmediateCommitTimestamp)
	b.original = b.committed
	if e.OriginalCommitTimestamp != 0 {
		b.original = change.Time(e.OriginalCommitTimestamp)
	}
	return b, nil
}

func parseMariaDBGTID(e event, body []byte) (begin, error) {
	if len(body) < 13 {
		return begin{}, errCut
	}
	const (
		standalone  = 0x01
		groupCommit = 0x02
		xa          = 0x40 | 0x80
	)
	flags := body[12]
	b := begin{
		gtid: change.GTID{
			Number: binary.LittleEndian.Uint64(body), Domain: binary.LittleEndian.Uint32(body[8:]), Server: e.serverID(),
		},
		standalone: flags&standalone != 0,
	}
	at := 13
	if flags&groupCommit != 0 {
		at += 8
	}
	if flags&xa != 0 && at+6 <= len(body) {
		at += 6 + int(body[at+4]) + int(body[at+5])
	}
	if at < len(body) {
		b.alter = body[at] & (startAlter | commitAlter | rollbackAlter)
	}
	return b, nil
}

// query is a statement as text.
type query struct {
	database, text     string
	ansiQuotes         bool
	noBackslashEscapes bool
}

func parseQuery(body []byte, compressed bool) (query, error) {
	if len(body) < 13 {
		return query{}, errCut
	}
	database := 13 + int(binary.LittleEndian.Uint16(body[11:]))
	text := database + int(body[8]) + 1
	if len(body) < text {
		return query{}, errCut
	}
	q := query{database: string(body[database : text-1])}
	status := body[13:database]
	if len(status) >= 5 && status[0] == 0 { // Q_FLAGS2_CODE
		status = status[5:]
	}
	if len(status) >= 9 && status[0] == 1 { // Q_SQL_MODE_CODE
		mode := binary.LittleEndian.Uint64(status[1:])
		q.ansiQuotes = mode&(1<<2) != 0
		q.noBackslashEscapes = mode&(1<<20) != 0
	}
	raw := body[text:]
	if compressed {
		var err error
		if raw, err = inflate(raw); err != nil {
			return query{}, err
		}
	}
	q.text = string(raw)
	return q, nil
}

// inflate decompresses what MariaDB compressed (log_bin_compress).
func inflate(b []byte) ([]byte, error) {
	if len(b) < 2 {
		return nil, errCut
	}
	n := int(b[0] & 7)
	if n == 0 || len(b) < 1+n {
		return nil, errCut
	}
	size := uint64(0)
	for _, c := range b[1 : 1+n] {
		size = size<<8 | uint64(c)
	}
	if size > maxEvent {
		return nil, fmt.Errorf("a compressed event claims %d bytes", size)
	}
	return mysql.DecompressMariadbData(b)
}

// inflateRows turns a compressed rows event of MariaDB into an ordinary one.
func inflateRows(e event, checksum bool) (event, error) {
	body := e.body(checksum)
	head, err := rowsHead(e.kind(), body)
	if err != nil {
		return nil, err
	}
	rows, err := inflate(body[head:])
	if err != nil {
		return nil, err
	}
	size := headerSize + head + len(rows)
	if checksum {
		size += checksumSize
	}
	plain := make(event, size)
	copy(plain, e[:headerSize+head])
	copy(plain[headerSize+head:], rows)
	plain[4] = byte(e.kind() - replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1 + replication.WRITE_ROWS_EVENTv1)
	return plain.seal(checksum), nil
}

// rowsHead returns where the row images of a compressed rows event (version 1) begin in its body.
func rowsHead(kind replication.EventType, body []byte) (int, error) {
	const fixed = 8
	if len(body) < fixed+1 {
		return 0, errCut
	}
	columns, n := lengthEncoded(body[fixed:])
	bitmaps := int(columns+7) / 8
	if kind == replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1 {
		bitmaps *= 2
	}
	head := fixed + n + bitmaps
	if n == 0 || columns > 1<<16 || len(body) < head {
		return 0, errCut
	}
	return head, nil
}

// lengthEncoded reads a length-encoded number and returns how many bytes it took, 0 when it is cut short.
func lengthEncoded(b []byte) (uint64, int) {
	if len(b) == 0 || b[0] == 0xfb || b[0] == 0xff {
		return 0, 0
	}
	if b[0] < 0xfb {
		return uint64(b[0]), 1
	}
	n := [...]int{2, 3, 8}[b[0]-0xfc]
	if len(b) < 1+n {
		return 0, 0
	}
	v := uint64(0)
	for i := n; i > 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v, 1 + n
}

// tableID is the number that ties rows events to their TABLE_MAP event.
func tableID(body []byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(body)) | uint64(binary.LittleEndian.Uint16(body[4:]))<<32
}

// dummyTableID marks a rows event without rows that only ends a statement.
const dummyTableID = 0xffffff

// mapName reads the table's name from the body of a TABLE_MAP event.
func mapName(body []byte) (change.TableName, error) {
	if len(body) < 9 {
		return change.TableName{}, errCut
	}
	n := int(body[8])
	if len(body) < 9+n+2 {
		return change.TableName{}, errCut
	}
	m := int(body[9+n+1])
	if len(body) < 9+n+2+m {
		return change.TableName{}, errCut
	}
	return change.TableName{Database: string(body[9 : 9+n]), Table: string(body[9+n+2 : 9+n+2+m])}, nil
}
