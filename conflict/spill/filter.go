package spill

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"replicator/change"
)

const (
	firstPart  = 1 << 20 // bytes; each part is twice as large as the one before
	lastPart   = 16 << 20
	blockWords = 8  // of 64 bits: a line of the processor's cache
	bitsPerKey = 5  // that are set
	bitsOfRoom = 12 // per key, when a part is full
)

// filter says of most keys that are not in a store that they are not. It takes 1.5 bytes for each key, at most 31 MB: beyond
// 20 million keys it says so of fewer and fewer. Most keys that are looked up are absent, and the tables' own filters would
// not fit into the cache. Methods may be called from several goroutines, but add and clear only one at a time.
type filter struct{ parts atomic.Pointer[[]*part] }

// part is a filter of one size.
type part struct {
	words []atomic.Uint64
	room  int // keys that can be added
}

func newPart(bytes int) *part {
	return &part{words: make([]atomic.Uint64, bytes/8), room: 8 * bytes / bitsOfRoom}
}

// block returns the words in which a key's bits are, and the number from which these come, 9 bits for each.
func (p *part) block(k change.Key) (words []atomic.Uint64, hash uint64) {
	hash = (binary.BigEndian.Uint64(k[:8]) ^ bits.RotateLeft64(binary.BigEndian.Uint64(k[8:]), 32)) * 0x9e3779b97f4a7c15
	at := int(hash%uint64(len(p.words)/blockWords)) * blockWords
	return p.words[at : at+blockWords], hash >> (64 - 9*bitsPerKey)
}

func (p *part) has(k change.Key) bool {
	words, hash := p.block(k)
	for range bitsPerKey {
		if words[hash%blockWords].Load()>>(hash/blockWords%64)&1 == 0 {
			return false
		}
		hash >>= 9
	}
	return true
}

// add notes a key.
func (f *filter) add(k change.Key) {
	last := f.last()
	last.room--
	words, hash := last.block(k)
	for range bitsPerKey {
		words[hash%blockWords].Or(1 << (hash / blockWords % 64))
		hash >>= 9
	}
}

// last returns the part to which keys are added.
func (f *filter) last() *part {
	parts, bytes := f.all(), firstPart
	if n := len(parts); n > 0 {
		last := parts[n-1]
		bytes = 2 * 8 * len(last.words)
		if last.room > 0 || bytes > lastPart {
			return last
		}
	}
	next := newPart(bytes)
	more := append(append([]*part(nil), parts...), next)
	f.parts.Store(&more)
	return next
}

func (f *filter) all() []*part {
	if parts := f.parts.Load(); parts != nil {
		return *parts
	}
	return nil
}

// has reports false only of a key that was not added since the filter was cleared.
func (f *filter) has(k change.Key) bool {
	for _, p := range f.all() {
		if p.has(k) {
			return true
		}
	}
	return false
}

// clear forgets all keys.
func (f *filter) clear() { f.parts.Store(nil) }
