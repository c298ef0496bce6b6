package mesh

import (
	"encoding/json"
	"time"
)

// LinkState is what a link is doing.
type LinkState string

// MarshalJSON implements json.Marshaler: the zero value is not known.
func (s LinkState) MarshalJSON() ([]byte, error) {
	if s == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(s))
}

// The states of a link.
const (
	Starting   LinkState = "starting"
	Running    LinkState = "running"
	CatchingUp LinkState = "catching_up"
	Retrying   LinkState = "retrying" // transient: network, login, disk full, read-only
	Stopped    LinkState = "stopped"  // needs a person
	Standby    LinkState = "standby"
)

// Status is the state of a mesh at one moment. Unknown is null.
type Status struct {
	Mesh      string          `json:"mesh"`
	Time      Timestamp       `json:"time"`
	Source    string          `json:"source"` // "process", or "tables" when no process answered
	Processes []ProcessStatus `json:"processes"`
	Servers   []ServerStatus  `json:"servers"`
	Links     []LinkStatus    `json:"links"`
	Tables    []TableStatus   `json:"tables"`
	Conflicts ConflictStatus  `json:"conflicts"`
	Errors    ErrorStatus     `json:"errors"`
	Notices   *NoticeStatus   `json:"notices,omitempty"` // of the answering process; absent where nobody is told
}

// Timestamp prints as RFC 3339 in UTC with microseconds.
type Timestamp time.Time

// MarshalJSON implements json.Marshaler.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	return []byte(time.Time(t).UTC().Format(`"2006-01-02T15:04:05.000000Z"`)), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Timestamp) UnmarshalJSON(b []byte) error { return (*time.Time)(t).UnmarshalJSON(b) }

// ProcessStatus is one process that serves the mesh.
type ProcessStatus struct {
	ID    string `json:"id"`
	Host  string `json:"host"`
	Site  string `json:"site"`
	State string `json:"state"`
}

// ServerStatus is one server.
type ServerStatus struct {
	Name             string   `json:"name"`
	ID               *string  `json:"id"`
	Flavor           *string  `json:"flavor"`
	Version          *string  `json:"version"`
	Endpoint         string   `json:"endpoint"`
	Reachable        *bool    `json:"reachable"`
	Owner            *string  `json:"owner"` // the process that applies to it
	ClockSkewSeconds *float64 `json:"clock_skew_seconds"`
	Error            *Fault   `json:"error"`
	// Compression is what the connections use, not what is configured.
	Compression CompressionStatus `json:"compression"`
	// Index is the change index of a server that this process applies to; it grows while another server is away.
	Index *IndexStatus `json:"index"`
}

// CompressionStatus is how the connections to a server are compressed: "none", "zlib" or "zstd".
type CompressionStatus struct {
	Reader *string `json:"reader"` // of the binlog
	Apply  *string `json:"apply"`  // and all others
}

// IndexStatus is the size of a change index.
type IndexStatus struct {
	Entries int64 `json:"entries,string"` // in memory
	Bytes   int64 `json:"bytes,string"`   // that they take
	Spilled int64 `json:"spilled,string"` // entries in the state directory
}

// LinkStatus is one link. Counts are of this process since it started.
type LinkStatus struct {
	From            string    `json:"from"`
	To              string    `json:"to"`
	State           LinkState `json:"state"`
	LagSeconds      *float64  `json:"lag_seconds"` // age of the oldest transaction not yet applied; 0 when there is none
	Position        *string   `json:"position"`
	Seq             *uint64   `json:"seq,string"`
	Transactions    *int64    `json:"transactions,string"`
	Rows            *int64    `json:"rows,string"`
	LostRows        *int64    `json:"lost_rows,string"`
	SupersededRows  *int64    `json:"superseded_rows,string"`
	OverwrittenRows *int64    `json:"overwritten_rows,string"`
	RowsPerSecond   *float64  `json:"rows_per_second"`
	Retries         *int64    `json:"retries,string"`
	Error           *Fault    `json:"error"`
}

// Fault is an error as people and programs read it.
type Fault struct {
	Class   string    `json:"class"`
	Message string    `json:"message"`
	Remedy  string    `json:"remedy"`
	Since   Timestamp `json:"since"`
}

// TableStatus says how one table travels over one link, and what the last comparison of all servers has found. From, To,
// Path and Reason are not known ("", null in JSON) of a table that was compared and that no link has met.
type TableStatus struct {
	Table         string     `json:"table"`
	From          string     `json:"from"`
	To            string     `json:"to"`
	Path          string     `json:"path"` // "replay" or "portable"
	Reason        string     `json:"reason"`
	VerifiedAt    *Timestamp `json:"verified_at"` // when that comparison began
	VerifiedEqual *bool      `json:"verified_equal"`
}

// MarshalJSON implements json.Marshaler.
func (t TableStatus) MarshalJSON() ([]byte, error) {
	type same TableStatus
	if t.Path != "" {
		return json.Marshal(same(t))
	}
	return json.Marshal(struct {
		same
		From   *string `json:"from"` // these hide those of same
		To     *string `json:"to"`
		Path   *string `json:"path"`
		Reason *string `json:"reason"`
	}{same: same(t)})
}

// ConflictStatus counts the conflicts in the journals of all servers that can be asked, each once. Where there are very
// many, it is worked out from a sample.
type ConflictStatus struct {
	Open  *int64 `json:"open,string"`
	Total *int64 `json:"total,string"`
}

// ErrorStatus counts transactions set aside.
type ErrorStatus struct {
	Open *int64 `json:"open,string"`
}
