// Package api is the HTTP side of the process: health, readiness, metrics, status and the few things an operator may ask
// of it; and the client that the command line uses for them.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
	"replicator/journal"
	"replicator/mesh"
)

// Mesh is what the server shows and steers.
type Mesh interface {
	// Status is the state now. It returns what it has when the context ends.
	Status(ctx context.Context) mesh.Status
	// Resume has a stopped or waiting link tried again at once. A link that is not configured, or not run by this
	// process, is a *fault.Error of class configuration.
	Resume(from, to string) error
	// Journals are the journals of all servers; those that cannot be asked say why.
	Journals() []journal.Server
}

const (
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	statusTimeout = 10 * time.Second
	drainTimeout  = 3 * time.Second // running requests at shutdown; the process has ten seconds for everything
	maxHeader     = 32 << 10
)

// Server answers HTTP requests about one mesh.
type Server struct {
	http     *http.Server
	listener net.Listener
	log      *zap.Logger
}

// Listen binds the configured address; added is as Handler takes it. The server answers when Serve runs; a caller that does not call Serve closes it.
func Listen(ctx context.Context, cfg config.HTTP, m Mesh, added func(change.TableName) []string, log *zap.Logger) (*Server, error) {
	const remedy = "set http.listen to a free address of this machine, or to \"\" to switch HTTP off"
	handler, err := Handler(cfg, m, added)
	if err != nil {
		return nil, err
	}
	s := &Server{log: log.Named("http")}
	errorLog, err := zap.NewStdLogAt(s.log, zap.WarnLevel)
	if err != nil {
		return nil, fmt.Errorf("bug: make HTTP error log: %w", err)
	}
	s.http = &http.Server{
		Handler: handler, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: errorLog,
	}
	if cfg.TLS.Cert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key)
		if err != nil {
			return nil, fault.Wrap(err, fault.Configuration, "give http.tls a PEM certificate and its key", "load http.tls")
		}
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, remedy, "listen for HTTP")
	}
	return s, nil
}

// Addr is the bound address, host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close gives the address back without having served.
func (s *Server) Close() error { return s.listener.Close() }

// Serve answers requests until the context ends, lets running ones finish for a few seconds, and returns nil then.
func (s *Server) Serve(ctx context.Context) error {
	s.log.Info("listening", zap.String("address", s.Addr()), zap.Bool("tls", s.http.TLSConfig != nil))
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if s.http.Shutdown(limit) != nil {
			_ = s.http.Close() // what still runs after that is cut off
		}
	})
	err := s.serve()
	if !stop() {
		<-drained
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fault.Wrap(err, fault.Unavailable, "look at the cause; the process has to be started again", "serve HTTP")
}

func (s *Server) serve() error {
	if s.http.TLSConfig != nil {
		return s.http.ServeTLS(s.listener, "", "")
	}
	return s.http.Serve(s.listener)
}
