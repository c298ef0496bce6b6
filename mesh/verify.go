package mesh

import (
	"context"
	"slices"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
	"replicator/server"
	"replicator/verify"
)

// compared is the server as package verify knows it.
func (w *witness) compared() verify.Server {
	return verify.Server{
		Name: w.status.Name, DB: w.server.DB(), ID: w.identity.ID, Flavor: w.info.Flavor, Dialect: server.NewDialect(w.info),
	}
}

// Verify compares the replicated tables that match accepts on all servers of a configuration. No process has to be asked,
// but the links must run: what a link has not applied yet is no difference.
func Verify(ctx context.Context, c *config.Config, match func(change.TableName) bool, o verify.Options) (verify.Report, error) {
	witnesses, err := newWitnesses(ctx, c)
	if err != nil {
		return verify.Report{}, err
	}
	defer closeAll(witnesses)
	servers := make([]verify.Server, len(c.Servers))
	for i, w := range witnesses {
		if f := w.status.Error; f != nil {
			return verify.Report{}, &fault.Error{Class: fault.Class(f.Class), Message: w.status.Name + ": " + f.Message, Remedy: f.Remedy}
		}
		if w.identity == nil {
			return verify.Report{}, fault.New(fault.Precondition, "start replicator run once with this configuration",
				"%s has no identity yet: the mesh has not been started", w.status.Name)
		}
		servers[i] = w.compared()
	}
	var links []verify.Link
	for _, l := range c.Links {
		at := func(name string) int {
			return slices.IndexFunc(c.Servers, func(s *config.Server) bool { return s.Name == name })
		}
		links = append(links, verify.Link{From: at(l.From), To: at(l.To)})
	}
	o.Match = func(name change.TableName) bool { return c.Tables.Matches(name) && match(name) }
	t := times(c)
	o.Numbered = t.Numbered
	return verify.Run(ctx, servers, links, o)
}
