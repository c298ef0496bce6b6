package checkpoint

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"replicator/change"
)

// The manifest's binary form, version 1: one byte 1, then per source transaction
//
//	flags    1 byte: which of the bracketed fields follow
//	[origin] 16 bytes, when it is not that of the entry before (the first entry has it)
//	[GTID]   its prefix, when it is not that of the entry before:
//	         MySQL 16 bytes of UUID, length of the tag (uvarint), tag; MariaDB domain and server (uvarint each)
//	number   of the GTID (uvarint)
//	time     of the version (varint), as the difference to the entry before
//	[context] when it is not that of the entry before: see change.Context
//	keys     their count (uvarint), then 16 bytes each
//
// A manifest that is too large for one marker row is cut behind a key.
const manifestVersion = 1

const (
	hasOrigin = 1 << iota
	hasMySQL
	hasMariaDB
	hasContext
)

const (
	// PieceBytes is the size up to which a manifest is one row.
	PieceBytes = 1 << 20
	// pieceOfMany is the size of the rows of a larger one: each is removed by a transaction of its own.
	pieceOfMany = 128 << 10
)

// Entry is a source transaction as it is written into a manifest.
type Entry struct {
	GTID  change.GTID
	Stamp change.Stamp
	Count int // of the keys
	// Keys calls yield for each key, in order, until it fails. It may be called several times.
	Keys func(yield func(change.Key) error) error
}

// EncodeManifest emits a manifest in pieces, one per marker row, none when it has no entry. Keys are asked for as they are
// written, so those of a large transaction need not be held in memory. A piece is valid until emit returns.
func EncodeManifest(entries []Entry, emit func(piece []byte) error) error {
	if len(entries) == 0 {
		return nil
	}
	limit, keys := PieceBytes, 0
	for _, e := range entries {
		if keys += e.Count; keys*len(change.Key{}) > PieceBytes {
			limit = pieceOfMany
		}
	}
	b := []byte{manifestVersion}
	var last Entry
	for _, e := range entries {
		b = appendHeader(b, e, last)
		last = e
		count := 0
		err := e.Keys(func(k change.Key) error {
			b = append(b, k[:]...)
			count++
			if len(b) < limit {
				return nil
			}
			full := b
			b = b[:0]
			return emit(full)
		})
		if err != nil {
			return err
		}
		if count != e.Count {
			return fmt.Errorf("bug: the manifest entry of %s has %d keys, announced were %d", e.GTID, count, e.Count)
		}
	}
	if len(b) > 0 {
		return emit(b)
	}
	return nil
}

func appendHeader(b []byte, e, last Entry) []byte {
	at := len(b)
	b = append(b, 0)
	var flags byte
	if origin := e.Stamp.Version.Origin; origin != last.Stamp.Version.Origin {
		flags |= hasOrigin
		b = append(b, origin[:]...)
	}
	if g, l := e.GTID, last.GTID; g.UUID != l.UUID || g.Tag != l.Tag || g.Domain != l.Domain || g.Server != l.Server {
		if g.UUID != [16]byte{} {
			flags |= hasMySQL
			b = append(b, g.UUID[:]...)
			b = binary.AppendUvarint(b, uint64(len(g.Tag)))
			b = append(b, g.Tag...)
		} else {
			flags |= hasMariaDB
			b = binary.AppendUvarint(b, uint64(g.Domain))
			b = binary.AppendUvarint(b, uint64(g.Server))
		}
	}
	b = binary.AppendUvarint(b, e.GTID.Number)
	b = binary.AppendVarint(b, int64(e.Stamp.Version.Time-last.Stamp.Version.Time))
	if !e.Stamp.Context.Equal(last.Stamp.Context) {
		flags |= hasContext
		b = e.Stamp.Context.AppendBinary(b)
	}
	b[at] = flags
	return binary.AppendUvarint(b, uint64(e.Count))
}

var errManifest = errors.New("the manifest is cut short")

// DecodeManifest reads a manifest from its pieces. An entry whose keys are spread over several pieces comes in as many
// parts. The keys are views of the pieces, which must not change.
func DecodeManifest(pieces ...[]byte) ([]change.ManifestEntry, error) {
	var entries []change.ManifestEntry
	var last change.ManifestEntry
	var left uint64 // keys of last that are still to come
	first := true
	for _, piece := range pieces {
		r := reader{b: piece}
		if first && len(piece) > 0 {
			if v := r.take(1)[0]; v != manifestVersion {
				return nil, fmt.Errorf("decode manifest: version %d is not known", v)
			}
			first = false
		}
		for len(r.b) > 0 {
			if left == 0 {
				left = r.header(&last)
			}
			last.Keys = r.keys(&left)
			if r.err != nil {
				return nil, fmt.Errorf("decode manifest: %w", r.err)
			}
			entries = append(entries, last)
		}
	}
	if left > 0 {
		return nil, fmt.Errorf("decode manifest: %w", errManifest)
	}
	return entries, nil
}

// header reads all of an entry but its keys, over the entry before, and returns their number.
func (r *reader) header(e *change.ManifestEntry) (keys uint64) {
	flags := r.take(1)[0]
	if flags >= hasContext<<1 {
		r.err = fmt.Errorf("flags %#x are not known", flags)
		return 0
	}
	if flags&hasOrigin != 0 {
		copy(e.Stamp.Version.Origin[:], r.take(16))
	}
	if flags&hasMySQL != 0 {
		e.GTID = change.GTID{}
		copy(e.GTID.UUID[:], r.take(16))
		e.GTID.Tag = string(r.take(r.uvarint()))
	}
	if flags&hasMariaDB != 0 {
		e.GTID = change.GTID{Domain: uint32(r.uvarint()), Server: uint32(r.uvarint())}
	}
	e.GTID.Number = r.uvarint()
	e.Stamp.Version.Time += change.Time(r.varint())
	if flags&hasContext != 0 && r.err == nil {
		e.Stamp.Context, r.b, r.err = change.DecodeContext(r.b)
	}
	return r.uvarint()
}

// reader takes fields off a byte slice; the first failure sticks.
type reader struct {
	b   []byte
	err error
}

var zeros [16]byte

func (r *reader) take(n uint64) []byte {
	if r.err != nil || n > uint64(len(r.b)) {
		r.err = errManifest
		return zeros[:min(n, 16)]
	}
	field := r.b[:n]
	r.b = r.b[n:]
	return field
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.err = errManifest
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.err = errManifest
		return 0
	}
	r.b = r.b[n:]
	return v
}

// keys takes as many of the keys that are left as the piece has.
func (r *reader) keys(left *uint64) []change.Key {
	n := min(*left, uint64(len(r.b))/16)
	if r.err != nil || n == 0 && *left > 0 && len(r.b) > 0 {
		r.err = cmp.Or(r.err, errManifest)
		return nil
	}
	*left -= n
	if n == 0 {
		return nil
	}
	raw := r.take(n * 16)
	// A Key is 16 bytes without alignment: the view saves a copy of the keys of a transaction of a million rows.
	return unsafe.Slice((*change.Key)(unsafe.Pointer(unsafe.SliceData(raw))), n)
}
