package sandbox_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"replicator/sandbox"
)

// echo answers every byte with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 1)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ping sends a byte and returns the time until it is back.
func ping(c net.Conn, within time.Duration) (time.Duration, error) {
	start := time.Now()
	if err := c.SetDeadline(start.Add(within)); err != nil {
		return 0, err
	}
	b := []byte{42}
	if _, err := c.Write(b); err != nil {
		return 0, err
	}
	_, err := c.Read(b)
	return time.Since(start), err
}

func TestProxyCutClosesAndRefuses(t *testing.T) {
	p := sandbox.ProxyTest(t, echo(t))
	c := dial(t, p.Addr())
	if _, err := ping(c, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	must(t, p.Cut())
	if _, err := ping(c, 5*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("connection through a cut: %v, want it closed", err)
	}
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial through a cut: %v, want refused", err)
	}
	must(t, p.Heal())
	if _, err := ping(dial(t, p.Addr()), 5*time.Second); err != nil {
		t.Fatalf("after heal: %v", err)
	}
}

func TestProxyBlackHoleIsSilent(t *testing.T) {
	p := sandbox.ProxyTest(t, echo(t))
	old := dial(t, p.Addr())
	if _, err := ping(old, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	must(t, p.BlackHole())
	for _, c := range []net.Conn{old, dial(t, p.Addr())} {
		if _, err := ping(c, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection in a black hole: %v, want silence", err)
		}
	}
	must(t, p.Heal())
	if _, err := ping(dial(t, p.Addr()), 5*time.Second); err != nil {
		t.Fatalf("after heal: %v", err)
	}
}

func TestProxyLatency(t *testing.T) {
	p := sandbox.ProxyTest(t, echo(t))
	c := dial(t, p.Addr())
	must(t, p.Latency(60*time.Millisecond, 0))
	if took, err := ping(c, 5*time.Second); err != nil || took < 120*time.Millisecond {
		t.Fatalf("round trip %s, %v; want 120ms", took, err)
	}
	must(t, p.Heal())
	best := time.Minute
	for range 5 {
		took, err := ping(c, 5*time.Second)
		must(t, err)
		best = min(best, took)
	}
	if best > 60*time.Millisecond {
		t.Fatalf("round trip %s after heal", best)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
