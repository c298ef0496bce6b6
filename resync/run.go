package resync

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"replicator/applier"
	"replicator/change"
	"replicator/checkpoint"
	"replicator/conflict"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/resync/chunk"
	"replicator/server"
)

// Side is one of the two servers.
type Side struct {
	Name    string
	DB      *sql.DB
	Flavor  change.Flavor
	Dialect server.Dialect
}

// Runner carries jobs out for the owner of a target.
type Runner struct {
	Source, Target Side
	// Numbered reports whether each server gives the rows of a table numbers of its own.
	Numbered func(*change.Table) bool
	// Hold begins to keep what the source may lack; known is false while that is not known.
	Hold func() (h *conflict.Hold, known bool)
	// Position is one of the source's that covers whatever a Hold made before covers.
	Position func() (change.GTIDSet, error)
	// Copy hands rows to the link from the source.
	Copy func(ctx context.Context, c *applier.Copies) (applier.Copied, error)
	// Lag is by how much the mesh is behind: when it is much, the job goes slowly.
	Lag func() time.Duration
	// Slots has room for as many jobs as may read and copy rows at once.
	Slots chan struct{}
	Log   *zap.Logger
}

const (
	saveEvery   = time.Second
	lookRows    = 100             // rows that one statement asks for
	rivalsMost  = 2000            // rows that may be drawn in by the values of unique keys
	rounds      = 30              // how often rows are tried whose columns change all the time
	roundPause  = time.Second     // between two rounds
	movingMost  = 5000            // rows that wait for another round
	lagMost     = 3 * time.Second // above it the mesh goes first
	lagPause    = 2 * time.Second // the longest pause for its sake
	lagPoll     = 100 * time.Millisecond
	backoffMost = 5 * time.Second
)

// run is one job under way.
type run struct {
	*Runner
	job    *Job
	table  *chunk.Table
	source *dml.Plan // reads by key, whatever the condition
	counts Counts
	// reached is the key of the last row that has been looked at, done that of the last one before which no row waits for
	// another round: whoever goes on with the job begins behind it.
	reached []byte
	done    []byte
	saved   time.Time
	began   time.Time
	first   int64 // rows that had been compared when this run began
	moving  [][]image.Value
}

// Run carries a job out until it has ended, which it records, or the context ends. What time can heal is tried again.
func (r *Runner) Run(ctx context.Context, j *Job) error {
	bo := backoff.NewExponentialBackOff(backoff.WithMaxInterval(backoffMost), backoff.WithMaxElapsedTime(0))
	for {
		x := &run{Runner: r, job: j, counts: j.Counts, reached: j.reached, done: j.reached, began: time.Now()}
		err := x.inTurn(ctx)
		j.Counts = x.counts
		state := Done
		var f *fault.Error
		if err != nil {
			f = server.Fault(err, "resync "+j.Table.String())
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errEnded):
			return nil
		case errors.Is(err, errDefined):
			r.Log.Info("resync begins anew: the table has been defined anew", zap.Stringer("table", j.Table))
			j.reached, j.Compared = nil, 0 // of the next run
			continue
		case err == nil && x.counts.Moving > 0:
			j.Note = fmt.Sprintf("%d rows differ and are changed all the time: run it again when less is written", x.counts.Moving)
		case err == nil:
			j.Note = ""
		case f.Class.Transient():
			j.Note = explain(f)
			r.Log.Warn("resync waits", zap.Stringer("table", j.Table), zap.String("source", r.Source.Name), zap.String("error", f.Text()))
			j.say(ctx, r.Target.DB)
			if err := pause(ctx, bo.NextBackOff()); err != nil {
				return err
			}
			if j, err = r.load(ctx, j); err != nil || j.State.Ended() {
				return err
			}
			continue
		default:
			if f.Class == fault.Definition && f.Err != nil { // what the server says; no link waits for it
				f = fault.Wrap(f.Err, f.Class, "make the table's definition the same on both servers, and run it again", "%s", f.Message)
			}
			j.Note, state = explain(f), Failed
		}
		r.Log.Info("resync has ended", zap.Stringer("table", j.Table), zap.String("source", r.Source.Name), zap.String("state", string(state)),
			zap.String("note", j.Note), zap.Int64("compared", j.Compared), zap.Int64("inserted", j.Inserted), zap.Int64("updated", j.Updated),
			zap.Int64("deleted", j.Deleted))
		return j.end(ctx, r.Target.DB, state)
	}
}

// explain is a fault as a job's note.
func explain(f *fault.Error) string {
	if f.Remedy == "" {
		return f.Text()
	}
	return f.Text() + " (" + f.Remedy + ")"
}

// load reads the job anew: a commit whose answer was lost has moved it.
func (r *Runner) load(ctx context.Context, j *Job) (*Job, error) {
	for {
		now, err := Load(ctx, r.Target.DB, j.ID)
		if err == nil {
			return now, nil
		}
		if f := server.Fault(err, "read a resync job"); !f.Class.Transient() {
			return j, f
		}
		if err := pause(ctx, backoffMost); err != nil {
			return j, err
		}
	}
}

// Refuse ends a job that cannot be carried out. What time can heal leaves it as it is, and says why.
func Refuse(ctx context.Context, q checkpoint.Querier, j *Job, why error) error {
	f := server.Fault(why, "resync "+j.Table.String())
	j.Note = explain(f)
	if f.Class.Transient() {
		j.say(ctx, q)
		return nil
	}
	return j.end(ctx, q, Failed)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inTurn works when it is this job's turn.
func (x *run) inTurn(ctx context.Context) error {
	select {
	case x.Slots <- struct{}{}:
	default:
		if x.job.Note = "it waits for its turn"; x.job.State == Waiting {
			x.job.say(ctx, x.Target.DB)
		}
		select {
		case x.Slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-x.Slots }()
	return x.work(ctx)
}

// work goes through the table from where the job is.
func (x *run) work(ctx context.Context) error {
	if err := x.open(ctx); err != nil {
		return err
	}
	var after []image.Value
	if x.reached != nil {
		same := x.job.definition == x.table.Definition
		if same {
			after, same = x.table.DecodeKey(x.reached)
		}
		if !same { // what was copied by another definition may lack something: begin anew
			x.reached, x.done, x.counts.Compared = nil, nil, 0
		}
	}
	x.job.definition = x.table.Definition
	x.first = x.counts.Compared
	if err := x.save(ctx); err != nil {
		return err
	}
	err := x.table.Compare(ctx, after, func(rows []int64, different []chunk.Difference, end []image.Value) error {
		if err := x.piece(ctx, rows[0], different, end); err != nil {
			return err
		}
		return x.slow(ctx)
	})
	for round := 0; err == nil && len(x.moving) > 0 && round < rounds; round++ {
		if err = pause(ctx, roundPause); err == nil {
			err = x.again(ctx)
		}
	}
	if err != nil {
		return err
	}
	x.counts.Moving = int64(len(x.moving))
	return x.save(ctx)
}

// errDefined says that the table has been defined anew on one of the servers: what was copied before may lack something.
var errDefined = errors.New("the definition of the table has changed")

// stillDefined fails when the table is not defined any more as it was when the work began.
func (x *run) stillDefined(ctx context.Context) error {
	now, err := x.define(ctx)
	if err == nil && now.Definition != x.table.Definition {
		err = errDefined
	}
	return err
}

// Silent makes sure that a table of a server takes copied rows, which are written by SQL, without doing anything else.
func Silent(t *server.Table, name string) error {
	for _, trigger := range t.Triggers {
		if !trigger.Guarded() {
			return fault.New(fault.Definition, trigger.Remedy(), "trigger %s of table %s on %s would fire for copied rows", trigger.Name, t.Name, name)
		}
	}
	return nil
}

// define reads the table's definitions.
func (x *run) define(ctx context.Context) (*chunk.Table, error) {
	sides := []chunk.Server{}
	for _, s := range []*Side{&x.Source, &x.Target} {
		sides = append(sides, chunk.Server{Name: s.Name, DB: s.DB, Flavor: s.Flavor})
	}
	t, err := chunk.Open(ctx, sides, x.job.Table, x.job.Where, x.Numbered)
	if errors.Is(err, chunk.ErrNumbered) {
		err = fault.New(fault.Definition, "there is nothing to do", "the rows of %s cannot be copied: %s", x.job.Table, err)
	}
	return t, err
}

func (x *run) open(ctx context.Context) error {
	var err error
	if x.table, err = x.define(ctx); err != nil {
		return err
	}
	if err := Silent(x.table.Sites[1].Plan.Target(), x.Target.Name); err != nil {
		return err
	}
	x.source = x.table.Sites[0].Plan.Where("")
	var total sql.NullInt64
	name := x.job.Table
	err = x.Source.DB.QueryRowContext(ctx, "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
		name.Database, name.Table).Scan(&total)
	if err != nil {
		return server.Fault(err, fmt.Sprintf("read the size of %s on %s", name, x.Source.Name))
	}
	x.job.Total = total.Int64
	return nil
}

// piece copies what differs in a piece of the table, and notes that the piece is done.
func (x *run) piece(ctx context.Context, rows int64, different []chunk.Difference, end []image.Value) error {
	counts, reached := x.counts, x.reached
	counts.Compared += rows
	if end != nil {
		var err error
		if reached, err = image.EncodeKey(x.table.Source, end); err != nil {
			return err
		}
	}
	named := make([][]image.Value, len(different))
	for i := range different {
		named[i] = different[i].Named()
	}
	saved, err := x.copy(ctx, named, func(ctx context.Context, q checkpoint.Querier, done applier.Copied) error {
		if len(x.moving)+len(done.Moving) > 0 {
			return x.job.save(ctx, q, counts.with(done), x.done)
		}
		return x.job.save(ctx, q, counts.with(done), reached)
	})
	if err != nil {
		return err
	}
	x.counts, x.reached = counts.with(saved), reached
	if len(x.moving) == 0 {
		x.done = reached
	}
	if time.Since(x.saved) < saveEvery && len(x.moving) < movingMost {
		return nil
	}
	if len(x.moving) >= movingMost {
		if err := x.again(ctx); err != nil {
			return err
		}
	}
	return x.save(ctx)
}

func (c Counts) with(done applier.Copied) Counts {
	c.Inserted += done.Inserted
	c.Updated += done.Updated
	c.Deleted += done.Deleted
	c.Newer += done.Newer
	return c
}

// save writes how far the job is, outside of a copy's transaction.
func (x *run) save(ctx context.Context) error {
	if err := x.stillDefined(ctx); err != nil {
		return err
	}
	x.saved = time.Now()
	x.job.Note = ""
	if err := x.job.save(ctx, x.Target.DB, x.counts, x.done); err != nil {
		if errors.Is(err, errEnded) {
			return err
		}
		return server.Fault(err, "save the progress of a resync on "+x.Target.Name)
	}
	return nil
}

// copy copies the rows with these keys, and what has to go with them. save is called in the transaction that writes.
func (x *run) copy(ctx context.Context, named [][]image.Value, save func(context.Context, checkpoint.Querier, applier.Copied) error) (
	applier.Copied, error,
) {
	for len(named) > 0 {
		done, err := x.copyOnce(ctx, named, save)
		if err != nil {
			return done, err
		}
		if len(done.Rivals) == 0 {
			for _, i := range done.Moving {
				x.moving = append(x.moving, named[i])
			}
			return done, nil
		}
		if named = append(named, done.Rivals...); len(named) > rivalsMost {
			return done, fault.New(fault.Row, "delete the rows of the table on "+x.Target.Name+" that hold values of other rows' unique keys, and run it again",
				"the rows of %s exchange values of unique keys all over the table", x.job.Table)
		}
	}
	return applier.Copied{}, nil
}

// copyOnce reads the rows anew, where it is known what they have in them, and hands them to the link.
func (x *run) copyOnce(ctx context.Context, named [][]image.Value, save func(context.Context, checkpoint.Querier, applier.Copied) error) (
	done applier.Copied, err error,
) {
	hold, known := x.Hold()
	if !known {
		return done, fault.New(fault.Unavailable, "wait: it is tried again", "%s has nothing of %s yet", x.Target.Name, x.Source.Name)
	}
	defer hold.Release()
	if !hold.Complete() {
		return done, fault.New(fault.Busy, "wait until it has caught up: it is tried again", "%s does not have everything yet that %s had when its process started", x.Source.Name, x.Target.Name)
	}
	after, err := x.Position()
	if err != nil {
		return done, err
	}
	c := &applier.Copies{Table: x.table.Source, Hold: hold, Save: save}
	if c.Rows, c.Until, err = x.read(ctx, named, after); err != nil {
		return done, err
	}
	return x.Copy(ctx, c)
}

// read reads rows of the source as of one moment, behind a position. until covers what they have in them.
func (x *run) read(ctx context.Context, named [][]image.Value, after change.GTIDSet) (rows []applier.Copy, until change.GTIDSet, err error) {
	conn, err := x.Source.DB.Conn(ctx)
	if err != nil {
		return nil, until, server.Fault(err, "connect to "+x.Source.Name)
	}
	defer func() {
		if err != nil { // a transaction may be open
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		}
		_ = conn.Close()
	}()
	if err = x.Source.Dialect.View(ctx, conn, after); err != nil {
		return nil, until, err
	}
	rows = make([]applier.Copy, len(named))
	for first := 0; first < len(named); first += lookRows {
		some := named[first:min(first+lookRows, len(named))]
		q, err := x.source.SelectRows(some, dml.Options{})
		if err != nil {
			return nil, until, err
		}
		found, err := q.Run(ctx, conn)
		if err != nil {
			return nil, until, server.Fault(err, "read rows on "+x.Source.Name)
		}
		for i := range some {
			rows[first+i].Named = some[i]
		}
		for _, f := range found {
			rows[first+f.Index].Values = f.Values
		}
	}
	if _, err = conn.ExecContext(ctx, "COMMIT"); err != nil {
		return nil, until, server.Fault(err, "read rows on "+x.Source.Name)
	}
	until, err = x.Source.Dialect.Seen(ctx, conn)
	return rows, until, err
}

// again tries the rows that were moving.
func (x *run) again(ctx context.Context) error {
	list := x.moving
	x.moving = nil
	for len(list) > 0 {
		n := min(len(list), lookRows)
		done, err := x.copy(ctx, list[:n], func(ctx context.Context, q checkpoint.Querier, done applier.Copied) error {
			return x.job.save(ctx, q, x.counts.with(done), x.done)
		})
		if err != nil {
			x.moving = append(x.moving, list...)
			return err
		}
		x.counts = x.counts.with(done)
		list = list[n:]
	}
	if len(x.moving) == 0 {
		x.done = x.reached
	}
	return nil
}

// slow lets the mesh go first.
func (x *run) slow(ctx context.Context) error {
	if x.job.Throttle > 0 {
		due := time.Duration(float64(x.counts.Compared-x.first) / float64(x.job.Throttle) * float64(time.Second))
		if err := pause(ctx, time.Until(x.began.Add(due))); err != nil {
			return err
		}
	}
	for until := time.Now().Add(lagPause); x.Lag() > lagMost && time.Now().Before(until); {
		if err := pause(ctx, lagPoll); err != nil {
			return err
		}
	}
	return nil
}
