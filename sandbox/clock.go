package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"replicator/sandbox/debian"
)

var faketimeTree = debian.Selection{Suite: "bookworm", Packages: []string{"libfaketime"}}

// faketimeLibrary finds libfaketime, or fetches it from Debian without root. The oldest suite's serves all trees: a C
// library runs what was built for an older one.
func faketimeLibrary(ctx context.Context) (string, error) {
	tree, err := treeOf(ctx, "faketime", faketimeTree)
	if err != nil {
		return "", err
	}
	return tree.Library("faketime/libfaketimeMT.so.1"), nil
}

// clockFile is where a server with a clock of its own reads how far it is from the machine's.
func (h *processHost) clockFile() string { return filepath.Join(h.dir, "clock") }

// clockEnvironment makes a server see the clock of its file, which it reads once a second. Its timers run on as they are.
func (h *processHost) clockEnvironment() []string {
	return []string{
		"LD_PRELOAD=" + h.faketime, "FAKETIME_TIMESTAMP_FILE=" + h.clockFile(), "FAKETIME_CACHE_DURATION=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1",
		"FAKETIME_FORCE_MONOTONIC_FIX=0", // with it the timed waits of MySQL return at once, and its threads spin
	}
}

// SetClock sets how far the clock of a server with Options.OwnClock is ahead of the machine's (behind it, if negative), in
// whole seconds. The server follows within a second or two.
func (s *Server) SetClock(ahead time.Duration) error {
	h, ok := s.host.(*processHost)
	if !ok || h.faketime == "" {
		return errors.New("set clock: the server was started without a clock of its own")
	}
	// Written beside it and renamed: the server never reads half of it.
	next := h.clockFile() + ".next"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+d\n", int64(ahead/time.Second)), 0o600); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	if err := os.Rename(next, h.clockFile()); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}
