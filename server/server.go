// Package server is one MySQL or MariaDB server: how to reach it, what it is, what it can do, what is wrong with it, and
// what its errors mean. Differences between the flavors end here: nobody else but the binlog reader asks for the flavor.
package server

import (
	"context"
	"crypto/tls"
	"database/sql"
	"net"
	"time"

	"go.uber.org/zap"

	"replicator/config"
	"replicator/wire"
)

// DialTimeout bounds connecting to an endpoint, login included, where Options do not say otherwise.
const DialTimeout = 10 * time.Second

// Options are what the configuration of a server does not say.
type Options struct {
	// Connections is the greatest number of pooled connections; 0 is 16.
	Connections int
	// Timeout bounds one attempt to connect to one endpoint, login included; 0 is DialTimeout.
	Timeout time.Duration
	Logger  *zap.Logger // nil logs nothing
}

// Server is a pool of connections to one server. It is safe for concurrent use.
//
// Sessions speak utf8mb4, their time zone is UTC, their isolation READ COMMITTED, their sql_mode strict but for invalid and
// zero dates; an UPDATE counts the rows that it found. Dates and times arrive as text. Arguments are sent through prepared
// statements, never put into the SQL text: the binary protocol returns FLOAT exactly, and no quoting is involved.
type Server struct {
	Name string

	pool        *sql.DB
	connections int // that the pool may keep
	connector   *connector
	config      *config.Server
}

// Open makes the pool. It does not connect yet; an error means that the TLS files cannot be used. Close ends it.
func Open(c *config.Server, o Options) (*Server, error) {
	if o.Connections == 0 {
		o.Connections = 16
	}
	if o.Timeout == 0 {
		o.Timeout = DialTimeout
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	connector, err := newConnector(c, &c.Account, o)
	if err != nil {
		return nil, err
	}
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(o.Connections)
	pool.SetMaxIdleConns(o.Connections)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	return &Server{Name: c.Name, pool: pool, connections: o.Connections, connector: connector, config: c}, nil
}

// DB is the pool of the applier's account.
func (s *Server) DB() *sql.DB { return s.pool }

// Endpoint is the address that the newest connection reached, the first configured one before that.
func (s *Server) Endpoint() string { return s.connector.endpoint() }

// Renew ends the connections that nobody uses: sessions keep the privileges they had when they began.
func (s *Server) Renew() {
	s.pool.SetMaxIdleConns(0)
	s.pool.SetMaxIdleConns(s.connections)
}

// Close ends the pool.
func (s *Server) Close() error { return s.pool.Close() }

// Reader is what a binlog reader logs in with.
type Reader struct {
	Host     string
	Port     uint16
	User     string
	Password string
	TLS      *tls.Config // nil: plain text
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	Compress []wire.Algorithm // that the connection may use, the best first; nil: none
}

// Reader returns the reader's account, its password read anew, at the endpoint that the pool reached last. Where the
// mode is preferred, TLS is used if encrypted says that the pool's connections are.
func (s *Server) Reader(ctx context.Context) (Reader, error) {
	address, err := splitAddress(s.Endpoint())
	if err != nil {
		return Reader{}, err
	}
	password, err := s.config.Reader.Password()
	if err != nil {
		return Reader{}, Fault(err, "log in to "+s.Name)
	}
	r := Reader{
		Host: address.host, Port: address.port, User: s.config.Reader.User, Password: password,
		Dial: s.connector.dial, Compress: readerCompression(s.config.Compress),
	}
	switch s.config.TLS.Mode {
	case config.TLSDisabled:
		return r, nil
	case config.TLSPreferred:
		encrypted, err := isEncrypted(ctx, s.pool)
		if err != nil || !encrypted {
			return r, err
		}
	case config.TLSRequired, config.TLSVerifyCA, config.TLSVerifyFull:
	}
	r.TLS, err = tlsConfig(s.config.TLS, address.host)
	return r, err
}

// isEncrypted asks whether connections of the pool use TLS, which the binlog reader's library cannot negotiate itself.
func isEncrypted(ctx context.Context, q Querier) (bool, error) {
	var name, cipher string
	if err := q.QueryRowContext(ctx, "SHOW SESSION STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher); err != nil {
		return false, Fault(err, "ask for the connection's cipher")
	}
	return cipher != "", nil
}

// OpenReader makes a pool that logs in with the reader's account, for checks of that account.
func (s *Server) OpenReader(o Options) (*sql.DB, error) {
	if o.Timeout == 0 {
		o.Timeout = DialTimeout
	}
	connector, err := newConnector(s.config, s.config.Reader, o)
	if err != nil {
		return nil, err
	}
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(2)
	return pool, nil
}

// Querier is a pool, a connection or a transaction.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}
