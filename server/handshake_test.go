package server_test

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/fault"
	"replicator/sandbox"
	"replicator/server"
)

// A connection that breaks between the server's greeting and the login is the network's fault, whatever the driver calls it.
func TestServerLeavesDuringHandshake(t *testing.T) {
	t.Parallel()
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		greeting := greetingOf(t, s.Addr())
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write(greeting)
				_ = conn.(*net.TCPConn).SetLinger(0) // reset, so that the client's first write fails
				_ = conn.Close()
			}
		}()
		t.Cleanup(func() { require.NoError(t, listener.Close()) })
		c := settings("s", s)
		c.Endpoints = []string{listener.Addr().String()}
		db := open(t, c).DB()
		for range 20 {
			err := db.PingContext(t.Context())
			require.Equal(t, fault.Network, server.Classify(err), err)
		}
	})
}

// greetingOf is the packet that a server begins with.
func greetingOf(t *testing.T, address string) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	head := make([]byte, 4)
	_, err = io.ReadFull(conn, head)
	require.NoError(t, err)
	body := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	_, err = io.ReadFull(conn, body)
	require.NoError(t, err)
	return append(head, body...)
}
