package clone

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"replicator/change"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/resync/chunk"
	"replicator/server"
)

const (
	// rangeBytes and rangeRows bound what is copied at a time, by the average length of a table's rows; rangeRows alone does
	// where that is not known.
	rangeBytes   = 2 << 20
	rangeRows    = 10_000
	unknownRange = 1000
)

// job is the copy of one table.
type job struct {
	name    change.TableName
	source  *change.Table
	create  string // SHOW CREATE TABLE of the source
	created bool   // on the target, by this copy
	read    *dml.Plan
	write   *dml.Plan
	copier  *dml.Copier
	fill    bool // the target has no rows
	whole   bool // copied in one go, because there are no ranges: no primary key, or one whose order is not that of an index
	sums    bool // both servers compute the same checksums
	size    int  // rows in a range
	bytes   int64
	keys    []string // that are made when the rows are there

	done     counts
	finished atomic.Bool

	mu    sync.Mutex // guards what follows
	at    []image.Value
	ended bool

	workers   int  // guarded by the queue
	exhausted bool // likewise: there is no further range
}

// plans makes the jobs, the largest first.
func (c *copying) plans(ctx context.Context, pairs []*pair, created map[change.TableName]bool) error {
	if len(created) > 0 { // as the target has them now
		targets, err := server.Tables(ctx, c.Target.DB, func(n change.TableName) bool { return created[n] })
		if err != nil {
			return fmt.Errorf("%s: %w", c.Target.Name, err)
		}
		for _, p := range pairs {
			if !created[p.source.Name] {
				continue
			}
			at := slices.IndexFunc(targets, func(t *server.Table) bool { return t.Name == p.source.Name })
			if at < 0 {
				return fault.New(fault.Privilege, "grant the account SELECT on its database", "table %s was made on %s, and the account does not see it",
					p.source.Name, c.Target.Name)
			}
			p.target = targets[at]
		}
	}
	for _, p := range pairs {
		j, err := c.job(p, c.sizes[p.source.Name])
		if err != nil {
			return err
		}
		j.created = created[j.name]
		c.jobs = append(c.jobs, j)
		c.total += c.sizes[p.source.Name].rows
	}
	slices.SortStableFunc(c.jobs, func(a, b *job) int { return cmp.Compare(b.bytes, a.bytes) })
	return nil
}

// job plans the copy of one table.
func (c *copying) job(p *pair, s size) (*job, error) {
	j := &job{keys: p.keys, name: p.source.Name, source: dml.TableOf(p.source), create: p.create, fill: !p.full, size: s.perRange(cmp.Or(c.ranges, rangeRows)), bytes: s.bytes}
	of := func(t *server.Table, mixed bool) (*dml.Plan, error) {
		if p.heap() {
			return dml.NewHeap(j.source, t, mixed)
		}
		return dml.NewPlan(j.source, t, mixed)
	}
	var err error
	if j.read, err = of(p.source, false); err == nil {
		j.write, err = of(p.target, c.mixed())
	}
	if err == nil {
		j.copier, err = dml.NewCopier(j.read, j.write)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Target.Name, err)
	}
	same, _ := dml.SameLayout(j.source, p.target)
	j.sums = same && !c.mixed()
	prefix := slices.ContainsFunc(j.source.PrimaryKey, func(k change.KeyPart) bool { return k.Prefix > 0 })
	j.whole = p.heap() || prefix && j.fill
	return j, nil
}

// size is how large a table is, about.
type size struct{ rows, average, bytes int64 }

// perRange is how many rows a range gets, at most so many.
func (s size) perRange(most int) int {
	if s.average <= 0 {
		return min(most, unknownRange)
	}
	return min(most, max(1, int(rangeBytes/s.average)))
}

// readSizes reads how large the tables of their databases are.
func (c *copying) readSizes(ctx context.Context, conn *sql.Conn) (map[change.TableName]size, error) {
	var databases []string
	for n := range c.names() {
		if d := server.QuoteText(n.Database); !slices.Contains(databases, d) {
			databases = append(databases, d)
		}
	}
	if len(databases) == 0 {
		return nil, nil
	}
	rows, err := conn.QueryContext(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME, COALESCE(TABLE_ROWS, 0), COALESCE(AVG_ROW_LENGTH, 0), COALESCE(DATA_LENGTH, 0)
 FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA IN (`+strings.Join(databases, ",")+")")
	if err != nil {
		return nil, server.Fault(err, "read the sizes of tables on "+c.Source.Name)
	}
	defer rows.Close()
	all := map[change.TableName]size{}
	for rows.Next() {
		var name change.TableName
		var t size
		if err := rows.Scan(&name.Database, &name.Table, &t.rows, &t.average, &t.bytes); err != nil {
			return nil, server.Fault(err, "read the sizes of tables on "+c.Source.Name)
		}
		all[name] = t
	}
	if err := rows.Err(); err != nil {
		return nil, server.Fault(err, "read the sizes of tables on "+c.Source.Name)
	}
	return all, nil
}

// next cuts the next range off; ok is false when there is none. Whoever has a session of the snapshot may do it: all see the
// same rows.
func (j *job) next(ctx context.Context, conn *sql.Conn) (r chunk.Range, ok bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended {
		return r, false, nil
	}
	r.After = j.at
	if !j.whole {
		site := chunk.Site{Server: "the source", DB: conn, Plan: j.read}
		if r.UpTo, err = site.Bound(ctx, r, j.size); err != nil {
			return r, false, err
		}
	}
	j.at, j.ended = r.UpTo, r.UpTo == nil
	return r, true, nil
}

// take gives a worker the table that the fewest others work on, nil when nothing is left.
func (c *copying) take() *job {
	c.queued.Lock()
	defer c.queued.Unlock()
	var best *job
	for _, j := range c.jobs {
		if j.exhausted || j.whole && j.workers > 0 {
			continue
		}
		if best == nil || j.workers < best.workers {
			best = j
		}
	}
	if best != nil {
		best.workers++
	}
	return best
}

// release gives it back; last says that it had no further range. complete says that nobody else works on the table any more,
// and never will.
func (c *copying) release(j *job, last bool) (complete bool) {
	c.queued.Lock()
	defer c.queued.Unlock()
	j.workers--
	j.exhausted = j.exhausted || last
	return j.exhausted && j.workers == 0
}

// doing says what is done with a table, for messages.
func (j *job) doing(verb string) string { return verb + " table " + j.name.String() }
