package server

import (
	"context"
	"net"
	"strings"

	"replicator/change"
	"replicator/fault"
	"replicator/wire"
)

// Greeting asks a server for its flavor and version without logging in: it says both in the first packet of every
// connection (protocol::HandshakeV10 in the servers' documentation).
func Greeting(ctx context.Context, endpoint string) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return Info{}, Fault(err, "connect to "+endpoint)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return Info{}, Fault(err, "connect to "+endpoint)
	}
	greeting, err := wire.ReadGreeting(conn)
	text := ""
	if err == nil {
		text, err = versionIn(greeting)
	}
	if err != nil {
		return Info{}, Fault(err, "read the greeting of "+endpoint)
	}
	info := Info{Flavor: change.MySQL}
	if strings.Contains(text, "MariaDB") {
		info.Flavor = change.MariaDB
	}
	info.Version, info.Release, err = parseVersion(text)
	return info, err
}

// versionIn returns the version that a greeting names.
func versionIn(g wire.Greeting) (string, error) {
	if text, ok := g.Version(); ok {
		return text, nil
	}
	if g[0] != 0xff {
		return "", fault.New(fault.Configuration, "name the address of a MySQL or MariaDB server",
			"protocol version %d is none of these servers", g[0])
	}
	// An error packet: its mark, a number, the text.
	return "", fault.New(fault.Unavailable, "see what the server's log says", "the server refuses connections: %s", g[min(3, len(g)):])
}
