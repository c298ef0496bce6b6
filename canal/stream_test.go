package canal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"
)

// sent is a connection on which a server has sent something.
type sent struct {
	net.Conn
	io.Reader
}

func (s sent) Read(p []byte) (int, error)      { return s.Reader.Read(p) }
func (s sent) SetReadDeadline(time.Time) error { return nil }

var errSent = errors.New("the server's own error")

func streamOf(content io.Reader) *stream {
	return &stream{conn: sent{Reader: content}, refused: func([]byte) error { return errSent }, number: 1}
}

// next waits for one event.
func next(s *stream) (event, error) {
	for {
		e, err := s.take()
		if e != nil || err != nil {
			return e, err
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

// packets puts a payload into as many packets as it takes, from a number on.
func packets(payload []byte, number byte) (out []byte) {
	for {
		n := min(len(payload), packetMost)
		out = append(append(out, byte(n), byte(n>>8), byte(n>>16), number), payload[:n]...)
		payload = payload[n:]
		number++
		if n < packetMost {
			return out
		}
	}
}

// eventOf is an event of a size, in a packet's payload.
func eventOf(size int) []byte {
	b := bytes.Repeat([]byte{7}, 1+size)
	b[0] = holdsEvent
	binary.LittleEndian.PutUint32(b[1+9:], uint32(size))
	return b
}

func TestStreamTakesEventsOutOfPackets(t *testing.T) {
	// -1 is the zero byte in front: events at the limits of one packet and of two.
	sizes := []int{headerSize, 300, streamBuffer, packetMost - 2, packetMost - 1, packetMost, 2*packetMost - 2, 2*packetMost - 1, 100}
	var content []byte
	number := byte(1)
	for _, n := range sizes {
		p := packets(eventOf(n), number)
		number += byte((n+1)/packetMost + 1)
		content = append(content, p...)
	}
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(content), "halves": iotest.HalfReader(bytes.NewReader(content))} {
		s := streamOf(r)
		for _, n := range sizes {
			e, err := next(s)
			if err != nil || !bytes.Equal(e, eventOf(n)[1:]) {
				t.Fatalf("%s: an event of %d bytes: %d bytes, %v", name, n, len(e), err)
			}
		}
		if _, err := next(s); !errors.Is(err, io.EOF) || len(s.buf) != streamBuffer {
			t.Errorf("%s: behind the last event: %v, a buffer of %d bytes", name, err, len(s.buf))
		}
	}
}

func TestStreamRefusesWhatIsNoEvent(t *testing.T) {
	for name, c := range map[string]struct {
		content []byte
		want    error
	}{
		"an error":              {packets([]byte{holdsError, 1, 2, 3}, 1), errSent},
		"the end":               {packets([]byte{holdsEnd, 0, 0, 0, 0}, 1), io.EOF},
		"an empty packet":       {packets(nil, 1), errPacket},
		"a short event":         {packets(eventOf(headerSize)[:headerSize], 1), errPacket},
		"an event cut short":    {packets(eventOf(100)[:90], 1), errPacket},
		"another packet":        {packets(bytes.Repeat([]byte{1}, 100), 1), errPacket},
		"a packet left out":     {packets(eventOf(100), 2), errPacket},
		"part of an event gone": {append(packets(eventOf(packetMost), 1)[:packetHead+packetMost], packets(eventOf(100), 3)...), errPacket},
		"the connection's end":  {packets(eventOf(100), 1)[:50], io.EOF},
	} {
		if e, err := next(streamOf(bytes.NewReader(c.content))); !errors.Is(err, c.want) {
			t.Errorf("%s: %d bytes, %v", name, len(e), err)
		}
	}
}

func TestDamagedEventsAreFound(t *testing.T) {
	e := event(eventOf(100)[1:]).seal(true)
	if !e.intact(true) {
		t.Error("an event with its checksum is damaged")
	}
	e[50]++
	if e.intact(true) || !e.intact(false) {
		t.Error("a damaged event is intact, or has a checksum that nobody wrote")
	}
	if e[:headerSize].intact(true) {
		t.Error("an event without room for a checksum is intact")
	}
}
