package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"replicator/checkpoint"
	"replicator/config"
	"replicator/fault"
)

// differencesShown is how many differences between policies a message tells.
const differencesShown = 3

// ComparePolicies compares what the owner of a server recorded as deciding its conflicts with the configuration. It returns
// nil where they agree, else what differs and what to do about it.
func ComparePolicies(c *config.Config, server, recorded string) *fault.Error {
	theirs, err := config.ParsePolicies(recorded)
	if err != nil {
		return fault.Wrap(err, fault.Configuration, "run the same version of replicator for all servers of the mesh",
			"the conflict policies that the owner of %s recorded cannot be understood", server)
	}
	differences := c.Policies(server).Differences(theirs)
	if len(differences) == 0 {
		return nil
	}
	var texts []string
	for i, d := range differences {
		if i == differencesShown {
			texts = append(texts, fmt.Sprintf("%d more", len(differences)-i))
			break
		}
		texts = append(texts, fmt.Sprintf("%s: the owner of %s says %q, this configuration %q", d.About, server, d.That, d.This))
	}
	return fault.New(fault.Configuration,
		"give all processes of the mesh the same policies, and restart those that have others: links go on by themselves when all agree",
		"conflict policies differ: %s", strings.Join(texts, "; "))
}

// agreePolicies compares the policies of the configuration with those that the servers remember. Where a run with this
// configuration would record its own, they are only announced.
func agreePolicies(ctx context.Context, subjects []*Subject, c *config.Config) []Finding {
	const name = "conflict policies"
	var findings []Finding
	for _, s := range subjects {
		decides := slices.ContainsFunc(c.Links, func(l config.Link) bool { return l.To == s.Name })
		if s.Dialect == nil || !decides {
			continue
		}
		r := &report{server: s.Name, info: s.Info}
		recorded, found, err := checkpoint.LoadPolicies(ctx, s.Server.DB())
		switch {
		case isNumber(err, 1142, 1044, 1146, 1049):
			// Missing privileges are said already; before the first run there is no such table.
		case err != nil:
			r.failed(name, err)
		case !found:
			r.check(true, Pass, name, "", "none recorded yet")
		default:
			r.agreement(ComparePolicies(c, s.Name, recorded), s.Config.Own, name)
		}
		findings = append(findings, r.findings...)
	}
	return findings
}

func (r *report) agreement(differ *fault.Error, own bool, name string) {
	switch {
	case differ == nil:
		r.check(true, Pass, name, "", "as the server's owner has them")
	case own:
		r.add(Warn, differ.Class, name,
			"nothing, if the change is meant, every link has caught up, and all processes get it; else restore the policies: see docs/conflicts.md",
			"%s; a run with this configuration changes them", differ.Text())
	default:
		r.add(Fail, differ.Class, name, differ.Remedy, "%s", differ.Text())
	}
}
