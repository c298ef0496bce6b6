package canal

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"replicator/change"
	"replicator/fault"
	"replicator/wire"
)

// dump is one connection that streams a binlog. It is made for one attempt: the library's own reconnecting loses tags
// of GTIDs and kills connections by numbers that may belong to others by then.
type dump struct {
	opts   *Options
	events *queue[event]

	mu      sync.Mutex
	conn    net.Conn
	closing bool
	refused error // what was found wrong with the server
	greeted bool  // the login was accepted

	compression wire.Algorithm
}

const (
	// rawBytes bounds the events between the connection and the tailer.
	rawBytes = 2 << 20
	// eventOverhead is what an event in the queue takes besides its bytes.
	eventOverhead = 256
)

// follow streams the binlog behind position into t until ctx ends, the connection or the server fails, or t does.
// listening is called when the server has begun to send.
func follow(ctx context.Context, opts *Options, replicaID uint32, position change.GTIDSet, t *tailer,
	count func(events, bytes int), listening func(wire.Algorithm),
) error {
	d := &dump{opts: opts, events: newQueue[event](rawBytes), compression: wire.None}
	stop, err := d.start(ctx, replicaID, position)
	if err != nil {
		return err
	}
	defer stop()
	var batch []event
	for first := true; ; first = false {
		if batch, err = d.events.take(ctx, batch, nil); err != nil {
			return d.explain(ctx, err)
		}
		if first {
			listening(d.compression)
		}
		bytes := 0
		for i, e := range batch {
			batch[i] = nil
			bytes += len(e)
			if err := t.read(ctx, e); err != nil {
				return err
			}
		}
		count(len(batch), bytes)
	}
}

// start connects and asks for the dump. stop ends it and waits for its goroutines.
func (d *dump) start(ctx context.Context, replicaID uint32, position change.GTIDSet) (stop func(), err error) {
	set, err := dumpPosition(position)
	if err != nil {
		return nil, err
	}
	cfg, err := d.config(ctx, replicaID)
	if err != nil {
		return nil, err
	}
	syncer := replication.NewBinlogSyncer(cfg)
	finished := make(chan struct{})
	closeAll := func() {
		d.hangUp()
		syncer.Close()
	}
	unhook := context.AfterFunc(ctx, d.hangUp)
	streamer, err := startSync(syncer, set)
	if err != nil {
		unhook()
		closeAll()
		return nil, d.explain(ctx, err)
	}
	go func() {
		defer close(finished)
		_, err := streamer.GetEvent(context.WithoutCancel(ctx)) // no event ever comes this way: only the end of the stream
		d.events.fail(err)
	}()
	return func() {
		unhook()
		closeAll()
		<-finished
	}, nil
}

// startSync guards against the library's panics on logins that it does not know.
func startSync(syncer *replication.BinlogSyncer, set mysql.GTIDSet) (s *replication.BinlogStreamer, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fault.New(fault.Login, "let the account use mysql_native_password, ed25519 or caching_sha2_password, or turn TLS on",
				"the login method of the account is not supported without TLS: %v", r)
		}
	}()
	return syncer.StartSyncGTID(set)
}

func (d *dump) config(ctx context.Context, replicaID uint32) (replication.BinlogSyncerConfig, error) {
	o := d.opts
	password, err := o.Password()
	if err != nil {
		return replication.BinlogSyncerConfig{}, fault.Wrap(err, fault.Login, "make the password readable",
			"read the password of %s on %s", o.User, o.Name)
	}
	tlsConfig := o.TLS
	if tlsConfig != nil && tlsConfig.ServerName == "" && !tlsConfig.InsecureSkipVerify {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.ServerName, _, _ = strings.Cut(o.Address, ":")
		if host, _, err := net.SplitHostPort(o.Address); err == nil {
			tlsConfig.ServerName = host
		}
	}
	host, _ := os.Hostname()
	dial := func(dialCtx context.Context, network, address string) (net.Conn, error) {
		return d.dial(ctx, dialCtx, network, address)
	}
	if len(o.Compress) > 0 {
		login := wire.Login{
			Address: o.Address, User: o.User, Password: password, TLS: tlsConfig, ReadTimeout: o.ReadTimeout,
			Attributes: map[string]string{"_client_role": "binary_log_listener"}, Dial: dial, Choose: d.choose,
		}
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return wire.Open(ctx, login) }
		tlsConfig = nil // it is in what wire opens
	}
	return replication.BinlogSyncerConfig{
		ServerID: replicaID, Flavor: flavorName(o.Flavor), Host: o.Address, User: o.User, Password: password,
		Localhost: host, RawModeEnabled: true, TLSConfig: tlsConfig, VerifyChecksum: true, DiscardGTIDSet: true,
		DisableRetrySync: true, HeartbeatPeriod: o.HeartbeatPeriod, ReadTimeout: o.ReadTimeout,
		Logger: slog.New(slog.DiscardHandler), EventCacheCount: 1, SynchronousEventHandler: d,
		Option: d.greet, Dialer: dial,
	}, nil
}

// choose takes the best compression that the server offers.
func (d *dump) choose(g wire.Greeting) (wire.Algorithm, error) {
	d.compression, d.refused = wire.Choose(d.opts.Name, g, d.opts.Compress)
	return d.compression, d.refused
}

// HandleEvent takes an event from the library's goroutine. A full queue lets the server wait, which greet has told to be
// patient.
func (d *dump) HandleEvent(e *replication.BinlogEvent) error {
	return d.events.put(event(e.RawData), int64(len(e.RawData))+eventOverhead)
}

// greet checks the server and prepares the session, before the dump is asked for.
func (d *dump) greet(c *client.Conn) error {
	d.greeted = true
	version := c.GetServerVersion()
	if isMariaDB := strings.Contains(version, "MariaDB"); isMariaDB != (d.opts.Flavor == change.MariaDB) {
		d.refused = fault.New(fault.Configuration, "correct the endpoint of the server",
			"%s (%s) is %s, but it was %s before", d.opts.Name, d.opts.Address, version, d.opts.Flavor)
		return d.refused
	}
	if _, err := c.Execute("SET SESSION net_write_timeout = 3600"); err != nil {
		return fmt.Errorf("prepare the dump session: %w", err)
	}
	return nil
}

func (d *dump) dial(ctx, dialCtx context.Context, network, address string) (net.Conn, error) {
	dialCtx, cancel := context.WithCancel(dialCtx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	d.mu.Lock()
	refused := d.closing
	d.mu.Unlock()
	if refused { // closing would open a connection to kill the old one's number, which may be another's by now
		return nil, errClosed
	}
	raw, err := d.opts.Dial(dialCtx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		_ = raw.Close()
		return nil, errClosed
	}
	d.conn = &conn{Conn: raw}
	return d.conn, nil
}

// hangUp cuts the connection and lets every blocked call return. It may be called more than once.
func (d *dump) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closing = true
	if d.conn != nil {
		_ = d.conn.Close()
	}
	d.events.close()
}

// conn spares the system call of a deadline that hardly differs from the one before: the library sets three per event.
type conn struct {
	net.Conn
	set atomic.Int64 // the deadline in force, in ns since the epoch
}

const deadlineStep = 200 * time.Millisecond

// SetReadDeadline implements net.Conn. On a closed connection it succeeds: told otherwise, the library's Close races with
// its reading goroutine, which is about to end anyway.
func (c *conn) SetReadDeadline(t time.Time) error {
	deadline := t.UnixNano()
	if ahead := deadline - c.set.Load(); ahead >= 0 && ahead < int64(deadlineStep) {
		return nil
	}
	c.set.Store(deadline)
	if err := c.Conn.SetReadDeadline(t); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// explain turns the end of a stream into a fault.
func (d *dump) explain(ctx context.Context, err error) error {
	o := d.opts
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if d.refused != nil {
		return d.refused
	}
	if _, isFault := fault.As(err); isFault {
		return err
	}
	if server, ok := errors.AsType[*mysql.MyError](err); ok {
		return explainServer(o, server, d.greeted)
	}
	_, distrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch text := err.Error(); {
	case distrusted, strings.Contains(text, "does not support TLS"):
		return fault.Wrap(err, fault.Configuration, "correct tls.mode and tls.ca, or the server's certificate",
			"no trusted connection to %s (%s)", o.Name, o.Address)
	case errors.Is(err, replication.ErrChecksumMismatch), strings.Contains(text, "checksum mismatch"):
		return fault.Wrap(err, fault.UnknownEvent, "check the disk of the server and the network between; "+copyAgain,
			"the binlog of %s is damaged", o.Name)
	case strings.Contains(text, "auth plugin"), strings.Contains(text, "authentication"):
		return fault.Wrap(err, fault.Login,
			"let the account use mysql_native_password, ed25519 or caching_sha2_password", "log in to %s as %s", o.Name, o.User)
	}
	return fault.Wrap(err, fault.Network, "look whether the server runs and can be reached; it is tried again by itself",
		"read the binlog of %s (%s)", o.Name, o.Address)
}
