package applier

import (
	"context"
	"fmt"
	"strings"
	"time"

	"replicator/fault"
	"replicator/journal"
)

// halted says that conflicts wait for a person's decision before the group can be applied.
type halted struct{ entries []*journal.Entry }

func (h *halted) Error() string {
	e := h.entries[0]
	return fmt.Sprintf("conflict %s of table %s waits for a decision", e.ID(), e.Table)
}

// policyHalt is the name of the policy in configuration and journal.
const policyHalt = "halt"

// haltEvery is how often a halted link looks whether somebody has decided.
const haltEvery = time.Second

// release returns a *halted when one of the entries has the policy halt and nobody has decided it yet.
func (s *session) release(ctx context.Context, entries []*journal.Entry) error {
	var waiting []*journal.Entry
	for _, e := range entries {
		if e.Policy != policyHalt {
			continue
		}
		decided, err := s.decided(ctx, e)
		if err != nil {
			return err
		}
		if !decided {
			waiting = append(waiting, e)
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	return &halted{waiting}
}

// decided reports whether an entry has been acknowledged or restored on the target.
func (s *session) decided(ctx context.Context, e *journal.Entry) (bool, error) {
	id := e.ID()
	var n int
	row := s.conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM replicator.conflict WHERE id = ? AND state <> ?", id[:], journal.Open)
	if err := row.Scan(&n); err != nil {
		return false, fmt.Errorf("look whether conflict %s is decided: %w", id, err)
	}
	return n > 0, nil
}

// halt puts the conflicts into the journal, outside of any transaction, and waits until somebody has decided all of them.
func (l *Link) halt(ctx context.Context, h *halted) error {
	s := l.session
	if err := s.speak(ctx, namesPortable); err != nil {
		return l.targetFault(err, "write to the journal")
	}
	if err := l.opt.Journal(ctx, s.conn, h.entries); err != nil {
		return l.targetFault(err, "write to the journal")
	}
	held := false
	tick := time.NewTicker(haltEvery)
	defer tick.Stop()
	for {
		for len(h.entries) > 0 {
			decided, err := l.settled(ctx, h.entries[0])
			if err != nil {
				return l.targetFault(err, "read the journal")
			}
			if !decided {
				break
			}
			h.entries = h.entries[1:]
		}
		if len(h.entries) == 0 {
			if held && l.opt.Started != nil {
				l.opt.Started()
			}
			return nil
		}
		if !held {
			held = true
			l.opt.Held(l.halting(h))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settled reports whether somebody has decided a conflict, here or in the journal of another server: the decision may be
// older than this server's entry.
func (l *Link) settled(ctx context.Context, e *journal.Entry) (bool, error) {
	decided, err := l.session.decided(ctx, e)
	if decided || err != nil {
		return decided, err
	}
	id := e.ID()
	state := l.opt.Decided(ctx, id)
	if state == "" {
		return false, nil
	}
	_, err = l.session.conn.ExecContext(ctx,
		"UPDATE replicator.conflict SET state = ?, state_at = UTC_TIMESTAMP(6) WHERE id = ? AND state = ?", state, id[:], journal.Open)
	if err != nil {
		return false, fmt.Errorf("take over the decision of conflict %s: %w", id, err)
	}
	return true, nil
}

func (l *Link) halting(h *halted) *fault.Error {
	const most = 5
	ids := make([]string, 0, most)
	for _, e := range h.entries[:min(most, len(h.entries))] {
		ids = append(ids, e.ID().String())
	}
	more := ""
	if n := len(h.entries) - len(ids); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fault.New(fault.Conflict,
		fmt.Sprintf("look at it with `replicator conflicts show %s`, then `replicator conflicts ack %s --keep winner|loser`", ids[0], ids[0]),
		"table %s has the policy halt, and conflict %s%s waits for a decision on %s", h.entries[0].Table, strings.Join(ids, ", "), more,
		l.opt.Target)
}
