package change

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// ServerID is the random identity of a server, kept in its table replicator.identity. It names the origin of a
// transaction for the whole life of the mesh, whatever address the server answers on.
type ServerID [16]byte

// NewServerID draws a random identity.
func NewServerID() ServerID {
	var id ServerID
	_, _ = rand.Read(id[:]) // never fails: crypto/rand aborts the program when the system has no randomness
	return id
}

// ParseServerID reads the text form of an identity, 32 hexadecimal digits.
func ParseServerID(text string) (ServerID, error) {
	var id ServerID
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("parse server identity %q: want 32 hexadecimal digits", text)
	}
	copy(id[:], raw)
	return id, nil
}

func (id ServerID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the identity is unset.
func (id ServerID) IsZero() bool { return id == ServerID{} }

// Compare orders identities by their bytes.
func (id ServerID) Compare(other ServerID) int { return bytes.Compare(id[:], other[:]) }

// Time is a hybrid logical time: microseconds since the Unix epoch, lifted above the time of everything that its
// server had seen before.
type Time int64

// TimeOf converts a wall clock time.
func TimeOf(t time.Time) Time { return Time(t.UnixMicro()) }

// Wall converts to a wall clock time in UTC.
func (t Time) Wall() time.Time { return time.UnixMicro(int64(t)).UTC() }

func (t Time) String() string { return t.Wall().Format("2006-01-02T15:04:05.000000Z") }

// Version orders all source transactions of a mesh: by time, then by origin. No two transactions share one.
type Version struct {
	Time   Time
	Origin ServerID
}

// Compare returns -1, 0 or 1 as v is older than, equal to or newer than other.
func (v Version) Compare(other Version) int {
	switch {
	case v.Time < other.Time:
		return -1
	case v.Time > other.Time:
		return 1
	}
	return v.Origin.Compare(other.Origin)
}

// IsZero reports whether the version is unset.
func (v Version) IsZero() bool { return v.Time == 0 && v.Origin.IsZero() }

func (v Version) String() string { return v.Time.String() + "@" + v.Origin.String()[:8] }

// Stamp is a version together with the context that its origin had when it committed: all that a decision between two
// changes of one row needs.
type Stamp struct {
	Version Version
	Context Context
}

// Covers reports whether the transaction with this stamp was made after its origin had seen version v.
func (s Stamp) Covers(v Version) bool {
	if v.Origin == s.Version.Origin {
		return v.Time <= s.Version.Time
	}
	return s.Context.Covers(v)
}
