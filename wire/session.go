package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Login is what a session begins with.
type Login struct {
	Address        string
	User, Password string
	TLS            *tls.Config // nil: plain text
	Attributes     map[string]string
	ReadTimeout    time.Duration
	Dial           func(ctx context.Context, network, address string) (net.Conn, error)
	// Choose picks the algorithm when the server has said what it offers. Its error ends the attempt and is returned.
	Choose func(Greeting) (Algorithm, error)
}

// Open logs in, agrees on compression, and returns a connection that looks like a new and plain one of the same server:
// it greets, takes any login, and then carries commands and answers. So a client library that knows nothing of
// compression can use it. Commands are below 16 MiB and one Write each; they are not compressed, answers are.
//
// go-mysql's own reader of compressed connections cannot follow a binlog: servers number packets anew with every
// compressed one (net_flush in their net_serv.cc), which it takes for a broken stream; its BinlogSyncer has no setting
// for it either.
func Open(ctx context.Context, l Login) (net.Conn, error) {
	var greeting Greeting
	var algorithm Algorithm
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := l.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if deadline, bounded := ctx.Deadline(); bounded {
			err = raw.SetReadDeadline(deadline)
		}
		var conn net.Conn
		if err == nil {
			conn, greeting, err = Greet(raw)
		}
		if err == nil {
			err = raw.SetReadDeadline(time.Time{})
		}
		if _, known := greeting.Version(); err == nil && known { // the library explains other greetings
			algorithm, err = l.Choose(greeting)
		}
		if err != nil {
			_ = raw.Close() // what is wrong with it is told already
			return nil, err
		}
		return conn, nil
	}
	c, err := client.ConnectWithDialer(ctx, "", l.Address, l.User, l.Password, "", dial, func(c *client.Conn) error {
		c.SetTLSConfig(l.TLS)
		c.SetAttributes(l.Attributes)
		c.ReadTimeout = l.ReadTimeout
		if flag := algorithm.capability(); flag != 0 {
			return c.SetCapability(flag)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	conn := c.Conn.Conn // below the library's packets, above TLS
	s := &session{Conn: conn, frames: frames{from: bufio.NewReaderSize(conn, readBuffer), algorithm: algorithm}}
	s.answer = packet(0, greeting)
	return s, nil
}

const readBuffer = 32 << 10

// session is a connection that is logged in. Its client believes it is not.
type session struct {
	net.Conn
	answer []byte // to the client's own login, before anything of the server
	in     bool   // the client has logged in
	frames frames
	number numbering
}

// ok is the payload of an OK packet: nothing changed, autocommit, no warning.
var ok = []byte{0, 0, 0, 2, 0, 0, 0}

// Write implements net.Conn.
func (s *session) Write(p []byte) (int, error) {
	if len(p) < 4 || len(p) != 4+length(p) {
		return 0, errors.New("bug: a command is not one packet")
	}
	if !s.in {
		s.in = true
		s.answer = packet(p[3]+1, ok)
		return len(p), nil
	}
	s.number = numbering{next: p[3] + 1}
	if s.frames.algorithm == None {
		return s.Conn.Write(p)
	}
	s.frames.end()
	// No uncompressed length: the content is not compressed.
	frame := append(packet(0, nil), 0, 0, 0)
	frame[0], frame[1], frame[2] = byte(len(p)), byte(len(p)>>8), byte(len(p)>>16)
	if _, err := s.Conn.Write(append(frame, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read implements net.Conn.
func (s *session) Read(p []byte) (int, error) {
	if len(s.answer) > 0 {
		n := copy(p, s.answer)
		s.answer = s.answer[n:]
		return n, nil
	}
	n, err := s.frames.Read(p)
	if s.frames.algorithm != None {
		s.number.renew(p[:n])
	}
	return n, err
}

// numbering gives the packets of a stream the numbers that a client expects.
type numbering struct {
	next byte
	head [3]byte
	seen int // bytes of the present head
	left int // bytes of the present payload
}

// renew changes the packets of which p is the next piece.
func (n *numbering) renew(p []byte) {
	for len(p) > 0 {
		if n.left > 0 {
			skip := min(n.left, len(p))
			n.left -= skip
			p = p[skip:]
			continue
		}
		if n.seen < len(n.head) {
			n.head[n.seen] = p[0]
			n.seen++
		} else {
			p[0] = n.next
			n.next++
			n.left, n.seen = length(n.head[:]), 0
		}
		p = p[1:]
	}
}

// frames reads what compressed packets hold.
type frames struct {
	from      io.Reader
	algorithm Algorithm
	head      [7]byte
	raw       io.LimitedReader // of the present packet, as it was sent
	content   io.Reader        // of the present packet; nil: none
	left      int              // bytes of content still to come
	zlib      io.ReadCloser
	zstd      *zstd.Decoder
	skip      [1]byte
}

// Read implements io.Reader. It does not wait for a second packet.
func (f *frames) Read(p []byte) (int, error) {
	if f.algorithm == None {
		return f.from.Read(p)
	}
	for f.left == 0 {
		if err := f.begin(); err != nil {
			return 0, err
		}
	}
	if len(p) > f.left {
		p = p[:f.left]
	}
	n, err := f.content.Read(p)
	f.left -= n
	switch {
	case f.left == 0:
		err = f.finish()
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("a compressed packet is %d bytes short: %w", f.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

// begin reads the head of the next packet.
func (f *frames) begin() error {
	if _, err := io.ReadFull(f.from, f.head[:]); err != nil {
		return err
	}
	sent, plain := length(f.head[:]), length(f.head[4:])
	f.raw = io.LimitedReader{R: f.from, N: int64(sent)}
	f.content, f.left = &f.raw, sent
	if plain == 0 {
		return nil
	}
	f.left = plain
	var err error
	switch f.algorithm {
	case Zlib:
		f.content, err = f.inflate()
	case Zstd:
		f.content, err = f.decode()
	case None:
		err = errors.New("bug: a packet of a plain connection is compressed")
	}
	if err != nil {
		return fmt.Errorf("read a compressed packet: %w", err)
	}
	return nil
}

func (f *frames) inflate() (io.Reader, error) {
	if f.zlib != nil {
		return f.zlib, f.zlib.(zlib.Resetter).Reset(&f.raw, nil)
	}
	var err error
	f.zlib, err = zlib.NewReader(&f.raw)
	return f.zlib, err
}

func (f *frames) decode() (io.Reader, error) {
	if f.zstd != nil {
		return f.zstd, f.zstd.Reset(&f.raw)
	}
	// One at a time: it starts no goroutine, which nobody would end.
	d, err := zstd.NewReader(&f.raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	f.zstd = d
	return d, err
}

// finish reads to the end of the packet, where a checksum may stand.
func (f *frames) finish() error {
	n, err := f.content.Read(f.skip[:])
	if n > 0 {
		return errors.New("a compressed packet holds more than it says")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read a compressed packet: %w", err)
	}
	if f.raw.N > 0 {
		_, err = io.Copy(io.Discard, &f.raw)
		return err
	}
	return nil
}

// end forgets the present packet: the answer to a command begins with a new one.
func (f *frames) end() { f.left = 0 }
