// Package clone makes the tables of one server equal to those of another, as of one moment of it: on several connections, in
// bounded memory, and like rsync: what is equal stays as it is, so a run that was killed begins again with a new snapshot and
// copies what is missing.
package clone

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
	"replicator/server"
)

// Side is one of the two servers. Its sessions are those of package server.
type Side struct {
	Name    string
	DB      *sql.DB
	Flavor  change.Flavor
	Dialect server.Dialect
}

// Options say what is copied, and how.
type Options struct {
	Source, Target Side
	// Tables are those that are copied, as server.Tables read them on the source. Their definitions are read again.
	Tables []*server.Table
	// Replace says that rows and differing definitions on the target may be replaced.
	Replace bool
	// With are the other objects that are copied, of the tables' databases: see Kinds.
	With []string
	// Unlogged keeps what the target executes out of its binlog.
	Unlogged bool
	// Begin is called first in every transaction that writes rows on the target, with its session. It may be nil.
	Begin func(ctx context.Context, q checkpoint.Querier) error
	// Progress is called about twice a second, from one goroutine; it may be nil.
	Progress func(Progress)

	ranges int   // how many rows a range has at the most; 0: the usual number
	large  int64 // how many bytes a table has whose keys are made later; 0: the usual number
}

// Progress is how far a copy is.
type Progress struct {
	Tables, TablesDone int
	Rows, Total        int64 // that are done, and that there are, about
	Bytes              int64 // of the statements that wrote rows
	Same               int64 // of Rows: those that were there already
}

// Report is what a copy did.
type Report struct {
	Tables  []TableReport // in the order of their names
	Objects []string      // other objects that were made
	Missing []string      // objects that could not be made: which, and what the server said
	Rows    int64         // that the source has
	Bytes   int64         // of the statements that wrote rows
	Same    int64         // of Rows: those that were there already
	Removed int64         // rows of the target that were removed, those included that were written anew
}

// TableReport is the part of a Report that is about one table.
type TableReport struct {
	Name    change.TableName
	Rows    int64
	Bytes   int64
	Same    int64
	Removed int64
	Created bool // made on the target, or made anew
}

// Kinds are the kinds of object that Options.With can name, in the order in which they are copied.
var Kinds = []string{"routines", "views", "triggers", "events"}

func (o *Options) with(kind string) bool { return slices.Contains(o.With, kind) }

func (o *Options) mixed() bool { return o.Source.Flavor != o.Target.Flavor }

// names are the tables that are copied.
func (o *Options) names() map[change.TableName]bool {
	all := make(map[change.TableName]bool, len(o.Tables))
	for _, t := range o.Tables {
		all[t.Name] = true
	}
	return all
}

// counts is what was done, by all workers.
type counts struct{ rows, bytes, same, removed atomic.Int64 }

const progressInterval = 500 * time.Millisecond

// Copy makes the tables on the target equal to the snapshot, and then the other objects that are asked for. It uses all
// sessions of the snapshot, and as many connections to the target. What Check refuses it refuses as well, before it changes
// anything. With an error the report tells what was done until then.
func Copy(ctx context.Context, snap *Snapshot, o *Options) (Report, error) {
	c := &copying{Options: o, snap: snap}
	var report Report
	if err := c.prepare(ctx); err != nil {
		return report, err
	}
	stop := c.watch()
	err := c.copyRows(ctx)
	stop()
	for _, t := range c.jobs {
		r := TableReport{
			Name: t.name, Rows: t.done.rows.Load(), Bytes: t.done.bytes.Load(), Same: t.done.same.Load(), Removed: t.done.removed.Load(), Created: t.created,
		}
		report.Tables = append(report.Tables, r)
		report.Rows, report.Bytes, report.Same, report.Removed = report.Rows+r.Rows, report.Bytes+r.Bytes, report.Same+r.Same, report.Removed+r.Removed
	}
	slices.SortFunc(report.Tables, func(a, b TableReport) int { return strings.Compare(a.Name.String(), b.Name.String()) })
	if err == nil {
		err = c.finish(ctx)
	}
	if err == nil {
		err = c.copyObjects(ctx, &report)
	}
	return report, err
}

// copying is one run of Copy.
type copying struct {
	*Options
	snap   *Snapshot
	packet int // the target's max_allowed_packet
	sizes  map[change.TableName]size
	jobs   []*job
	total  int64 // rows, about

	queued sync.Mutex // guards who works on what
}

// watch reports the progress until it is told to stop.
func (c *copying) watch() (stop func()) {
	if c.Progress == nil {
		return func() {}
	}
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.Progress(c.progress())
			case <-end:
				c.Progress(c.progress())
				return
			}
		}
	})
	return func() { close(end); wg.Wait() }
}

func (c *copying) progress() Progress {
	p := Progress{Tables: len(c.jobs), Total: c.total}
	for _, t := range c.jobs {
		p.Rows += t.done.rows.Load()
		p.Bytes += t.done.bytes.Load()
		p.Same += t.done.same.Load()
		if t.finished.Load() {
			p.TablesDone++
		}
	}
	return p
}

// targetSession opens a session that writes on the target.
func (c *copying) targetSession(ctx context.Context) (*sql.Conn, error) {
	return c.Target.writing(ctx, c.Unlogged)
}

// writing opens a session that writes.
func (s Side) writing(ctx context.Context, unlogged bool) (*sql.Conn, error) {
	conn, err := s.DB.Conn(ctx)
	if err != nil {
		return nil, server.Fault(err, "connect to "+s.Name)
	}
	err = s.lasting(ctx, conn)
	if err == nil {
		if err = execAll(ctx, conn, "SET SESSION foreign_key_checks = 0"); err != nil {
			err = server.Fault(err, "prepare a session on "+s.Name)
		}
	}
	if err == nil && unlogged {
		if err = execAll(ctx, conn, "SET SESSION sql_log_bin = 0"); err != nil {
			err = s.lacking(ctx, err, s.Dialect.UnloggedPrivilege(), "keep the copy out of the binlog of "+s.Name)
		}
	}
	if err != nil {
		discard(conn)
		return nil, err
	}
	return conn, nil
}

// unknownKinds is the fault of an Options.With that names something else.
func (o *Options) unknownKinds() error {
	for _, kind := range o.With {
		if !slices.Contains(Kinds, kind) {
			return fault.New(fault.Configuration, "name some of "+strings.Join(Kinds, ", "), "%q is no kind of object", kind)
		}
	}
	return nil
}

// stale makes a fault of an error of the snapshot's server.
func (c *copying) stale(err error, doing string) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if server.IsStaleView(err) {
		return fault.Wrap(err, fault.Busy, "run it again, and let nobody change definitions meanwhile", "%s: a table was defined anew while it was copied", doing)
	}
	return fmt.Errorf("%s: %w", c.Source.Name, server.Fault(err, doing))
}
