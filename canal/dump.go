package canal

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
	"replicator/fault"
	"replicator/wire"
)

// dump is one connection that streams a binlog. It is made for one attempt. The library logs in; its own reading costs more
// than all the rest of a tailer, and its reconnecting loses tags of GTIDs.
type dump struct {
	opts *Options

	mu      sync.Mutex
	conn    net.Conn
	closing bool
	refused error // what was found wrong with the server
	greeted bool  // the login was accepted

	compression wire.Algorithm
}

// follow streams the binlog behind position into t until ctx ends, the connection or the server fails, or t does.
// listening is called when the server has begun to send.
func follow(ctx context.Context, opts *Options, replicaID uint32, position change.GTIDSet, t *tailer,
	count func(events, bytes int), listening func(wire.Algorithm),
) error {
	d := &dump{opts: opts, compression: wire.None}
	defer d.hangUp()
	defer context.AfterFunc(ctx, d.hangUp)()
	s, err := d.start(ctx, replicaID, position)
	if err != nil {
		return d.explain(ctx, err)
	}
	for first := true; ; {
		if err := s.fill(); err != nil {
			return d.explain(ctx, err)
		}
		t.arrived = time.Now()
		events, bytes := 0, 0
		for {
			e, err := s.take()
			if err != nil {
				return d.explain(ctx, err)
			}
			if e == nil {
				break
			}
			if first {
				first = false
				listening(d.compression)
			}
			if !e.intact(t.checksum()) {
				return fault.New(fault.UnknownEvent, "check the disk of the server and the network between; "+copyAgain,
					"the binlog of %s is damaged: the checksum of an event at %s is wrong", opts.Name, t.place)
			}
			if err := t.read(ctx, e); err != nil {
				return err
			}
			events++
			bytes += len(e)
		}
		count(events, bytes)
	}
}

// start connects and asks for the binlog behind a position.
func (d *dump) start(ctx context.Context, replicaID uint32, position change.GTIDSet) (*stream, error) {
	set, err := dumpPosition(position)
	if err != nil {
		return nil, err
	}
	c, err := d.login(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.greet(c); err != nil {
		return nil, err
	}
	r := request{conn: c, replicaID: replicaID, opts: d.opts}
	if err := r.dump(set); err != nil {
		return nil, err
	}
	// Everything that the server has sent up to the command was an answer, so the library holds nothing of what follows.
	return &stream{conn: c.Conn.Conn, timeout: d.opts.ReadTimeout, refused: c.HandleErrorPacket, number: 1}, nil
}

const loginTimeout = 10 * time.Second

func (d *dump) login(ctx context.Context) (c *client.Conn, err error) {
	o := d.opts
	password, err := o.Password()
	if err != nil {
		return nil, fault.Wrap(err, fault.Login, "make the password readable", "read the password of %s on %s", o.User, o.Name)
	}
	tlsConfig := o.TLS
	if tlsConfig != nil && tlsConfig.ServerName == "" && !tlsConfig.InsecureSkipVerify {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.ServerName, _, _ = strings.Cut(o.Address, ":")
		if host, _, err := net.SplitHostPort(o.Address); err == nil {
			tlsConfig.ServerName = host
		}
	}
	attributes := map[string]string{"_client_role": "binary_log_listener"}
	dial := d.dial
	if len(o.Compress) > 0 {
		login := wire.Login{
			Address: o.Address, User: o.User, Password: password, TLS: tlsConfig, ReadTimeout: o.ReadTimeout,
			Attributes: attributes, Dial: d.dial, Choose: d.choose,
		}
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return wire.Open(ctx, login) }
		tlsConfig = nil // it is in what wire opens
	}
	defer func() { // the library panics on logins that it does not know
		if r := recover(); r != nil {
			err = fault.New(fault.Login, "let the account use mysql_native_password, ed25519 or caching_sha2_password, or turn TLS on",
				"the login method of the account is not supported without TLS: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	return client.ConnectWithDialer(ctx, "", o.Address, o.User, password, "", dial, func(c *client.Conn) error {
		c.SetTLSConfig(tlsConfig)
		c.SetAttributes(attributes)
		c.ReadTimeout = o.ReadTimeout
		return nil
	})
}

// choose takes the best compression that the server offers.
func (d *dump) choose(g wire.Greeting) (wire.Algorithm, error) {
	d.compression, d.refused = wire.Choose(d.opts.Name, g, d.opts.Compress)
	return d.compression, d.refused
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

func (d *dump) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := d.opts.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		_ = raw.Close()
		return nil, errClosed
	}
	d.conn = raw
	return raw, nil
}

// hangUp cuts the connection and lets every blocked call return. It may be called more than once.
func (d *dump) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closing = true
	if d.conn != nil {
		_ = d.conn.Close()
	}
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
	case strings.Contains(text, "auth plugin"), strings.Contains(text, "authentication"):
		return fault.Wrap(err, fault.Login,
			"let the account use mysql_native_password, ed25519 or caching_sha2_password", "log in to %s as %s", o.Name, o.User)
	}
	return fault.Wrap(err, fault.Network, "look whether the server runs and can be reached; it is tried again by itself",
		"read the binlog of %s (%s)", o.Name, o.Address)
}
