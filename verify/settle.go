package verify

import (
	"context"
	"fmt"
	"time"
	"unsafe"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/resync/chunk"
	"replicator/server"
)

// suspect is a row that differed when it was read last.
type suspect struct {
	of   *comparison
	rows [][]image.Value // by server; nil where there is none
	// stood is how often it has been read since, behind every change that was under way, and was the same everywhere as
	// the time before.
	stood int
}

// size is about how many bytes the rows take.
func (s *suspect) size() (n int) {
	for _, values := range s.rows {
		n += len(values) * int(unsafe.Sizeof(image.Value{}))
		for i := range values {
			n += len(values[i].Bytes)
		}
	}
	return n
}

const (
	// enough is how often a row must have stood: a change that is taken back may make it look so once.
	enough = 2
	// rounds is how often rows are read that are changed all the time.
	rounds = 30
	// lookRows is how many rows one statement asks for.
	lookRows = 100
	pollLink = 100 * time.Millisecond
	// hurryTime is what a quick comparison may spend at once on finding out whether rows differ, in hurryRounds each time.
	hurryTime   = 30 * time.Second
	hurryRounds = 4
)

// settle looks at the open rows of all tables again until it is known of each whether it differs.
func (v *verifier) settle(ctx context.Context) error {
	for round := 0; len(v.open) > 0; round++ {
		if err := v.pass(ctx); err != nil {
			return v.abandon(ctx, err)
		}
		if round == v.opt.Rounds {
			return v.abandon(ctx, fault.New(fault.Precondition, "compare again when less is written",
				"%d rows differ and are changed all the time, one of them %s", len(v.open), v.open[0].of.Row(anyOf(v.open[0].rows)).KeyText()))
		}
		if err := v.lookAgain(ctx); err != nil {
			return err
		}
	}
	return nil
}

// hurry looks at the open rows a few times, so that a quick comparison need not go on when one of them differs. What is not
// known then stays open.
func (v *verifier) hurry(ctx context.Context) error {
	began := time.Now()
	defer func() { v.hurried += time.Since(began) }()
	for round := 0; len(v.open) > 0 && round < hurryRounds; round++ {
		if err := v.pass(ctx); err != nil {
			break // it shows when they are settled
		}
		if err := v.lookAgain(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// hurries reports whether it is time for that: a quick comparison does not spend more time so than on the tables.
func (v *verifier) hurries() bool {
	return v.opt.Quick && len(v.open) > 0 && v.hurried < hurryTime+time.Since(v.began)/2
}

// lookAgain reads all open rows anew.
func (v *verifier) lookAgain(ctx context.Context) error {
	var left []*suspect
	for list := v.open; len(list) > 0; {
		n := 1 // the rows of one table are asked for together
		for n < len(list) && n < lookRows && list[n].of == list[0].of {
			n++
		}
		left = append(left, list[0].of.examine(ctx, list[:n])...)
		list = list[n:]
	}
	v.open, v.bytes = left, 0
	for _, s := range left {
		v.bytes += s.size()
	}
	return ctx.Err()
}

// abandon says of the tables with open rows why these cannot be settled.
func (v *verifier) abandon(ctx context.Context, err error) error {
	for _, s := range v.open {
		s.of.result.Err = err
	}
	v.open, v.bytes = nil, 0
	return ctx.Err()
}

// examine reads suspects of one table anew, notes those that differ, and returns those that may.
func (c *comparison) examine(ctx context.Context, list []*suspect) (left []*suspect) {
	if c.over() {
		return nil
	}
	if err := c.look(ctx, list); err != nil {
		c.result.Err = err
		return nil
	}
	c.changed()
	for _, s := range list {
		switch {
		case s.rows == nil: // equal now
		case s.stood < enough:
			left = append(left, s)
		default:
			c.differs(s)
		}
	}
	c.progress()
	return left
}

func anyOf(rows [][]image.Value) []image.Value {
	for _, values := range rows {
		if values != nil {
			return values
		}
	}
	return nil
}

// differs notes a difference.
func (c *comparison) differs(s *suspect) {
	c.result.Total++
	c.result.cut = c.opt.Quick
	if len(c.kept) < max(c.opt.Limit, 1) { // one keeps a quick comparison from going on
		c.kept = append(c.kept, anyOf(s.rows))
	}
	if c.opt.Quick || len(c.result.Differences) >= c.opt.Limit {
		return
	}
	d := Difference{}
	for _, values := range s.rows {
		d.Rows = append(d.Rows, c.Row(values))
	}
	c.result.Differences = append(c.result.Differences, d)
}

// look reads suspects anew.
func (c *comparison) look(ctx context.Context, list []*suspect) error {
	keys := make([][]image.Value, len(list))
	for i, s := range list {
		keys[i] = anyOf(s.rows)
	}
	read := make([][][]image.Value, len(c.Sites))
	err := chunk.Each(len(c.Sites), func(i int) error {
		q, err := c.Sites[i].Plan.SelectRows(keys, dml.Options{})
		if err != nil {
			return err
		}
		found, err := q.Run(ctx, c.Sites[i].DB)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Sites[i].Server, err)
		}
		read[i] = make([][]image.Value, len(list))
		for _, f := range found {
			read[i][f.Index] = f.Values
		}
		return nil
	})
	if err != nil {
		return err
	}
	for n, s := range list {
		now, stood := make([][]image.Value, len(c.Sites)), true
		for i := range c.Sites {
			now[i] = read[i][n]
			stood = stood && c.Same(now[i], s.rows[i])
		}
		switch {
		case c.Equal(now):
			s.rows = nil
			continue
		case stood:
			s.stood++
		default:
			s.stood = 0
		}
		s.rows = now
	}
	return nil
}

// pass waits until every link has applied what the servers' binlogs hold now.
func (v *verifier) pass(ctx context.Context) error {
	ends := make([]change.GTIDSet, len(v.all))
	if err := chunk.Each(len(v.all), func(i int) (err error) {
		s := &v.all[i]
		if ends[i], err = s.Dialect.Position(ctx, s.DB); err != nil {
			return server.Fault(err, "read the position of "+s.Name)
		}
		return nil
	}); err != nil {
		return err
	}
	return chunk.Each(len(v.links), func(i int) error { return v.await(ctx, v.links[i], ends[v.links[i].From]) })
}

func (v *verifier) await(ctx context.Context, l Link, end change.GTIDSet) error {
	from, to := &v.all[l.From], &v.all[l.To]
	patience := time.Now().Add(v.opt.Patience)
	tick := time.NewTicker(pollLink)
	defer tick.Stop()
	for {
		state, found, err := checkpoint.Latest(ctx, to.DB, from.Flavor, from.ID)
		if err != nil {
			return server.Fault(err, "read how far "+to.Name+" has "+from.Name)
		}
		if found && state.Position.Covers(end) {
			return nil
		}
		if time.Now().After(patience) {
			return fault.New(fault.Unavailable,
				"see replicator status: where the link runs, give --patience more than the ten seconds in which a quiet server's position moves",
				"what differs for good is not known: link %s→%s has not applied within %s what %s held", from.Name, to.Name,
				v.opt.Patience, from.Name)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
