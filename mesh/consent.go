package mesh

import (
	"context"
	"fmt"
	"slices"
	"time"

	"replicator/canal"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/conflict"
	"replicator/fault"
	"replicator/server"
)

// What the other servers have to do with a clone: they send the target what they send its source, they count with it, and
// nothing is on its way between them that the source's rows depend on.

// agrees makes sure that the target is to receive what the source receives: it begins where the source stands.
func (x *cloning) agrees() error {
	has := func(from, to string) bool { return slices.Contains(x.config.Links, config.Link{From: from, To: to}) }
	if !has(x.From, x.To) {
		return fault.New(fault.Configuration, "clone from a server that has a link to "+x.To, "no link leads from %s to %s", x.From, x.To)
	}
	for _, w := range x.witnesses {
		name := w.status.Name
		if name == x.From || name == x.To {
			continue
		}
		if has(name, x.From) != has(name, x.To) {
			return fault.New(fault.Configuration, "clone from a server that receives the same changes",
				"%s and %s do not receive the same changes: a link leads from %s to only one of them", x.From, x.To, name)
		}
		if !has(name, x.From) {
			continue
		}
		if w.identity == nil { // it takes no part: a server that is empty, or is being cloned as well
			continue
		}
		x.others = append(x.others, *w.identity)
	}
	return nil
}

// unchanged makes sure that the same servers take part as when the clone began. What one that has joined meanwhile has sent to
// the source is in the snapshot, and the target's link would begin before it.
func (x *cloning) unchanged(ctx context.Context) error {
	for _, w := range x.witnesses {
		if w == x.target {
			continue
		}
		now, found, err := checkpoint.LoadIdentity(ctx, w.server.DB(), w.info.Flavor)
		if err != nil {
			return server.Fault(err, "read the identity of "+w.status.Name)
		}
		if before, took := x.members[w.status.Name]; took != found || took && before != now.ID {
			return fault.New(fault.Unavailable, "run it again: it goes on with what has been copied",
				"%s has joined the mesh or left it since the clone of %s began", w.status.Name, x.To)
		}
	}
	return nil
}

// settled waits until everything that the source had at a moment is stable there without the target, and returns that moment:
// whatever a snapshot has in it that may still conflict with something came later.
func (x *cloning) settled(ctx context.Context) (canal.Start, error) {
	db := x.source.server.DB()
	x.Say("waiting until what is on its way to " + x.From + " has arrived")
	for until := time.Now().Add(clonePatience); ; {
		places, err := checkpoint.LoadReadings(ctx, db, x.source.info.Flavor)
		if err != nil {
			return canal.Start{}, server.Fault(err, "ask "+x.From)
		}
		applied, err := checkpoint.NewestMarkers(ctx, db, x.others)
		if err != nil {
			return canal.Start{}, server.Fault(err, "read the markers of "+x.From)
		}
		if r, found := stablePlace(x.source.identity.ID, x.topology(), applied, places); found {
			return canal.Start{Position: r.Position, Clock: r.Clock}, nil
		}
		if time.Now().After(until) {
			return canal.Start{}, fault.New(fault.Precondition,
				"see `replicator status`: the links between the other servers have to run; take a server that is away out of the configuration",
				"not every server has what %s has", x.From)
		}
		if err := wait(ctx, clonePoll); err != nil {
			return canal.Start{}, err
		}
	}
}

// announced makes sure that every server that the target will send changes to counts with it from now on: until the target
// has a change, that server's owner is not to forget what it decides by. Before the target is out of the mesh, only what will
// not change by itself is an error.
func (x *cloning) announced(ctx context.Context, patience time.Duration) error {
	names := append(x.targets(), x.From)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if x.witness(name).identity == nil { // it takes no part
			continue
		}
		for until := time.Now().Add(patience); ; {
			passing, lasting := x.heeds(ctx, x.witness(name))
			switch {
			case lasting != nil:
				return lasting
			case passing == nil || patience == 0:
			case time.Now().After(until):
				return passing
			default:
				x.Say("waiting for the process that applies to " + name)
				if err := wait(ctx, clonePoll); err != nil {
					return err
				}
				continue
			}
			break
		}
	}
	return nil
}

// heeds asks whether a server's owner counts with the target, and knows that it is being cloned; what it says otherwise
// passes, or lasts until somebody does something about it.
func (x *cloning) heeds(ctx context.Context, w *witness) (passing, lasting error) {
	name := w.status.Name
	w.owned = false
	if err := w.ask(ctx); err != nil {
		if f := asFault(err); f.Class.Transient() { // it may be back in a moment
			return fmt.Errorf("%s: %w", name, err), nil
		}
		return nil, err
	}
	places, err := checkpoint.LoadReadings(ctx, w.server.DB(), w.info.Flavor)
	if err != nil && !server.IsMissingTable(err) {
		return nil, server.Fault(err, "ask "+name)
	}
	receives := slices.Contains(x.targets(), name)
	switch {
	case !w.owned:
		return fault.New(fault.Precondition, "start `replicator run` with this configuration, or see in `replicator status` why it cannot; then run this again",
			"no process applies to %s", name), nil
	case len(places) == 0:
		return fault.New(fault.Precondition, "run this version of replicator there", "the process that applies to %s does not say how far it has read", name), nil
	case receives && !slices.Contains(places[0].Sources, x.To):
		return nil, fault.New(fault.Precondition, fmt.Sprintf("add %s to the configuration of `replicator run`, restart it, and run this again", x.To),
			"the process that applies to %s does not know of %s", name, x.To)
	case receives && !slices.Contains(places[0].Cloning, x.To):
		return fault.New(fault.Precondition, "see its log, and whether it reaches "+x.To, "the process that applies to %s has not noticed that %s is being cloned", name, x.To), nil
	}
	return nil, nil
}

// targets are the servers to which the target has links.
func (x *cloning) targets() (names []string) {
	for _, l := range x.config.Links {
		if l.From == x.To {
			names = append(names, l.To)
		}
	}
	return names
}

// topology are the links without those of the target.
func (x *cloning) topology() conflict.Topology {
	var links []conflict.Link
	for _, l := range x.config.Links {
		from, to := x.witness(l.From), x.witness(l.To)
		if from != x.target && to != x.target && from.identity != nil && to.identity != nil {
			links = append(links, conflict.Link{From: from.identity.ID, To: to.identity.ID})
		}
	}
	return conflict.NewTopology(links...)
}
