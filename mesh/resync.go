package mesh

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"replicator/applier"
	"replicator/change"
	"replicator/conflict"
	"replicator/fault"
	"replicator/resync"
)

// resyncEvery is how often an owner looks for jobs on its server.
const resyncEvery = time.Second

// resync carries out the jobs that are on this server, one after the other.
func (o *owner) resync(ctx context.Context) error {
	for {
		if err := wait(ctx, resyncEvery); err != nil {
			return err
		}
		j, err := resync.Next(ctx, o.member.server.DB())
		if err == nil && j != nil {
			err = o.carryOut(ctx, j)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // the heartbeat shows what is wrong with the server
			o.member.log.Warn("a resync is held up", zap.Error(err))
		}
	}
}

func (o *owner) carryOut(ctx context.Context, j *resync.Job) error {
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
	t := times(o.mesh.config)
	r := &resync.Runner{
		Source:   resync.Side{Name: l.from.config.Name, DB: l.from.server.DB(), Flavor: p.info.Flavor, Dialect: p.dialect},
		Target:   resync.Side{Name: l.to.config.Name, DB: l.to.server.DB(), Flavor: o.profile.info.Flavor, Dialect: o.profile.dialect},
		Numbered: t.Numbered,
		Hold:     func() (*conflict.Hold, bool) { return o.state.Hold(p.identity.ID) },
		Position: func() (change.GTIDSet, error) { return change.ParseGTIDSet(p.info.Flavor, l.stats.Position()) },
		Copy:     l.copy,
		Lag:      o.mesh.lag,
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
