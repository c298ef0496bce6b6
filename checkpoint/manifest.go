package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
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
// A manifest that is too large for one marker row is cut anywhere; its pieces are joined in the order of their numbers.
const manifestVersion = 1

const (
	hasOrigin = 1 << iota
	hasMySQL
	hasMariaDB
	hasContext
)

// chunkBytes is the size at which a manifest continues in a further row.
const chunkBytes = 1 << 20

// EncodeManifest yields a manifest in pieces, one per marker row, none when it has no entry. It is encoded while it is
// consumed, so that the keys of a large transaction are held once; a piece is valid until the next one is asked for.
func EncodeManifest(entries []change.ManifestEntry) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if len(entries) == 0 {
			return
		}
		b := []byte{manifestVersion}
		var last change.ManifestEntry
		for _, e := range entries {
			b = appendHeader(b, e, last)
			last = e
			for _, k := range e.Keys {
				b = append(b, k[:]...)
				if len(b) >= chunkBytes {
					if !yield(b) {
						return
					}
					b = b[:0]
				}
			}
		}
		if len(b) > 0 {
			yield(b)
		}
	}
}

func appendHeader(b []byte, e, last change.ManifestEntry) []byte {
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
	return binary.AppendUvarint(b, uint64(len(e.Keys)))
}

var errManifest = errors.New("the manifest is cut short")

// DecodeManifest reads a manifest whose pieces have been joined. The keys are views of b, which must not change.
func DecodeManifest(b []byte) ([]change.ManifestEntry, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if b[0] != manifestVersion {
		return nil, fmt.Errorf("decode manifest: version %d is not known", b[0])
	}
	r := reader{b: b[1:]}
	var entries []change.ManifestEntry
	var last change.ManifestEntry
	for len(r.b) > 0 {
		e := last
		e.Keys = nil
		flags := r.take(1)[0]
		if flags >= hasContext<<1 {
			return nil, fmt.Errorf("decode manifest: flags %#x are not known", flags)
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
		e.Keys = r.keyList()
		if r.err != nil {
			return nil, fmt.Errorf("decode manifest: %w", r.err)
		}
		entries = append(entries, e)
		last = e
	}
	return entries, nil
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

func (r *reader) keyList() []change.Key {
	count := r.uvarint()
	if count == 0 || r.err != nil {
		return nil
	}
	if count > uint64(len(r.b))/16 {
		r.err = errManifest
		return nil
	}
	raw := r.take(count * 16)
	// A Key is 16 bytes without alignment: the view saves a copy of the manifest of a transaction of a million rows.
	return unsafe.Slice((*change.Key)(unsafe.Pointer(unsafe.SliceData(raw))), count)
}
