package mesh

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/applier"
	"replicator/checkpoint"
	"replicator/conflict"
	"replicator/fault"
	"replicator/server"
)

// Two servers that decide one conflict by different policies keep different rows. So the owner of a target records there
// by what it decides (adopt), before it decides anything, and a link runs only while the source's owner has recorded the
// same as this process is configured with (awaitAgreement, whileAgreed). A server that nobody owns at present counts with what its
// last owner recorded: that is what its rows were decided by. One without a record, such as one that an older version owns,
// is not known to differ. A server to which no link leads decides nothing.

// agreeEvery is how often records are compared.
const agreeEvery = time.Second

// adopt records the policies of this process on a target that it owns. Others are replaced, but not those of an owner that
// lives.
func (o *owner) adopt(ctx context.Context) error {
	if !o.indexed {
		return nil
	}
	c, name, db := o.mesh.config, o.member.config.Name, o.member.server.DB()
	mine := c.Policies(name).String()
	patience := time.Now().Add(2 * witnessBeats * upkeepEvery) // the process before this one may have just ended
	for {
		recorded, found, err := checkpoint.LoadPolicies(ctx, db)
		if err != nil {
			return o.member.fault(err, "read the policies of "+name)
		}
		if found && recorded == mine {
			return nil
		}
		var differ *fault.Error
		if found {
			differ = server.ComparePolicies(c, name, recorded)
		}
		if differ != nil {
			beat, beaten, err := checkpoint.LastBeat(ctx, db)
			if err != nil {
				return o.member.fault(err, "read the heartbeat of "+name)
			}
			if beaten && beat.Age < witnessBeats*upkeepEvery {
				if time.Now().After(patience) {
					return otherOwner(name, differ)
				}
				if err := wait(ctx, agreeEvery/4); err != nil {
					return err
				}
				continue
			}
			o.changedPolicies = true
			o.member.log.Warn("conflict policies of the server change", zap.String("before", recorded), zap.String("now", mine))
		}
		if err := checkpoint.SavePolicies(ctx, db, mine); err != nil {
			return o.member.fault(err, "record the policies of "+name)
		}
		return nil
	}
}

// warnOfChanges says, when the policies have changed, how much was on its way meanwhile: the index, just built again, holds
// what others are not known to have. It may be decided by the old policies on one server and by the new ones on another.
func (o *owner) warnOfChanges(s conflict.Stats) {
	if rows := s.Entries + s.Spilled; o.changedPolicies && rows > 0 {
		o.member.log.Warn("conflict policies changed while changes were on their way: those that are in conflict can leave the servers different",
			zap.Int("rows", rows), zap.String("remedy", "compare the tables; next time change policies when every link has caught up and nobody writes"))
	}
}

func otherOwner(name string, differ *fault.Error) *fault.Error {
	return fault.New(fault.Fenced, "stop one of the two processes, or set own: false for the server in one",
		"another process applies to %s and decides otherwise: %s", name, differ.Text())
}

// guard ends the owner when another process has adopted the target with other policies.
func (o *owner) guard(ctx context.Context) error {
	if !o.indexed {
		return nil
	}
	for {
		if err := wait(ctx, agreeEvery); err != nil {
			return err
		}
		differ, err := o.mesh.disagreement(ctx, o.member)
		if err == nil && differ != nil { // what is wrong with the server shows elsewhere
			return otherOwner(o.member.config.Name, differ)
		}
	}
}

// disagreement is what the owner of a server does not decide as this process does, nil when nothing is known to differ.
func (m *Mesh) disagreement(ctx context.Context, x *member) (*fault.Error, error) {
	recorded, found, err := checkpoint.LoadPolicies(ctx, x.server.DB())
	if err != nil {
		return nil, x.fault(err, "read the policies of "+x.config.Name)
	}
	if !found {
		return nil, nil
	}
	return server.ComparePolicies(m.config, x.config.Name, recorded), nil
}

// foreign reports whether the source of a link is decided on by another process.
func (o *owner) foreign(l *link) bool { return !l.from.config.Own && len(o.mesh.into(l.from)) > 0 }

// awaitAgreement waits until the source's owner decides as this process does, and shows meanwhile what differs.
func (o *owner) awaitAgreement(ctx context.Context, l *link, log *zap.Logger) error {
	shown := ""
	for o.foreign(l) {
		differ, err := o.mesh.disagreement(ctx, l.from)
		if err != nil {
			return err
		}
		if differ == nil {
			break
		}
		if differ.Text() != shown {
			shown = differ.Text()
			logFault(log, "link waits until the policies agree", l.trouble.set(differ), agreeEvery)
		}
		if err := wait(ctx, agreeEvery); err != nil {
			return err
		}
	}
	if shown != "" {
		log.Info("the policies agree")
		l.trouble.clear(Starting)
	}
	return nil
}

// whileAgreed runs a link. When the source's owner has changed its policies, it ends the run and reports so.
func (o *owner) whileAgreed(ctx context.Context, l *link, run *applier.Link) (changed bool, err error) {
	if !o.foreign(l) {
		return false, run.Run(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	watch.Go(func() {
		for wait(ctx, agreeEvery) == nil {
			differ, err := o.mesh.disagreement(ctx, l.from)
			if err == nil && differ != nil { // a source that cannot be asked shows in the link
				changed = true
				cancel()
			}
		}
	})
	err = run.Run(ctx)
	cancel()
	watch.Wait()
	return changed, err
}
