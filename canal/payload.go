package canal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Fields of a TRANSACTION_PAYLOAD event: type, length and value, the numbers length-encoded, until the end mark; behind
// it the payload. Source: MySQL, libs/mysql/binlog/event/codecs.
const (
	payloadEnd = iota
	payloadSize
	payloadCompression
	payloadUncompressed
)

const (
	compressionZstd = 0
	compressionNone = 255

	// zstdWindow is what the highest level of zstd uses.
	zstdWindow = 128 << 20
)

var errPayload = errors.New("the compressed transaction is malformed")

// payload reads the events inside a compressed transaction.
type payload struct {
	decoder *zstd.Decoder
}

// each decompresses a payload event by event and calls f with each. They come without a CRC32; where the format of the
// stream has one they get it, so that one format describes them all.
func (p *payload) each(body []byte, checksum bool, f func(event) error) error {
	compression, size, content, err := payloadFields(body)
	if err != nil {
		return err
	}
	var in io.Reader = bytes.NewReader(content)
	switch compression {
	case compressionNone:
	case compressionZstd:
		if in, err = p.reset(in); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: compression %d is not known", errPayload, compression)
	}
	read := uint64(0)
	for {
		e, err := nextInner(in, checksum)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		read += uint64(len(e))
		if err := f(e); err != nil {
			return err
		}
	}
	if size > 0 && read < size {
		return fmt.Errorf("%w: %d of %d bytes", errPayload, read, size)
	}
	return nil
}

func (p *payload) reset(in io.Reader) (io.Reader, error) {
	if p.decoder == nil {
		decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, fmt.Errorf("prepare to decompress: %w", err)
		}
		p.decoder = decoder
	}
	if err := p.decoder.Reset(in); err != nil {
		return nil, fmt.Errorf("decompress a transaction: %w", err)
	}
	return p.decoder, nil
}

func (p *payload) close() {
	if p.decoder != nil {
		p.decoder.Close()
	}
}

// nextInner reads one event; io.EOF when there is none.
func nextInner(in io.Reader, checksum bool) (event, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("%w: %w", errPayload, err)
	}
	size := int(binary.LittleEndian.Uint32(head[9:]))
	if size < headerSize || size > maxEvent {
		return nil, fmt.Errorf("%w: an event of %d bytes", errPayload, size)
	}
	full := size
	if checksum {
		full += checksumSize
	}
	e := make(event, full)
	copy(e, head[:])
	if _, err := io.ReadFull(in, e[headerSize:size]); err != nil {
		return nil, fmt.Errorf("%w: %w", errPayload, err)
	}
	return e.seal(checksum), nil
}

func payloadFields(body []byte) (compression, size uint64, content []byte, err error) {
	number := func() uint64 {
		n, used := lengthEncoded(body)
		if used == 0 {
			err = errPayload
		}
		body = body[used:]
		return n
	}
	for err == nil {
		kind := number()
		if kind == payloadEnd {
			return compression, size, body, err
		}
		length := number()
		if err != nil || length > uint64(len(body)) {
			return 0, 0, nil, errPayload
		}
		rest := body[length:]
		switch kind {
		case payloadCompression:
			compression = number()
		case payloadUncompressed:
			size = number()
		}
		body = rest
	}
	return 0, 0, nil, err
}
