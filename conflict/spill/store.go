// Package spill keeps the part of a change index that exceeds its memory, in a directory on the local disk.
package spill

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/cockroachdb/pebble"
	"github.com/cockroachdb/pebble/vfs"

	"replicator/change"
	"replicator/conflict"
)

// Memory that one Store may take. A memtable exists up to three times: one is filled, others are written out.
const (
	cacheBytes    = 8 << 20
	memtableBytes = 2 << 20
)

// Store implements conflict.Store with pebble. A key is the 16 bytes of the row's key, a value the version's time
// (varint), its origin (16 bytes) and the context. Nothing is synced: the content is worthless after a crash.
type Store struct {
	db     *pebble.DB
	dir    string
	broken *atomic.Pointer[error] // what pebble met in the background, such as a full disk
	filter filter
	size   int // entries; more after a Put that failed
}

var _ conflict.Store = (*Store)(nil)

// Open makes an empty store in dir; whatever dir held is deleted. One process at a time may use it.
func Open(dir string) (*Store, error) { return openOn(dir, vfs.Default) }

func openOn(dir string, files vfs.FS) (*Store, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("empty spill directory: %w", err)
	}
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref() // the database holds its own reference
	broken := new(atomic.Pointer[error])
	db, err := pebble.Open(dir, &pebble.Options{
		Cache:      cache,
		DisableWAL: true,
		FS:         files,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { broken.CompareAndSwap(nil, &err) },
		},
		Levels: []pebble.LevelOptions{{
			Compression: pebble.NoCompression, // hashes do not compress
		}},
		Logger:                      silent{},
		MaxConcurrentCompactions:    func() int { return 1 },
		MaxOpenFiles:                64,
		MemTableSize:                memtableBytes,
		MemTableStopWritesThreshold: 3,
	})
	if err != nil {
		return nil, fmt.Errorf("open spill directory %s: %w", dir, err)
	}
	return &Store{db: db, dir: dir, broken: broken}, nil
}

// Close releases and deletes the directory.
func (s *Store) Close() error {
	err := s.db.Close()
	if err := errors.Join(err, os.RemoveAll(s.dir)); err != nil {
		return fmt.Errorf("close spill directory %s: %w", s.dir, err)
	}
	return nil
}

// Get implements conflict.Store.
func (s *Store) Get(key change.Key) (change.Stamp, bool, error) {
	if !s.filter.has(key) {
		return change.Stamp{}, false, nil
	}
	value, closer, err := s.db.Get(key[:])
	if errors.Is(err, pebble.ErrNotFound) {
		return change.Stamp{}, false, nil
	}
	if err != nil {
		return change.Stamp{}, false, fmt.Errorf("read spilled row %s: %w", key, err)
	}
	stamp, err := decode(value)
	if err := errors.Join(err, closer.Close()); err != nil {
		return change.Stamp{}, false, fmt.Errorf("read spilled row %s: %w", key, err)
	}
	return stamp, true, nil
}

// Put implements conflict.Store.
//
// After an error in the background it takes nothing more: pebble would go on trying, and in the end wait for ever.
func (s *Store) Put(entries []conflict.Stored) error {
	if err := s.broken.Load(); err != nil {
		return fmt.Errorf("spill %d rows to %s: %w", len(entries), s.dir, *err)
	}
	batch := s.db.NewBatchWithSize(64 * len(entries))
	s.size += len(entries)
	for _, e := range entries {
		s.filter.add(e.Key)
		if err := batch.Set(e.Key[:], encode(e.Stamp), nil); err != nil {
			return errors.Join(fmt.Errorf("spill row %s: %w", e.Key, err), batch.Close())
		}
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("spill %d rows: %w", len(entries), err)
	}
	return nil
}

// Remove implements conflict.Store.
func (s *Store) Remove(key change.Key) error {
	if err := s.db.Delete(key[:], pebble.NoSync); err != nil {
		return fmt.Errorf("delete spilled row %s: %w", key, err)
	}
	s.removed(1)
	return nil
}

func (s *Store) removed(n int) {
	s.size -= n
	if s.size == 0 {
		s.filter.clear()
	}
}

// Sweep implements conflict.Store.
func (s *Store) Sweep(from change.Key, limit int, drop func(change.Version) bool) (
	next change.Key, dropped int, done bool, err error,
) {
	next, gone, err := s.scan(from, limit, drop)
	if err != nil {
		return from, 0, false, fmt.Errorf("scan spilled rows: %w", err)
	}
	batch := s.db.NewBatchWithSize(32 * len(gone))
	for _, k := range gone {
		if err := batch.Delete(k[:], nil); err != nil {
			return from, 0, false, errors.Join(fmt.Errorf("delete spilled row %s: %w", k, err), batch.Close())
		}
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return from, 0, false, fmt.Errorf("delete %d spilled rows: %w", len(gone), err)
	}
	s.removed(len(gone))
	return next, len(gone), next == change.Key{}, nil
}

// scan returns the keys to be dropped, and the key after the last one seen, or the zero key at the end.
func (s *Store) scan(from change.Key, limit int, drop func(change.Version) bool) (
	next change.Key, gone []change.Key, err error,
) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from[:]})
	if err != nil {
		return next, nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if limit == 0 {
			copy(next[:], it.Key())
			return next, gone, nil
		}
		limit--
		stamp, err := decode(it.Value())
		if err != nil {
			return next, nil, err
		}
		if drop(stamp.Version) {
			gone = append(gone, change.Key(it.Key()))
		}
	}
	return next, gone, it.Error()
}

func encode(stamp change.Stamp) []byte {
	return change.Clock{
		Time:    stamp.Version.Time,
		Context: stamp.Context,
	}.AppendBinary(stamp.Version.Origin[:])
}

func decode(value []byte) (change.Stamp, error) {
	var stamp change.Stamp
	n := copy(stamp.Version.Origin[:], value)
	clock, err := change.DecodeClock(value[n:])
	if err != nil {
		return stamp, fmt.Errorf("decode spilled entry: %w", err)
	}
	stamp.Version.Time, stamp.Context = clock.Time, clock.Context
	return stamp, nil
}

// silent drops what pebble says of its daily work; what matters comes back as an error.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}

// Fatalf is called where pebble cannot go on, and must not return.
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
