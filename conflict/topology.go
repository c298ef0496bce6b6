package conflict

import (
	"slices"

	"replicator/change"
)

// Link is one direction of replication: what is committed on From is applied to To.
type Link struct{ From, To change.ServerID }

// Topology says which links a mesh has. It is immutable.
type Topology struct {
	links   map[Link]bool
	servers []change.ServerID // sorted
}

// NewTopology returns the topology with exactly these links.
func NewTopology(links ...Link) Topology {
	t := Topology{links: map[Link]bool{}}
	for _, l := range links {
		t.links[l] = true
		t.servers = append(t.servers, l.From, l.To)
	}
	slices.SortFunc(t.servers, change.ServerID.Compare)
	t.servers = slices.Compact(t.servers)
	return t
}

// FullMesh returns the topology in which every server is linked to every other.
func FullMesh(servers ...change.ServerID) Topology {
	var links []Link
	for _, from := range servers {
		for _, to := range servers {
			if from != to {
				links = append(links, Link{from, to})
			}
		}
	}
	return NewTopology(links...)
}

// Has reports whether changes flow directly from one server to the other.
func (t Topology) Has(from, to change.ServerID) bool { return t.links[Link{from, to}] }

// Servers returns every server that has a link, in order of identity.
func (t Topology) Servers() []change.ServerID { return slices.Clone(t.servers) }

// Sources returns the servers that are linked to the given one, in order of identity.
func (t Topology) Sources(to change.ServerID) []change.ServerID {
	var from []change.ServerID
	for _, s := range t.servers {
		if t.Has(s, to) {
			from = append(from, s)
		}
	}
	return from
}
