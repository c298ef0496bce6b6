package api

import (
	"fmt"

	"replicator/mesh"
)

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []Reason `json:"reasons"`
}

// Reason is one thing that is not as it should be. From is empty for a server, To names it then.
type Reason struct {
	From    string         `json:"from,omitempty"`
	To      string         `json:"to"`
	State   mesh.LinkState `json:"state,omitempty"`
	Message string         `json:"message"`
	Remedy  string         `json:"remedy,omitempty"`
}

// NotReady lists the owned links that are not applying, or lag by maxLag seconds or more. Nothing is ready before it is
// known to be: an unknown lag counts as too long. Links in standby are another process's.
func NotReady(s mesh.Status, maxLag float64) []Reason {
	if len(s.Links) == 0 {
		return []Reason{{Message: "no link has been started yet"}}
	}
	reasons := []Reason{} // [] in JSON, not null
	for _, l := range s.Links {
		reason := Reason{From: l.From, To: l.To, State: l.State}
		switch {
		case l.State == mesh.Standby:
			continue
		case !Applying(l.State):
			reason.Message, reason.Remedy = notApplying(l)
		case l.LagSeconds == nil:
			reason.Message = "the lag is not known yet"
		case *l.LagSeconds >= maxLag:
			reason.Message = fmt.Sprintf("the lag is %.1f s, the limit of http.max_lag is %.0f s", *l.LagSeconds, maxLag)
		default:
			continue
		}
		reasons = append(reasons, reason)
	}
	return reasons
}

// Unhealthy lists the links that do not apply and the servers that are not reached, however long the lag.
func Unhealthy(s mesh.Status) []Reason {
	var reasons []Reason
	for _, server := range s.Servers {
		if server.Reachable != nil && *server.Reachable {
			continue
		}
		reason := Reason{To: server.Name, Message: "the server is not reachable"}
		if server.Reachable == nil {
			reason.Message = "it is not known whether the server is reachable"
		}
		if server.Error != nil {
			reason.Message, reason.Remedy = server.Error.Message, server.Error.Remedy
		}
		reasons = append(reasons, reason)
	}
	if len(s.Links) == 0 {
		reasons = append(reasons, Reason{Message: "no link is known"})
	}
	for _, l := range s.Links {
		if !Applying(l.State) {
			reason := Reason{From: l.From, To: l.To, State: l.State}
			reason.Message, reason.Remedy = notApplying(l)
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

// Applying reports whether a link in that state brings changes to its target.
func Applying(state mesh.LinkState) bool { return state == mesh.Running || state == mesh.CatchingUp }

func notApplying(l mesh.LinkStatus) (message, remedy string) {
	if l.Error != nil {
		return l.Error.Message, l.Error.Remedy
	}
	if l.State == "" {
		return "it is not known what the link does", ""
	}
	return "the link is " + string(l.State), ""
}
