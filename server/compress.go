package server

import (
	"context"
	"net"
	"time"

	"replicator/config"
	"replicator/wire"
)

// readerCompression lists what the binlog's connection may use, the best first; nothing where it is to be plain.
func readerCompression(c config.Compression) []wire.Algorithm {
	switch c {
	case config.CompressZstd:
		return []wire.Algorithm{wire.Zstd}
	case config.CompressBest, config.CompressZlib: // of small transactions zlib leaves half, zstd most: docs/benchmarks.md
		return []wire.Algorithm{wire.Zlib}
	case config.CompressOff:
	}
	return nil
}

// Compression is how the pool's connections are compressed. The driver knows zlib alone.
func (s *Server) Compression() wire.Algorithm {
	if s.config.Compress.On() {
		return wire.Zlib
	}
	return wire.None
}

// dialCompressed refuses a server that does not offer what the configuration asks for: the driver would leave the
// connection plain and say nothing.
func (k *connector) dialCompressed(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := k.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn, err := k.agree(raw)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

func (k *connector) agree(raw net.Conn) (net.Conn, error) {
	if err := raw.SetReadDeadline(time.Now().Add(k.timeout)); err != nil {
		return nil, err
	}
	conn, greeting, err := wire.Greet(raw)
	if err != nil {
		return nil, err
	}
	if _, known := greeting.Version(); known { // the driver explains other greetings
		for _, wanted := range [][]wire.Algorithm{readerCompression(k.server.Compress), {wire.Zlib}} {
			if _, err := wire.Choose(k.server.Name, greeting, wanted); err != nil {
				return nil, err
			}
		}
	}
	return conn, raw.SetReadDeadline(time.Time{})
}
