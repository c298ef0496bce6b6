package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Proxy is a TCP proxy on 127.0.0.1 in front of a server, on which links can be cut and slowed. It is toxiproxy's, run
// inside this process.
type Proxy struct {
	mu     sync.Mutex
	proxy  *toxiproxy.Proxy
	addr   string
	port   *port    // stays reserved while the proxy does not listen
	toxics []string // names of those in force
}

// A toxic library logs through a global logger.
var silence = sync.OnceFunc(func() { zerolog.SetGlobalLevel(zerolog.Disabled) })

// NewProxy starts a proxy to upstream, a host:port.
func NewProxy(ctx context.Context, upstream string) (*Proxy, error) {
	silence()
	reserved, err := reservePort(ctx)
	if err != nil {
		return nil, fmt.Errorf("start proxy to %s: %w", upstream, err)
	}
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(api, upstream, "127.0.0.1:"+strconv.Itoa(reserved.number), upstream)
	if err := p.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start proxy to %s: %w", upstream, err), reserved.release())
	}
	return &Proxy{proxy: p, addr: p.Listen, port: reserved}, nil
}

// ProxyTest starts a proxy for a test and closes it at the test's end.
func ProxyTest(tb testing.TB, upstream string) *Proxy {
	tb.Helper()
	p, err := NewProxy(tb.Context(), upstream)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// Addr is where the proxy listens; it stays over Cut and Heal.
func (p *Proxy) Addr() string { return p.addr }

// Port is the port of Addr.
func (p *Proxy) Port() int {
	addr, err := net.ResolveTCPAddr("tcp", p.addr)
	if err != nil {
		return 0
	}
	return addr.Port
}

// Cut closes every connection, on both sides, and refuses new ones.
func (p *Proxy) Cut() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proxy.Stop()
	return nil
}

// BlackHole leaves connections open, accepts new ones, and delivers nothing in either direction.
func (p *Proxy) BlackHole() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.both("timeout", map[string]int64{"timeout": 0})
}

// Latency delays each direction by d, give or take jitter.
func (p *Proxy) Latency(d, jitter time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.both("latency", map[string]int64{"latency": d.Milliseconds(), "jitter": jitter.Milliseconds()})
}

// Bandwidth limits each direction to a rate in KiB per second.
func (p *Proxy) Bandwidth(rate int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.both("bandwidth", map[string]int64{"rate": rate})
}

// Heal ends everything above. Connections that were in a black hole have lost bytes, and are closed.
func (p *Proxy) Heal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, name := range p.toxics {
		if err := p.proxy.Toxics.RemoveToxic(ctx, name); err != nil {
			return fmt.Errorf("heal proxy %s: %w", p.addr, err)
		}
	}
	p.toxics = nil
	if err := p.proxy.Start(); err != nil && !errors.Is(err, toxiproxy.ErrProxyAlreadyStarted) {
		return fmt.Errorf("heal proxy %s: %w", p.addr, err)
	}
	return nil
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proxy.Stop()
	if p.port != nil {
		_ = p.port.release() // the lock ends with this process at the latest
		p.port = nil
	}
}

// both puts a toxic on both directions, once.
func (p *Proxy) both(kind string, attributes map[string]int64) error {
	for _, direction := range []string{"upstream", "downstream"} {
		name := kind + "-" + direction
		if p.proxy.Toxics.GetToxic(name) != nil {
			continue
		}
		text, err := json.Marshal(map[string]any{"name": name, "type": kind, "stream": direction, "attributes": attributes})
		if err != nil {
			return fmt.Errorf("add %s to proxy %s: %w", kind, p.addr, err)
		}
		if _, err := p.proxy.Toxics.AddToxicJson(bytes.NewReader(text)); err != nil {
			return fmt.Errorf("add %s to proxy %s: %w", kind, p.addr, err)
		}
		p.toxics = append(p.toxics, name)
	}
	return nil
}
