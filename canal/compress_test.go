package canal_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"replicator/canal"
	"replicator/change"
	"replicator/fault"
	"replicator/wire"
)

// TestReadsOverCompressedConnections reads transactions of many sizes, one of them above what a packet holds, and counts
// what passes the network.
func TestReadsOverCompressedConnections(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		table := db + ".t"
		s.exec(t, "CREATE TABLE "+table+" (id INT PRIMARY KEY, v LONGBLOB)", "SET GLOBAL max_allowed_packet=1073741824")
		start := s.start(t)
		small := []string{}
		for i := range 300 { // more packets than a number has values, in events of 10 bytes to 90 KiB
			small = append(small, fmt.Sprintf("INSERT INTO %s VALUES (%d, REPEAT(SHA2(%d, 256), %d))", table, i, i, i*i/64))
		}
		s.exec(t, small...)
		const large = 20 << 20
		s.exec(t, fmt.Sprintf("INSERT INTO %s VALUES (300, REPEAT('abcdefgh', %d)), (301, RANDOM_BYTES(1000))", table, large/8))
		plain := local(s.mustRead(t, s.options(t, db), start))
		if len(plain) != 301 {
			t.Fatalf("read %d transactions", len(plain))
		}
		attempts := []attempt{
			{[]wire.Algorithm{wire.Zlib}, nil, wire.Zlib},
			{[]wire.Algorithm{wire.Zstd, wire.Zlib}, &tls.Config{InsecureSkipVerify: true}, best(s)},
			{[]wire.Algorithm{wire.Zstd, wire.Zlib}, nil, best(s)},
		}
		for _, a := range attempts {
			leakCheck(t)
			read, stats, passed := a.read(t, s, db, start)
			if len(read) != len(plain) {
				t.Fatalf("%v: read %d transactions", a, len(read))
			}
			for i, tx := range read {
				if !slices.Equal(flatten(t, tx), flatten(t, plain[i])) || tx.End != plain[i].End {
					t.Fatalf("%v: transaction %d differs", a, i)
				}
			}
			if stats.Compression != a.want {
				t.Errorf("%v: uses %s", a, stats.Compression)
			}
			if content := int64(large); passed > content/10 {
				t.Errorf("%v: %d bytes passed for more than %d", a, passed, content)
			}
			t.Logf("%v: %d bytes passed for %d", a, passed, stats.Bytes)
		}
	})
}

func best(s *source) wire.Algorithm {
	if s.flavor == change.MariaDB {
		return wire.Zlib
	}
	return wire.Zstd
}

// attempt is one way to read a binlog.
type attempt struct {
	compress []wire.Algorithm
	tls      *tls.Config
	want     wire.Algorithm
}

func (a attempt) String() string { return fmt.Sprintf("%v, TLS %t", a.compress, a.tls != nil) }

func (a attempt) read(t *testing.T, s *source, db string, start canal.Start) ([]*change.Transaction, canal.Stats, int64) {
	t.Helper()
	var passed atomic.Int64
	o := s.options(t, db)
	o.Compress, o.TLS = a.compress, a.tls
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return counted{c, &passed}, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	end, feed, h := s.end(t), newRecorder(), canal.NewHub(o)
	failed := make(chan error, 1)
	go func() {
		defer cancel()
		failed <- h.Run(ctx, start, feed)
	}()
	if feed.until(ctx, func() bool { return feed.reached.Compare(end) >= 0 }) != nil {
		t.Fatalf("%v: %v", a, <-failed)
	}
	cancel()
	<-failed
	return local(feed.txs), h.Stats(), passed.Load()
}

type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// TestRefusesCompressionThatIsNotOffered asks servers for what they do not have.
func TestRefusesCompressionThatIsNotOffered(t *testing.T) {
	onEach(t, func(t *testing.T, s *source, db string) {
		o := s.options(t, db)
		o.Compress = []wire.Algorithm{wire.Zstd}
		want := "set servers." + s.Name() + ".compress to true, zlib or false"
		if s.flavor == change.MySQL {
			defer s.exec(t, "SET GLOBAL protocol_compression_algorithms=DEFAULT")
			s.exec(t, "SET GLOBAL protocol_compression_algorithms='uncompressed'")
			want = "add zstd to protocol_compression_algorithms on the server, or change servers." + s.Name() + ".compress"
		}
		start := s.start(t)
		s.exec(t, "CREATE DATABASE "+db+"_later")
		_, err := s.readTo(t, o, start)
		f, ok := fault.As(err)
		if !ok || f.Class != fault.Configuration || !strings.Contains(f.Error(), s.Name()) || !strings.Contains(f.Remedy, want) {
			t.Errorf("%v", err)
		}
		o.Compress = nil
		s.mustRead(t, o, start)
	})
}
