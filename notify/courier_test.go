package notify

import (
	"testing"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"replicator/fault"
)

// A series of failures is logged once for each reason: what stands in the log is why it fails now.
func TestFailuresAreLoggedByReason(t *testing.T) {
	core, logged := observer.New(zap.InfoLevel)
	p := &patience{backoff: backoff.NewExponentialBackOff(), log: zap.New(core)}
	fail := func(text string) { p.failed(t.Context(), "mails wait", fault.New(fault.Network, "wait", "%s", text)) }
	fail("read 127.0.0.1:40001: connection refused")
	fail("read 127.0.0.1:40002: connection refused")
	fail("the certificate is signed by an unknown authority")
	fail("the certificate is signed by an unknown authority")
	fail("read 127.0.0.1:40003: connection refused")
	p.worked("mails go")
	fail("read 127.0.0.1:40004: connection refused")
	var said []any
	for _, l := range logged.All() {
		said = append(said, l.ContextMap()["error"])
	}
	require.Equal(t, []any{
		"read 127.0.0.1:40001: connection refused", "the certificate is signed by an unknown authority",
		"read 127.0.0.1:40003: connection refused", nil, "read 127.0.0.1:40004: connection refused",
	}, said)
}
