package server_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/config"
	"replicator/fault"
	"replicator/sandbox"
	"replicator/server"
	"replicator/wire"
)

// TestCompressedSessions asks the servers what the connections of a pool use, and sends more than a packet holds.
func TestCompressedSessions(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		exec(t, s.DB(), "SET GLOBAL max_allowed_packet=1073741824", "CREATE DATABASE app", "CREATE TABLE app.t (id INT PRIMARY KEY, v LONGBLOB)")
		for i, setting := range []config.Compression{config.CompressZlib, config.CompressBest} {
			c := settings("far", s)
			c.Compress = setting
			srv := open(t, c)
			require.Equal(t, wire.Zlib, srv.Compression())
			require.Equal(t, "ON", status(t, srv, "Compression"))
			if !s.Flavor().MariaDB() {
				require.Equal(t, "zlib", status(t, srv, "Compression_algorithm"))
			}
			value := bytes.Repeat([]byte("0123456789abcdef"), (20<<20)/16)
			_, err := srv.DB().ExecContext(t.Context(), "INSERT INTO app.t VALUES (?, ?)", i, value)
			require.NoError(t, err)
			var back []byte
			require.NoError(t, srv.DB().QueryRowContext(t.Context(), "SELECT v FROM app.t WHERE id = ?", i).Scan(&back))
			require.True(t, bytes.Equal(value, back))
			reader, err := srv.Reader(t.Context())
			require.NoError(t, err)
			require.NotEmpty(t, reader.Compress)
		}
		plain := open(t, settings("near", s))
		require.Equal(t, "OFF", status(t, plain, "Compression"))
		require.Equal(t, wire.None, plain.Compression())
	})
}

func status(t *testing.T, s *server.Server, name string) (value string) {
	t.Helper()
	require.NoError(t, s.DB().QueryRowContext(t.Context(), "SHOW SESSION STATUS LIKE '"+name+"'").Scan(&name, &value))
	return value
}

// TestCompressionThatIsNotOffered looks at the remedy for each server, and at that of a server which insists on compression.
func TestCompressionThatIsNotOffered(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *sandbox.Server) {
		try := func(setting config.Compression) *fault.Error {
			c := settings("far", s)
			c.Compress = setting
			err := open(t, c).DB().PingContext(context.WithoutCancel(t.Context()))
			if err == nil {
				return nil
			}
			return server.Fault(err, "log in")
		}
		if s.Flavor().MariaDB() {
			f := try(config.CompressZstd)
			require.NotNil(t, f)
			require.Equal(t, fault.Configuration, f.Class, f)
			require.Contains(t, f.Error(), "far (")
			require.Contains(t, f.Remedy, "set servers.far.compress to true, zlib or false")
			require.Nil(t, try(config.CompressBest))
			return
		}
		for _, c := range []struct {
			offered string
			setting config.Compression
			remedy  string // "" when it is fine
		}{
			{"uncompressed", config.CompressZlib, "add zlib to protocol_compression_algorithms"},
			{"uncompressed", config.CompressBest, "add zlib to protocol_compression_algorithms"},
			{"uncompressed", config.CompressZstd, "add zstd to protocol_compression_algorithms"},
			{"zstd,uncompressed", config.CompressZstd, "add zlib to protocol_compression_algorithms"},
			{"zlib,uncompressed", config.CompressZstd, "add zstd to protocol_compression_algorithms"},
			{"zlib,uncompressed", config.CompressBest, ""},
			{"zlib,zstd", config.CompressBest, ""},
			{"zlib,zstd", config.CompressOff, "to what its protocol_compression_algorithms lists"},
		} {
			exec(t, s.DB(), "SET GLOBAL protocol_compression_algorithms='"+c.offered+"'")
			f := try(c.setting)
			if c.remedy == "" {
				require.Nil(t, f, c)
				continue
			}
			require.NotNil(t, f, c)
			require.Equal(t, fault.Configuration, f.Class, f)
			require.True(t, strings.Contains(f.Remedy, c.remedy), "%v: %s", c, f)
		}
	})
}
