package change

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Context says, per other origin, up to which time a server had applied that origin. It is immutable: With returns a
// copy, so that many transactions share one Context. Entries are sorted by origin.
type Context []ContextEntry

// ContextEntry is the time up to which one origin had been applied.
type ContextEntry struct {
	Origin ServerID
	Time   Time
}

func (c Context) find(o ServerID) (int, bool) {
	return slices.BinarySearchFunc(c, o, func(e ContextEntry, o ServerID) int { return e.Origin.Compare(o) })
}

// At returns the time up to which origin o had been applied, 0 when nothing of it had.
func (c Context) At(o ServerID) Time {
	if i, ok := c.find(o); ok {
		return c[i].Time
	}
	return 0
}

// Covers reports whether a server with this context had applied version v.
func (c Context) Covers(v Version) bool { return v.Time <= c.At(v.Origin) }

// With returns the context in which origin o has been applied up to at least t. The receiver is not changed; it is
// returned itself when it says so already.
func (c Context) With(o ServerID, t Time) Context {
	i, ok := c.find(o)
	if ok {
		if c[i].Time >= t {
			return c
		}
		next := slices.Clone(c)
		next[i].Time = t
		return next
	}
	return slices.Insert(slices.Clone(c), i, ContextEntry{o, t})
}

// Merge returns the entry-wise greatest of both contexts.
func (c Context) Merge(other Context) Context {
	for _, e := range other {
		c = c.With(e.Origin, e.Time)
	}
	return c
}

// Equal reports whether both contexts say the same.
func (c Context) Equal(other Context) bool { return slices.Equal(c, other) }

// AppendBinary appends the binary form: a count (uvarint), then per entry 16 bytes of origin and the time (varint).
func (c Context) AppendBinary(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(c)))
	for _, e := range c {
		b = append(b, e.Origin[:]...)
		b = binary.AppendVarint(b, int64(e.Time))
	}
	return b
}

var errShort = errors.New("value is cut short")

// maxContext bounds what DecodeContext accepts: no mesh has more servers.
const maxContext = 1 << 12

// DecodeContext reads what AppendBinary wrote and returns the rest of b.
func DecodeContext(b []byte) (Context, []byte, error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > maxContext {
		return nil, nil, fmt.Errorf("decode context: %w", errShort)
	}
	b = b[used:]
	var c Context
	for range n {
		var e ContextEntry
		if len(b) < len(e.Origin) {
			return nil, nil, fmt.Errorf("decode context: %w", errShort)
		}
		b = b[copy(e.Origin[:], b):]
		t, used := binary.Varint(b)
		if used <= 0 {
			return nil, nil, fmt.Errorf("decode context: %w", errShort)
		}
		b = b[used:]
		e.Time = Time(t)
		if len(c) > 0 && c[len(c)-1].Origin.Compare(e.Origin) >= 0 {
			return nil, nil, errors.New("decode context: origins are not in order")
		}
		c = append(c, e)
	}
	return c, b, nil
}

// Clock is the state of the hybrid logical clock that is folded over one server's binlog. Everyone who reads that binlog
// from the server's birth, or from a saved Clock with its position, computes the same. It depends on the log alone.
type Clock struct {
	Time    Time    // the greatest time given or seen so far
	Context Context // what the server had applied of each other origin
}

// Local folds in a transaction that an application committed on the server itself, and returns its time.
// physical is the transaction's own time, of any resolution; a time that does not exceed the clock is lifted above it.
func (c *Clock) Local(physical Time) Time {
	c.Time = max(c.Time+1, physical)
	return c.Time
}

// Raise folds in a time that a birth or a heartbeat demands.
func (c *Clock) Raise(t Time) { c.Time = max(c.Time, t) }

// Replicated folds in a transaction that the applier committed on the server: newest is the greatest time in its
// manifest (0 when that is empty), and source had been applied up to applied.
func (c *Clock) Replicated(source ServerID, applied, newest Time) {
	c.Raise(newest)
	c.Context = c.Context.With(source, applied)
}

// AppendBinary appends the time (varint) and the context.
func (c Clock) AppendBinary(b []byte) []byte {
	return c.Context.AppendBinary(binary.AppendVarint(b, int64(c.Time)))
}

// DecodeClock reads what AppendBinary wrote; b must hold nothing else.
func DecodeClock(b []byte) (Clock, error) {
	t, used := binary.Varint(b)
	if used <= 0 {
		return Clock{}, fmt.Errorf("decode clock: %w", errShort)
	}
	ctx, rest, err := DecodeContext(b[used:])
	if err != nil {
		return Clock{}, fmt.Errorf("decode clock: %w", err)
	}
	if len(rest) != 0 {
		return Clock{}, fmt.Errorf("decode clock: %d bytes too many", len(rest))
	}
	return Clock{Time: Time(t), Context: ctx}, nil
}
