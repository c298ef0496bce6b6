package image

import (
	"encoding/binary"
	"errors"
)

var errCut = errors.New("bytes are cut short")

// reader takes little-endian values off a byte slice. After the first value that is not there, bad is set and everything
// reads as zero, so that a parser checks once, at its end.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if v := r.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

// packed reads a length-encoded integer. The NULL marker (0xfb) and 0xff are no integers.
func (r *reader) packed() uint64 {
	switch first := r.byte(); first {
	case 0xfb, 0xff:
		r.b, r.bad = nil, true
		return 0
	case 0xfc:
		return uint64(r.uint16())
	case 0xfd:
		return littleEndian(r.take(3))
	case 0xfe:
		return littleEndian(r.take(8))
	default:
		return uint64(first)
	}
}

// packedBytes reads a length-encoded string.
func (r *reader) packedBytes() []byte {
	n := r.packed()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	return r.take(int(n))
}

// packedAll reads length-encoded integers to the end.
func (r *reader) packedAll() []uint64 {
	var all []uint64
	for len(r.b) > 0 {
		all = append(all, r.packed())
	}
	return all
}

// littleEndian reads an unsigned integer of up to eight bytes.
func littleEndian(b []byte) uint64 {
	var v uint64
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return v
}

// bigEndian reads an unsigned integer of up to eight bytes.
func bigEndian(b []byte) uint64 {
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}
