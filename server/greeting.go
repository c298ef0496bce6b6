package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"

	"replicator/change"
	"replicator/fault"
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
	text, err := readGreeting(bufio.NewReader(conn))
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

// readGreeting returns the version text: after three bytes of length, a packet number and the protocol's version, up to a
// zero byte.
func readGreeting(r *bufio.Reader) (string, error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return "", err
	}
	switch header[4] {
	case 10:
	case 0xff: // an error packet: number and text
		rest := make([]byte, max(int(header[0])-1, 2))
		if _, err := io.ReadFull(r, rest); err != nil {
			return "", err
		}
		return "", fault.New(fault.Unavailable, "see what the server's log says", "the server refuses connections: %s", rest[2:])
	default:
		return "", fault.New(fault.Configuration, "name the address of a MySQL or MariaDB server",
			"protocol version %d is none of these servers", header[4])
	}
	text, err := r.ReadBytes(0)
	if err != nil {
		return "", fmt.Errorf("read version: %w", err)
	}
	return string(bytes.TrimSuffix(text, []byte{0})), nil
}
