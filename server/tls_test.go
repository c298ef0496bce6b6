package server_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/config"
	"replicator/fault"
	"replicator/sandbox"
	"replicator/server"
)

// TestTLSModes goes through the modes on a server with certificates and on one without.
func TestTLSModes(t *testing.T) {
	servers := map[sandbox.Flavor]*sandbox.Server{}
	for _, flavor := range []sandbox.Flavor{sandbox.MySQL97, sandbox.MariaDB1011} {
		options := sandbox.Options{Flavor: flavor}
		if flavor == sandbox.MariaDB1011 {
			options.Args = []string{"--skip-ssl"}
		}
		servers[flavor] = sandbox.StartTest(t, options)
	}
	for _, c := range []struct {
		flavor sandbox.Flavor
		tls    config.TLS
		cipher bool
		class  fault.Class // "" when the login succeeds
	}{
		{sandbox.MySQL97, config.TLS{Mode: config.TLSDisabled}, false, ""},
		{sandbox.MySQL97, config.TLS{Mode: config.TLSPreferred}, true, ""},
		{sandbox.MySQL97, config.TLS{Mode: config.TLSRequired}, true, ""},
		{sandbox.MySQL97, config.TLS{Mode: config.TLSVerifyCA, CA: "ca.pem"}, true, ""},
		{sandbox.MySQL97, config.TLS{Mode: config.TLSVerifyCA, CA: "client-cert.pem"}, true, fault.Login},
		{sandbox.MySQL97, config.TLS{Mode: config.TLSVerifyFull, CA: "ca.pem"}, true, fault.Login}, // the name is not in it
		{sandbox.MySQL97, config.TLS{Mode: config.TLSVerifyFull, CA: "none.pem"}, true, fault.Configuration},
		{sandbox.MySQL97, config.TLS{Mode: config.TLSRequired, Cert: "client-cert.pem", Key: "client-key.pem"}, true, ""},
		{sandbox.MariaDB1011, config.TLS{Mode: config.TLSPreferred}, false, ""},
		{sandbox.MariaDB1011, config.TLS{Mode: config.TLSRequired}, false, fault.Login},
	} {
		t.Run(string(c.flavor)+" "+string(c.tls.Mode)+" "+c.tls.CA+c.tls.Cert, func(t *testing.T) {
			s := servers[c.flavor]
			var data string
			require.NoError(t, s.DB().QueryRowContext(t.Context(), "SELECT @@datadir").Scan(&data))
			cfg := settings("s", s)
			cfg.TLS = config.TLS{Mode: c.tls.Mode, CA: inFolder(data, c.tls.CA), Cert: inFolder(data, c.tls.Cert), Key: inFolder(data, c.tls.Key)}
			srv, err := server.Open(cfg, server.Options{})
			if err == nil {
				defer func() { require.NoError(t, srv.Close()) }()
				err = srv.DB().PingContext(t.Context())
			}
			if c.class != "" {
				require.Equal(t, c.class, server.Classify(err), err)
				require.NotEmpty(t, server.Fault(err, "log in").Remedy)
				return
			}
			require.NoError(t, err)
			var name, cipher string
			require.NoError(t, srv.DB().QueryRowContext(t.Context(), "SHOW SESSION STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher))
			require.Equal(t, c.cipher, cipher != "")
			reader, err := srv.Reader(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.cipher, reader.TLS != nil)
			tail(t, srv, flavorOf(s))
		})
	}
}

func inFolder(folder, file string) string {
	if file == "" {
		return ""
	}
	return filepath.Join(folder, file)
}
