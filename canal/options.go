package canal

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/image"
	"replicator/wire"
)

// Options say which server a Hub reads and how. The zero value of a field marked optional means its default.
type Options struct {
	Name     string                 // of the server, for messages
	Address  string                 // host:port
	User     string                 // needs REPLICATION SLAVE and nothing else
	Password func() (string, error) // asked before every connection, so that a rotated password is found
	TLS      *tls.Config            // nil: no encryption. ServerName is set from Address when it is empty
	Flavor   change.Flavor
	// Identity is the server's replicator.identity: the origin of what is committed there. The reading ends where it has
	// another one; zero reads on.
	Identity change.ServerID
	// Match tells the replicated tables. It is never asked about the replicator schema. It must be pure.
	Match func(change.TableName) bool
	// Times says where the application gives the time of its changes. Optional: nowhere.
	Times Times
	// Weigher computes the sort weights of string keys. The server that is read is the one to ask.
	Weigher image.Weigher
	Logger  *zap.Logger

	// ReplicaID is the server_id that the shared reader announces. Optional: random. Readers of their own that a
	// subscription needs announce random ones, because MariaDB ends the older of two with the same number.
	ReplicaID uint32
	// StateDir is where a transaction above SpoolBytes is written. Its files have no name: the system frees them when
	// the process ends, however it ends.
	StateDir   string
	SpoolBytes int64 // optional: 4 MiB
	RingBytes  int64 // optional: 32 MiB; memory for recent transactions that subscriptions share
	// MaxClockSkew stops the reader at a transaction that was committed further in the future than this, by the clock of
	// this process; and bounds how far an origin's commit time may stand above the server's own. Optional: unbounded.
	MaxClockSkew    time.Duration
	HeartbeatPeriod time.Duration // optional: 1 s
	ReadTimeout     time.Duration // optional: 5 s, with compression 20 s; at least three heartbeats
	// Grace is how long a subscription waits for the shared reader before it opens a connection of its own.
	Grace time.Duration // optional: 3 s
	// Compress lists how the connection may be compressed, the best first; the server has to offer one. Optional: it is not.
	Compress []wire.Algorithm
	// Dial opens connections. Optional: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const heartbeatsPerTimeout = 3

func (o Options) withDefaults() Options {
	if o.SpoolBytes == 0 {
		o.SpoolBytes = 4 << 20
	}
	if o.RingBytes == 0 {
		o.RingBytes = 32 << 20
	}
	if o.HeartbeatPeriod == 0 {
		o.HeartbeatPeriod = time.Second
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = 5 * time.Second
		if len(o.Compress) > 0 { // a server is silent while it compresses 16 MiB, at any speed it may have
			o.ReadTimeout = 20 * time.Second
		}
	}
	o.ReadTimeout = max(o.ReadTimeout, heartbeatsPerTimeout*o.HeartbeatPeriod)
	if o.Grace == 0 {
		o.Grace = 3 * time.Second
	}
	if o.ReplicaID == 0 {
		o.ReplicaID = randomReplicaID()
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return o
}

// randomReplicaID draws from the upper half of the numbers: people give their servers small ones.
func randomReplicaID() uint32 { return 1<<31 | rand.Uint32N(1<<31-1) }
