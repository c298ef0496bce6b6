package applier

import (
	"context"
	"slices"
	"time"

	"replicator/change"
	"replicator/conflict"
)

const (
	// patientFor is how long a link waits for what a change was made on top of.
	patientFor = time.Second
	// clashPatience is how long a clash is not settled while changes that could explain it are on their way.
	clashPatience = 30 * time.Second
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
	clashed time.Time      // when the clash at hand began to wait
	awaited change.Context // what it waits for
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

// awaitOthers returns errAwaits while changes that could explain a clash are on their way and may still be waited for.
func (l *Link) awaitOthers(c change.Context) error {
	p := &l.patience
	if len(l.opt.Index.Lacks(c)) == 0 {
		p.clashed = time.Time{}
		return nil
	}
	if p.clashed.IsZero() {
		p.clashed = time.Now()
	}
	if time.Since(p.clashed) < clashPatience {
		p.awaited = c
		return errAwaits
	}
	return nil
}

// arrive returns when what a clash waits for has arrived, or may not be waited for any longer. No transaction may be open.
func (p *patience) arrive(ctx context.Context) error {
	tick := time.NewTicker(patienceTick)
	defer tick.Stop()
	for len(p.index.Lacks(p.awaited)) > 0 && time.Since(p.clashed) < clashPatience {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
