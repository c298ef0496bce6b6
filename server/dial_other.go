//go:build !linux

package server

import "syscall"

// limitUnacknowledged has no portable equivalent of Linux's TCP_USER_TIMEOUT: the system's own limit holds.
func limitUnacknowledged(_, _ string, _ syscall.RawConn) error { return nil }
