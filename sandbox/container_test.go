package sandbox_test

import (
	"context"
	"net"
	"testing"
	"time"

	"replicator/sandbox"
)

func requireDocker(t *testing.T) {
	t.Helper()
	if err := sandbox.HasDocker(t.Context()); err != nil {
		t.Skip(err)
	}
}

func TestContainerSurvivesDisconnectAndRestart(t *testing.T) {
	requireDocker(t)
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			ctx := t.Context()
			s := sandbox.StartTest(t, sandbox.Options{Flavor: flavor, Container: true})
			write(t, s, 1)
			must(t, s.Disconnect(ctx))
			if _, err := net.DialTimeout("tcp", s.Addr(), time.Second); err == nil {
				t.Fatal("a disconnected container accepts connections")
			}
			must(t, s.Reconnect(ctx))
			eventually(t, func(ctx context.Context) error { return s.DB().PingContext(ctx) })
			must(t, s.Kill())
			must(t, s.Restart(ctx))
			write(t, s, 2)
			if n := count(t, s); n != 2 {
				t.Fatalf("%d rows after a disconnect and a restart, want 2", n)
			}
			must(t, s.Pause())
			quick, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			if err := s.DB().PingContext(quick); err == nil {
				t.Fatal("a paused server answers")
			}
			must(t, s.Resume())
			eventually(t, func(ctx context.Context) error { return s.DB().PingContext(ctx) })
		})
	}
}
