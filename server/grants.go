package server

// Role is what an account is for.
type Role uint8

// The roles. One account may have both.
const (
	ReaderRole  Role = iota + 1 // reads the binlog
	ApplierRole                 // applies, checks and keeps the replicator schema
)

func (r Role) String() string {
	if r == ReaderRole {
		return "reader"
	}
	return "applier"
}

// privilege is one that an account needs.
type privilege struct {
	names []string // any of them does
	why   string
}

// GrantRequest says for whom grants are to be printed.
type GrantRequest struct {
	User      string
	Host      string   // "%" for any
	Databases []string // patterns in GRANT's own syntax (% and _ are wildcards); empty: all
	// Reader is a second account for the binlog; "" when User does both.
	Reader string
}
