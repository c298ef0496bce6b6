package canal_test

import (
	"crypto/tls"
	"testing"

	"replicator/fault"
	"replicator/sandbox"
)

func TestReadsOverTLS(t *testing.T) {
	on(t, sandbox.MySQL97, func(t *testing.T, s *source, db string) {
		table := makeTable(t, s, db)
		start := s.start(t)
		s.fill(t, table, 1, 3, 10)
		o := s.options(t, db)
		o.TLS = &tls.Config{InsecureSkipVerify: true}
		if got := len(local(s.mustRead(t, o, start))); got != 3 {
			t.Errorf("read %d transactions", got)
		}
		o.TLS = &tls.Config{} // the server's certificate is its own
		_, err := s.readTo(t, o, start)
		if f, ok := fault.As(err); !ok || f.Class != fault.Configuration {
			t.Errorf("a certificate that nobody vouches for: %v", err)
		}
	})
}
