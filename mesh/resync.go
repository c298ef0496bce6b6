package mesh

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/applier"
	"replicator/change"
	"replicator/conflict"
	"replicator/fault"
	"replicator/resync"
)

const (
	// resyncEvery is how often an owner looks for jobs on its server.
	resyncEvery = time.Second
	// resyncsOpen is how many jobs are looked at at once: most of them wait for something. resyncsAtWork is how many read
	// and copy rows.
	resyncsOpen   = 64
	resyncsAtWork = 4
)

// resync carries out the jobs that are on this server. Of a table there is one at a time.
func (o *owner) resync(ctx context.Context) error {
	var open sync.WaitGroup
	defer open.Wait()
	var mu sync.Mutex
	tables := map[change.TableName]bool{}
	slots := make(chan struct{}, resyncsAtWork)
	for {
		if err := wait(ctx, resyncEvery); err != nil {
			return err
		}
		jobs, err := resync.Pending(ctx, o.member.server.DB(), resyncsOpen)
		if err != nil && ctx.Err() == nil { // the heartbeat shows what is wrong with the server
			o.member.log.Warn("resyncs cannot be looked for", zap.Error(err))
		}
		for _, j := range jobs {
			mu.Lock()
			busy := tables[j.Table]
			tables[j.Table] = true
			mu.Unlock()
			if busy {
				continue
			}
			open.Go(func() {
				if err := o.carryOut(ctx, j, slots); err != nil && ctx.Err() == nil {
					o.member.log.Warn("a resync is held up", zap.Stringer("table", j.Table), zap.Error(err))
				}
				mu.Lock()
				defer mu.Unlock()
				delete(tables, j.Table)
			})
		}
	}
}

func (o *owner) carryOut(ctx context.Context, j *resync.Job, slots chan struct{}) error {
	l, err := o.linkFrom(j.Source)
	if err == nil && !o.mesh.config.Tables.Matches(j.Table) {
		err = fault.New(fault.Configuration, "see tables.include and tables.exclude", "table %s is not replicated", j.Table)
	}
	if err != nil {
		return resync.Refuse(ctx, o.member.server.DB(), j, err)
	}
	p := l.from.profile()
	if p == nil {
		return nil // it is looked for again
	}
	if j.State == resync.Waiting { // two commands may have asked at once
		other, err := resync.Open(ctx, l.from.server.DB(), j.Table)
		if err == nil && other != nil {
			err = fault.New(fault.Precondition, "run it again when that has ended: replicator resync list", "%s is itself being resynced on %s", j.Table, l.from.config.Name)
		}
		if err != nil {
			return resync.Refuse(ctx, o.member.server.DB(), j, err)
		}
	}
	t := times(o.mesh.config)
	r := &resync.Runner{
		Source:   resync.Side{Name: l.from.config.Name, DB: l.from.server.DB(), Flavor: p.info.Flavor, Dialect: p.dialect},
		Target:   resync.Side{Name: l.to.config.Name, DB: l.to.server.DB(), Flavor: o.profile.info.Flavor, Dialect: o.profile.dialect},
		Numbered: t.Numbered,
		Hold:     func() (*conflict.Hold, bool) { return o.state.Hold(p.identity.ID) },
		Position: func() (change.GTIDSet, error) { return change.ParseGTIDSet(p.info.Flavor, l.stats.Position()) },
		Copy:     l.copy,
		Lag:      o.mesh.lag,
		Slots:    slots,
		Log:      o.member.log.Named("resync"),
	}
	return r.Run(ctx, j)
}

// linkFrom is the link from a server to this one.
func (o *owner) linkFrom(source change.ServerID) (*link, error) {
	known := true
	for _, l := range o.mesh.into(o.member) {
		p := l.from.profile()
		if p != nil && p.identity.ID == source {
			return l, nil
		}
		known = known && p != nil
	}
	if !known {
		return nil, fault.New(fault.Unavailable, "wait: it is tried again", "not all servers with links to %s have been reached yet", o.member.config.Name)
	}
	return nil, fault.New(fault.Configuration, "take the rows of a server that has a link to "+o.member.config.Name,
		"no link leads from server %s to %s", source, o.member.config.Name)
}

// copy hands rows to the run of the link that there is.
func (l *link) copy(ctx context.Context, c *applier.Copies) (applier.Copied, error) {
	l.mu.Lock()
	run := l.run
	l.mu.Unlock()
	if run == nil {
		f := &fault.Error{Class: fault.Unavailable, Message: fmt.Sprintf("link %s→%s does not run", l.from.config.Name, l.to.config.Name), Remedy: "see `replicator status`"}
		if held, _, _ := l.trouble.get(); held != nil {
			f.Message += ": " + held.Message
		}
		return applier.Copied{}, f
	}
	return run.Copy(ctx, c)
}

// lag is by how much the links of this process are behind, those that run.
func (m *Mesh) lag() time.Duration {
	var most time.Duration
	for _, l := range m.links {
		if behind := l.stats.Behind.Load(); behind != 0 && l.stats.Running() {
			most = max(most, time.Since(change.Time(behind).Wall()))
		}
	}
	return most
}
