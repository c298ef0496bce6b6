// Package wire is compression in the protocol between clients and servers of MySQL and MariaDB, as far as the client
// libraries leave it to us: what a server offers, and the reading side of a compressed connection.
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_compression.html
package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// Algorithm is how a connection is compressed.
type Algorithm string

// The algorithms of the protocol. MariaDB has zlib alone, MySQL zstd too since 8.0.18.
const (
	None Algorithm = "none"
	Zlib Algorithm = "zlib"
	Zstd Algorithm = "zstd"
)

func (a Algorithm) capability() uint32 {
	switch a {
	case Zlib:
		return mysql.CLIENT_COMPRESS
	case Zstd:
		return mysql.CLIENT_ZSTD_COMPRESSION_ALGORITHM
	case None:
	}
	return 0
}

// Greeting is the first packet of a connection, which the server sends: its payload.
type Greeting []byte

// protocolVersion begins every greeting that is not an error.
const protocolVersion = 10

// Version is how the server calls itself; ok is false where it greets with an error, or is none of these servers.
func (g Greeting) Version() (text string, ok bool) {
	if len(g) == 0 || g[0] != protocolVersion {
		return "", false
	}
	end := bytes.IndexByte(g, 0)
	if end < 0 {
		return "", false
	}
	return string(g[1:end]), true
}

// Offers reports whether connections to the server may be compressed like that.
func (g Greeting) Offers(a Algorithm) bool {
	return a != None && g.capabilities()&a.capability() != 0
}

// Behind the version: a connection number, the first part of a challenge and a zero byte stand before the lower half of the
// capabilities; a character set and a status between the halves (Protocol::HandshakeV10).
const (
	beforeCapabilities = 4 + 8 + 1
	betweenHalves      = 1 + 2
)

func (g Greeting) capabilities() uint32 {
	version, ok := g.Version()
	if !ok {
		return 0
	}
	rest := g[1+len(version)+1:]
	if len(rest) < beforeCapabilities+2+betweenHalves+2 {
		return 0
	}
	rest = rest[beforeCapabilities:]
	lower := binary.LittleEndian.Uint16(rest)
	upper := binary.LittleEndian.Uint16(rest[2+betweenHalves:])
	return uint32(upper)<<16 | uint32(lower)
}

// ReadGreeting reads a packet that begins a connection, and nothing behind it.
func ReadGreeting(r io.Reader) (Greeting, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read greeting: %w", err)
	}
	const longest = 64 << 10 // greetings have a hundred bytes, but who knows who answers
	n := length(head[:])
	if n == 0 || n > longest {
		return nil, fmt.Errorf("read greeting: a packet of %d bytes begins the connection: %w", n, mysql.ErrMalformPacket)
	}
	g := make(Greeting, n)
	if _, err := io.ReadFull(r, g); err != nil {
		return nil, fmt.Errorf("read greeting: %w", err)
	}
	return g, nil
}

func length(three []byte) int { return int(three[0]) | int(three[1])<<8 | int(three[2])<<16 }

// packet puts a payload below the limit of one packet into a packet.
func packet(sequence byte, payload []byte) []byte {
	n := len(payload)
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), sequence}, payload...)
}

// Greet reads the server's greeting from a new connection. Whoever logs in on what it returns reads it again.
func Greet(c net.Conn) (net.Conn, Greeting, error) {
	g, err := ReadGreeting(c)
	if err != nil {
		return nil, nil, err
	}
	return &greeted{Conn: c, again: packet(0, g)}, g, nil
}

type greeted struct {
	net.Conn
	again []byte
}

// Read implements net.Conn.
func (c *greeted) Read(p []byte) (int, error) {
	if len(c.again) > 0 {
		n := copy(p, c.again)
		c.again = c.again[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// SyscallConn lets a client look whether the connection is still alive.
func (c *greeted) SyscallConn() (syscall.RawConn, error) {
	raw, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, syscall.EINVAL
	}
	return raw.SyscallConn()
}
