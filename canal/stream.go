package canal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// stream takes the events out of what a server sends when it was asked for its binlog: packets, numbered one after the
// other, each of which holds an event or says that there are no more. An event of 16 MiB or more takes several.
//
// Events are views of one buffer: millions of small ones leave no garbage behind.
type stream struct {
	conn    net.Conn
	timeout time.Duration             // of a read
	refused func(packet []byte) error // reads a packet that holds an error
	number  byte                      // of the next packet

	buf        []byte
	begin, end int // of what has been read and not been taken
	want       int // bytes of the event at begin, with its heads, as far as that is known
}

const (
	streamBuffer = 64 << 10

	packetHead = 4 // length, number
	packetMost = 1<<24 - 1

	// What the first byte of a packet says.
	holdsEvent = 0x00
	holdsError = 0xff
	holdsEnd   = 0xfe
)

var errPacket = errors.New("the server sends something else than a binlog")

// fill waits until the server has sent something. The events that take returned before are not valid any more.
func (s *stream) fill() error {
	room := s.buf
	if size := max(streamBuffer, s.want); size > len(room) || len(room) > streamBuffer && size == streamBuffer {
		room = make([]byte, size)
	}
	if s.begin > 0 || len(room) != len(s.buf) { // part of a large event stays where it is
		s.end = copy(room, s.buf[s.begin:s.end])
		s.buf, s.begin = room, 0
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	n, err := s.conn.Read(s.buf[s.end:])
	s.end += n
	if n > 0 {
		return nil
	}
	return err
}

// take returns the next event, nil when it has not been read to its end.
func (s *stream) take() (event, error) {
	rest := s.buf[s.begin:s.end]
	if s.want = packetHead; len(rest) < s.want {
		return nil, nil
	}
	if s.want += packetLength(rest); s.want == packetHead+packetMost {
		if len(rest) < packetHead+1+headerSize {
			return nil, nil
		}
		size := int(binary.LittleEndian.Uint32(rest[packetHead+1+9:])) + 1
		if size < packetMost || size > 2*maxEvent {
			return nil, fmt.Errorf("an event of %d bytes: %w", size, errPacket)
		}
		s.want = size + (size/packetMost+1)*packetHead
	}
	if len(rest) < s.want {
		return nil, nil
	}
	s.begin += s.want
	payload, err := s.join(rest[:s.want])
	s.want = 0
	switch {
	case err != nil:
		return nil, err
	case len(payload) > headerSize && payload[0] == holdsEvent:
		e := event(payload[1:])
		if int(binary.LittleEndian.Uint32(e[9:])) != len(e) {
			return nil, fmt.Errorf("an event has %d bytes, but says otherwise: %w", len(e), errPacket)
		}
		return e, nil
	case len(payload) > 2 && payload[0] == holdsError:
		return nil, s.refused(payload)
	case len(payload) > 0 && payload[0] == holdsEnd:
		return nil, io.EOF
	}
	return nil, errPacket
}

// join returns what is in packets, and moves it together where there are several.
func (s *stream) join(packets []byte) ([]byte, error) {
	var payload []byte
	for len(packets) > 0 {
		n := packetLength(packets)
		if packets[3] != s.number || len(packets) < packetHead+n || n < packetMost && len(packets) != packetHead+n {
			return nil, fmt.Errorf("packet %d of %d bytes where number %d was to come: %w", packets[3], n, s.number, errPacket)
		}
		s.number++
		if payload == nil { // it stays where it is
			payload = packets[packetHead : packetHead+n]
		} else {
			payload = append(payload, packets[packetHead:packetHead+n]...)
		}
		packets = packets[packetHead+n:]
	}
	return payload, nil
}

func packetLength(head []byte) int { return int(head[0]) | int(head[1])<<8 | int(head[2])<<16 }
