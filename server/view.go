package server

import (
	"context"
	"strings"
	"time"

	"replicator/change"
	"replicator/fault"
)

const (
	// viewPatience bounds the wait for commits that are under way: they take as long as the server's disk does.
	viewPatience = 20 * time.Second
	viewPoll     = 2 * time.Millisecond
)

// awaitView tries again until ready says yes.
func awaitView(ctx context.Context, what string, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, viewPatience,
		fault.New(fault.Busy, "wait: it is tried again; a session that has set gtid_next holds it up until it ends", "%s takes longer than %s", what, viewPatience))
	defer cancel()
	tick := time.NewTicker(viewPoll)
	defer tick.Stop()
	for {
		if done, err := ready(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// View: what is in gtid_executed can be seen.
func (d mysqlDialect) View(ctx context.Context, session Querier, after change.GTIDSet) error {
	err := awaitView(ctx, "a commit that has been read from the binlog", func() (bool, error) {
		executed, err := d.Position(ctx, session)
		return err == nil && executed.Covers(after), err
	})
	if err != nil {
		return err
	}
	return execAll(ctx, session, snapshot)
}

var snapshot = []string{"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"}

// Seen: a transaction whose rows can be seen and that is not in gtid_executed yet still owns its GTID. MySQL keeps those
// it makes itself for the length of the commit.
func (d mysqlDialect) Seen(ctx context.Context, q Querier) (change.GTIDSet, error) {
	first, err := gtidOwned(ctx, q)
	if err != nil {
		return change.GTIDSet{}, err
	}
	err = awaitView(ctx, "a commit that is under way", func() (bool, error) {
		if len(first) == 0 {
			return true, nil
		}
		now, err := gtidOwned(ctx, q)
		for gtid := range first {
			if !now[gtid] {
				delete(first, gtid)
			}
		}
		return len(first) == 0, err
	})
	if err != nil {
		return change.GTIDSet{}, err
	}
	return d.Position(ctx, q)
}

// gtidOwned reads the GTIDs that transactions under way own, each with its session's number: "uuid:5#12:6#13,uuid:7#14",
// where a tag may stand before numbers.
func gtidOwned(ctx context.Context, q Querier) (map[string]bool, error) {
	var text string
	if err := q.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_owned").Scan(&text); err != nil {
		return nil, Fault(err, "read the GTIDs of transactions under way")
	}
	return parseOwned(text), nil
}

func parseOwned(text string) map[string]bool {
	owned := map[string]bool{}
	for part := range strings.SplitSeq(strings.Join(strings.Fields(text), ""), ",") {
		fields := strings.Split(part, ":")
		of := fields[0]
		for _, f := range fields[1:] {
			if strings.Contains(f, "#") {
				owned[of+":"+f] = true
			} else {
				of = fields[0] + ":" + f
			}
		}
	}
	return owned
}

// View: MariaDB tells up to which place of the binlog a snapshot sees, if it is asked in the session that has it
// (https://mariadb.com/kb/en/enhancements-for-start-transaction-with-consistent-snapshot/).
func (d mariadb) View(ctx context.Context, session Querier, _ change.GTIDSet) error {
	end, err := d.BinlogEnd(ctx, session) // whoever has read of a transaction has read it before this place
	if err != nil {
		return err
	}
	return awaitView(ctx, "a commit that has been read from the binlog", func() (bool, error) {
		if err := execAll(ctx, session, snapshot); err != nil {
			return false, err
		}
		place, err := snapshotPlace(ctx, session)
		if err != nil || place.Compare(end) >= 0 {
			return err == nil, err
		}
		return false, execAll(ctx, session, []string{"ROLLBACK"})
	})
}

func snapshotPlace(ctx context.Context, session Querier) (change.FilePosition, error) {
	return binlogEnd(ctx, session, `SELECT MAX(CASE WHEN VARIABLE_NAME = 'BINLOG_SNAPSHOT_FILE' THEN VARIABLE_VALUE END),
 MAX(CASE WHEN VARIABLE_NAME = 'BINLOG_SNAPSHOT_POSITION' THEN VARIABLE_VALUE END) FROM information_schema.SESSION_STATUS
 WHERE VARIABLE_NAME LIKE 'BINLOG\\_SNAPSHOT\\_%'`)
}

// Seen: gtid_binlog_pos has a transaction before its rows can be seen.
func (d mariadb) Seen(ctx context.Context, q Querier) (change.GTIDSet, error) {
	return d.Position(ctx, q)
}
