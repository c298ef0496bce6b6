// Package fault is the error that a person reads: what happened, and what to do. Log, status and command line print the
// same text.
package fault

import (
	"errors"
	"fmt"
)

// Class groups faults for status pages and for the decision to try again.
type Class string

// The classes. The first group heals by itself, its links are "retrying"; the others need a person: "stopped".
const (
	Network     Class = "network"
	Login       Class = "login"
	Unavailable Class = "unavailable" // too many connections, shutting down, being killed
	DiskFull    Class = "disk_full"
	ReadOnly    Class = "read_only"
	Busy        Class = "busy" // deadlock, lock wait timeout, snapshot conflict, barrier timeout

	Configuration Class = "configuration"
	Precondition  Class = "precondition"
	Identity      Class = "identity"
	Purged        Class = "binlog_purged"
	UnknownEvent  Class = "unknown_event"
	Definition    Class = "table_definition"
	DDL           Class = "ddl"
	Row           Class = "row" // a row that the target refuses
	Fenced        Class = "fenced"
	Conflict      Class = "conflict" // the policy halt: a person decides
	ClockSkew     Class = "clock"
	Privilege     Class = "privilege"
	Bug           Class = "bug"
)

// Transient reports whether time can heal faults of this class.
func (c Class) Transient() bool {
	switch c {
	case Network, Login, Unavailable, DiskFull, ReadOnly, Busy:
		return true
	default:
		return false
	}
}

// Error is a fault with its remedy.
type Error struct {
	Class   Class
	Message string // one sentence without a full stop; names the thing
	Remedy  string // what to do, in the imperative
	Err     error  // the cause, or nil
}

// New makes a fault. The message is formatted; %w is not for it: use Wrap.
func New(c Class, remedy, format string, args ...any) *Error {
	return &Error{Class: c, Message: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Wrap makes a fault of a cause.
func Wrap(err error, c Class, remedy, format string, args ...any) *Error {
	return &Error{Class: c, Message: fmt.Sprintf(format, args...), Remedy: remedy, Err: err}
}

// Error prints message, cause and remedy.
func (e *Error) Error() string {
	text := e.Text()
	if e.Remedy != "" {
		text += "; remedy: " + e.Remedy
	}
	return text
}

// Text is the message with its cause, without the remedy.
func (e *Error) Text() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// As finds the outermost fault in an error chain.
func As(err error) (*Error, bool) {
	var f *Error
	ok := errors.As(err, &f)
	return f, ok
}
