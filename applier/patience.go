package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"replicator/change"
	"replicator/conflict"
	"replicator/fault"
)

const (
	// patientFor is how long a link waits for what a change was made on top of.
	patientFor = time.Second
	// clashPatience is how long a link waits for what may explain a clash before people are told.
	clashPatience = 5 * time.Second
	patienceTick  = 2 * time.Millisecond
)

// patience puts a change off for a moment while something that it was made on top of is still on its way over another
// link that works. Without it the change would be decided as safely, but against an older version than the one that its
// origin had seen: what came one after the other could look like a conflict.
type patience struct {
	index   *conflict.State
	working func(change.ServerID) bool
	// given up are sources that a change has waited for in vain, until they have been caught up with once.
	givenUp map[change.ServerID]bool
	awaited change.Context // what the clash at hand waits for
}

func newPatience(o Options) patience {
	return patience{index: o.Index, working: o.Working, givenUp: map[change.ServerID]bool{}}
}

// missing lists the sources worth waiting for.
func (p *patience) missing(c change.Context) []change.ServerID {
	lacking := p.index.Lacks(c)
	if len(p.givenUp) > 0 {
		for id := range p.givenUp {
			if !slices.Contains(lacking, id) && c.At(id) > 0 {
				delete(p.givenUp, id)
			}
		}
	}
	return slices.DeleteFunc(lacking, func(id change.ServerID) bool { return p.givenUp[id] || !p.working(id) })
}

// explain waits for what may explain why a group meets a conflict; it reports whether there was anything to wait for.
func (l *Link) explain(ctx context.Context, g *group) (bool, error) {
	if len(g.txs) == 0 {
		return false, nil
	}
	newest := g.txs[len(g.txs)-1].Stamp.Context
	if len(l.patience.missing(newest)) == 0 {
		return false, nil
	}
	return true, l.patience.wait(ctx, newest)
}

// wait returns when the change need not wait any longer, or when it has waited enough.
func (p *patience) wait(ctx context.Context, c change.Context) error {
	deadline := time.Now().Add(patientFor)
	tick := time.NewTicker(patienceTick)
	defer tick.Stop()
	for {
		missing := p.missing(c)
		if len(missing) == 0 {
			missing = p.index.Lacks(c)
		}
		if len(missing) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			for _, id := range missing {
				p.givenUp[id] = true
			}
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// awaitOthers returns errAwaits while changes that could explain a clash are on their way.
func (l *Link) awaitOthers(c change.Context) error {
	if len(l.opt.Index.Lacks(c)) == 0 {
		return nil
	}
	l.patience.awaited = c
	return errAwaits
}

// arrive returns when what a clash waits for has arrived, however long that takes: settled without it, rows would be taken
// away that nobody has disputed. Two links never wait for each other, because what a change was made on top of is older
// than the change. No transaction may be open.
func (l *Link) arrive(ctx context.Context, tx *change.Transaction) error {
	tick := time.NewTicker(patienceTick)
	defer tick.Stop()
	began, told := time.Now(), false
	for {
		missing := l.opt.Index.Lacks(l.patience.awaited)
		switch {
		case len(missing) == 0:
			if told && l.opt.Started != nil {
				l.opt.Started()
			}
			return nil
		case !told && time.Since(began) > clashPatience:
			told = true
			l.opt.Held(l.awaiting(tx, missing))
		}
		if err := l.session.keepAlive(ctx); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *Link) awaiting(tx *change.Transaction, missing []change.ServerID) *fault.Error {
	names := make([]string, len(missing))
	for i, id := range missing {
		names[i] = l.opt.Name(id)
	}
	from := strings.Join(names, ", ")
	return fault.New(fault.Unavailable,
		fmt.Sprintf("look at what keeps the changes of %s from %s; take a server that will never come back out of the configuration", from, l.opt.Target),
		"transaction %s of %s meets rows of %s that changes of %s may explain: it was made on top of these, and they have not arrived yet",
		tx.GTID, l.opt.Source, l.opt.Target, from)
}
