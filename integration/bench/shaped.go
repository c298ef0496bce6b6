package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"replicator/sandbox"
)

// The link to a far site: 80 ms there and back, 20 Mbit/s each way for each connection.
const (
	farDelay     = 40 * time.Millisecond
	farBandwidth = 20_000_000 / 8 / 1024 // KiB/s
	// farTransactions are enough to see what a link carries.
	farTransactions = 10_000
)

// far is a server at the end of a long and narrow link.
type far struct {
	server   *sandbox.Server
	address  string
	compress string // the setting for its connections
}

// passage is a backlog that went over a long link.
type passage struct {
	flavor         sandbox.Flavor
	version        string
	far            string // which of the two servers
	compress       string
	count          int // transactions
	took           lap
	received, sent int64 // bytes from the far server, and to it
}

// shaped measures how compression pays on a long and narrow link: the source is far, then the target.
func shaped(ctx context.Context, f *field) (all figures, err error) {
	r, ok := f.contenders[0].(*replicator)
	if !ok {
		return all, errors.New("bug: no replicator")
	}
	defer func() { r.far = nil }()
	settings := []string{"false", "zlib", "zstd"}
	if f.flavor.MariaDB() { // it has no other
		settings = settings[:2]
	}
	for _, end := range []struct {
		name   string
		server *sandbox.Server
	}{{"source", f.source}, {"target", r.servers[0]}} {
		for _, setting := range settings {
			p := passage{flavor: f.flavor, version: f.version, far: end.name, compress: setting, count: min(f.options.events, farTransactions)}
			if err := f.pass(ctx, r, end.server, &p); err != nil {
				return all, fmt.Errorf("the %s is far, compress: %s: %w", end.name, setting, err)
			}
			all.passages = append(all.passages, p)
		}
	}
	return all, nil
}

// pass drains a new backlog over a far link.
func (f *field) pass(ctx context.Context, r *replicator, server *sandbox.Server, p *passage) error {
	if err := oltp("oltp_write_only", p.count)(ctx, f); err != nil {
		return err
	}
	mark, err := f.mark(ctx, f.source)
	if err != nil {
		return err
	}
	proxy, err := sandbox.NewProxy(ctx, server.Addr())
	if err != nil {
		return err
	}
	defer proxy.Close()
	if err := errors.Join(proxy.Latency(farDelay, 0), proxy.Bandwidth(farBandwidth)); err != nil {
		return err
	}
	m, err := newMeter(ctx, proxy.Addr())
	if err != nil {
		return err
	}
	defer m.close()
	r.far = &far{server: server, address: m.Addr().String(), compress: p.compress}
	p.took, err = timed(ctx, r, r.servers, func() error { return f.arrived(ctx, mark, r.servers...) })
	if err != nil {
		return err
	}
	p.received, p.sent = m.received.Load(), m.sent.Load()
	say("%s, the %s is far, compress: %s: %s, %.1f MB from it, %.1f MB to it", f.flavor, p.far, p.compress,
		p.took.describe(r.name(), p.count, "transactions"), float64(p.received)/1e6, float64(p.sent)/1e6)
	return f.equal(ctx, r.servers...)
}

// meter passes connections on and counts their bytes.
type meter struct {
	net.Listener
	upstream       string
	received, sent atomic.Int64
	conns          sync.WaitGroup
}

func newMeter(ctx context.Context, upstream string) (*meter, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &meter{Listener: l, upstream: upstream}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			m.conns.Go(func() { m.pass(ctx, near) })
		}
	}()
	return m, nil
}

func (m *meter) pass(ctx context.Context, near net.Conn) {
	defer near.Close()
	far, err := new(net.Dialer).DialContext(ctx, "tcp", m.upstream)
	if err != nil {
		return
	}
	defer far.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer near.Close()
		_, _ = io.Copy(near, counter{far, &m.received}) // an end is an end
	}()
	_, _ = io.Copy(far, counter{near, &m.sent})
	far.Close()
	<-back
}

// close waits for the connections, which the program has ended by then.
func (m *meter) close() {
	m.Close()
	m.conns.Wait()
}

type counter struct {
	io.Reader
	n *atomic.Int64
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}
