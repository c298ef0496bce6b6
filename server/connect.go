package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	"go.uber.org/zap"

	"replicator/config"
	"replicator/fault"
)

// sqlMode takes every value that a source may hold (zero and invalid dates, an explicit 0 in an AUTO_INCREMENT column) and
// refuses what would be changed on the way.
const sqlMode = "'STRICT_TRANS_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"

// connector opens sessions on the first endpoint that answers.
type connector struct {
	server  *config.Server
	account *config.Account
	timeout time.Duration
	logger  *zap.Logger
	tls     []*tls.Config // of each endpoint; nil entries: plain text
	last    atomic.Int32  // index of the endpoint that answered last
}

func newConnector(c *config.Server, account *config.Account, o Options) (*connector, error) {
	k := &connector{server: c, account: account, timeout: o.Timeout, logger: o.Logger}
	for _, endpoint := range c.Endpoints {
		address, err := splitAddress(endpoint)
		if err != nil {
			return nil, err
		}
		var t *tls.Config
		if c.TLS.Mode != config.TLSDisabled {
			if t, err = tlsConfig(c.TLS, address.host); err != nil {
				return nil, err
			}
		}
		k.tls = append(k.tls, t)
	}
	return k, nil
}

func (k *connector) endpoint() string { return k.server.Endpoints[k.last.Load()] }

// Driver implements driver.Connector.
func (k *connector) Driver() driver.Driver { return &mysql.MySQLDriver{} }

// Connect implements driver.Connector. It tries the endpoints in order; one that answers but refuses ends the search,
// since all of them are one server. The password is read each time, so that a rotated one is met by itself.
func (k *connector) Connect(ctx context.Context) (driver.Conn, error) {
	password, err := k.account.Password()
	if err != nil {
		return nil, fault.Wrap(err, fault.Login, "put the account's password into password_file", "log in to %s", k.server.Name)
	}
	var failed error
	for i := range k.server.Endpoints {
		conn, err := k.connect(ctx, i, password)
		if err == nil {
			if k.last.Swap(int32(i)) != int32(i) && k.logger != nil {
				k.logger.Info("endpoint changed", zap.String("server", k.server.Name),
					zap.String("endpoint", k.server.Endpoints[i]))
			}
			return conn, nil
		}
		failed = both(failed, fmt.Errorf("connect to %s: %w", k.server.Endpoints[i], err))
		if class := Classify(err); class != fault.Network && class != fault.Unavailable || ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// both keeps two errors in one line.
func both(first, second error) error {
	if first == nil {
		return second
	}
	return fmt.Errorf("%w; %w", first, second)
}

// brokeEarly is what the driver says when nothing could be sent at all, and does not export
// (https://github.com/go-sql-driver/mysql/blob/v1.10.1/errors.go, errBadConnNoWrite).
const brokeEarly = "bad connection"

func (k *connector) connect(ctx context.Context, i int, password string) (driver.Conn, error) {
	// The timeout covers the handshake too: a paused server accepts connections and then stays silent.
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	settings, err := k.driverConfig(i, password)
	if err != nil {
		return nil, err
	}
	base, err := mysql.NewConnector(settings)
	if err != nil {
		return nil, err
	}
	conn, err := base.Connect(ctx)
	if err != nil && err.Error() == brokeEarly {
		err = fmt.Errorf("the connection broke while logging in: %w", mysql.ErrInvalidConn)
	}
	if err != nil {
		return nil, err
	}
	// The name of the variable differs between the flavors, the statement does not.
	_, err = conn.(driver.ExecerContext).ExecContext(ctx,
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE", nil)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (k *connector) driverConfig(i int, password string) (*mysql.Config, error) {
	c := mysql.NewConfig()
	c.User, c.Passwd = k.account.User, password
	c.Net, c.Addr = "tcp", k.server.Endpoints[i]
	c.TLS = k.tls[i]
	c.AllowFallbackToPlaintext = k.server.TLS.Mode == config.TLSPreferred
	c.ClientFoundRows = true
	c.MaxAllowedPacket = 0 // the server's own: what it would refuse fails here with a clear error
	c.ConnectionAttributes = "program_name:replicator"
	c.DialFunc = k.dial
	if k.server.Compress.On() {
		c.DialFunc = k.dialCompressed
		if err := c.Apply(mysql.EnableCompression(true)); err != nil {
			return nil, err
		}
	}
	c.Logger = driverLog{k.logger}
	c.Params = map[string]string{
		"time_zone": "'+00:00'", "sql_mode": sqlMode, "unique_checks": "1", "autocommit": "1",
	}
	return c, nil
}

// dial opens a TCP connection that notices a dead peer within half a minute, idle or not.
func (k *connector) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout:         k.timeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control:         limitUnacknowledged,
	}
	return dialer.DialContext(ctx, network, address)
}

// driverLog takes the driver's few own messages, which all accompany an error that it returns.
type driverLog struct{ *zap.Logger }

func (l driverLog) Print(v ...any) {
	if l.Logger != nil {
		l.Debug(fmt.Sprint(v...))
	}
}

type address struct {
	host string
	port uint16
}

func splitAddress(endpoint string) (address, error) {
	host, text, err := net.SplitHostPort(endpoint)
	if err != nil {
		return address{}, fmt.Errorf("bug: endpoint %q: %w", endpoint, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return address{}, fmt.Errorf("bug: endpoint %q: %w", endpoint, err)
	}
	return address{host, uint16(port)}, nil
}

// tlsConfig maps the modes of MySQL's own clients: only verify-ca and verify-full look at the certificate, only
// verify-full at the name in it.
func tlsConfig(t config.TLS, host string) (*tls.Config, error) {
	const remedy = "correct the files that the server's tls section names"
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fault.Wrap(err, fault.Configuration, remedy, "load client certificate")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if t.CA != "" {
		raw, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fault.Wrap(err, fault.Configuration, remedy, "load certificate authority")
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fault.New(fault.Configuration, remedy, "%s holds no PEM certificate", t.CA)
		}
	}
	switch t.Mode {
	case config.TLSDisabled, config.TLSVerifyFull:
	case config.TLSPreferred, config.TLSRequired:
		c.InsecureSkipVerify = true // the documented meaning of these modes: encrypted, not authenticated
	case config.TLSVerifyCA:
		c.InsecureSkipVerify = true // replaced by a check of the chain alone
		c.VerifyConnection = verifyChain(c.RootCAs)
	}
	return c, nil
}

func verifyChain(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		intermediates := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			intermediates.AddCert(c)
		}
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
		return err
	}
}
