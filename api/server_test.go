package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"replicator/config"
	"replicator/fault"
	"replicator/mesh"
)

// start serves on a real socket and returns a client of it, and a function that stops the server and gives its error.
func start(t *testing.T, cfg config.HTTP, m Mesh, pass string) (client *Client, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Listen(ctx, cfg, m, sums, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stop = func() error {
		cancel()
		return <-done
	}
	cfg.Listen = s.Addr()
	client, err = NewClient(cfg, pass)
	if err != nil {
		t.Fatal(errors.Join(err, stop()))
	}
	return client, stop
}

func TestClientReadsWhatTheServerShows(t *testing.T) {
	m := &steady{status: troubled()}
	client, stop := start(t, guarded(t), m, password)
	defer func() { _ = stop() }()
	got, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var a, b strings.Builder
	if err := errors.Join(WriteText(&a, got), WriteText(&b, m.status)); err != nil {
		t.Fatal(err)
	}
	if a.String() != b.String() {
		t.Errorf("got:\n%s\nwant:\n%s", &a, &b)
	}
	if !reflect.DeepEqual(got.Links[1].Seq, m.status.Links[1].Seq) {
		t.Errorf("seq %v, want %v", got.Links[1].Seq, m.status.Links[1].Seq)
	}
	if err := client.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	if err := client.Resume(t.Context(), "west", "east"); err != nil {
		t.Error(err)
	}
	// A name with a slash must not become another path.
	err = client.Resume(t.Context(), "east/west", "resume")
	if f, ok := fault.As(err); !ok || f.Message != `there is no link from "east/west" to "resume"` {
		t.Errorf("got %v", err)
	}
	err = client.Resume(t.Context(), "fenced", "west")
	if f, ok := fault.As(err); !ok || f.Class != fault.Fenced || f.Remedy != "stop the other process" {
		t.Errorf("the fault of the process arrives as %v", err)
	}
}

func TestClientExplainsFailures(t *testing.T) {
	wantClass := func(what string, err error, class fault.Class, remedy string) {
		t.Helper()
		f, ok := fault.As(err)
		if !ok || f.Class != class || !strings.Contains(f.Remedy, remedy) {
			t.Errorf("%s: got %v, want class %s and %q", what, err, class, remedy)
		}
	}
	client, stop := start(t, guarded(t), &steady{status: healthy()}, "")
	_, err := client.Status(t.Context())
	wantClass("no password", err, fault.Login, PasswordVariable)
	if err := client.Healthy(t.Context()); err != nil {
		t.Errorf("healthz asks for a password: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	wantClass("nobody listens", client.Healthy(t.Context()), fault.Network, "replicator run")

	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	other, err := NewClient(config.HTTP{Listen: strings.TrimPrefix(stranger.URL, "http://")}, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = other.Status(t.Context())
	wantClass("another program", err, fault.Configuration, "http.listen")

	_, err = NewClient(config.HTTP{}, "")
	wantClass("switched off", err, fault.Configuration, "http.listen")
}

func TestClientDialsLoopbackWhereTheServerListensEverywhere(t *testing.T) {
	for listen, want := range map[string]string{
		":8080": "http://127.0.0.1:8080", "0.0.0.0:80": "http://127.0.0.1:80", "[::]:8080": "http://[::1]:8080",
		"localhost:1": "http://localhost:1", "192.0.2.1:9": "http://192.0.2.1:9",
	} {
		client, err := NewClient(config.HTTP{Listen: listen}, "")
		if err != nil {
			t.Fatal(err)
		}
		if client.Address() != want {
			t.Errorf("%s is asked at %s, want %s", listen, client.Address(), want)
		}
	}
}

func TestTLSAcceptsTheConfiguredCertificateOnly(t *testing.T) {
	cfg := guarded(t)
	cfg.TLS = certificate(t)
	client, stop := start(t, cfg, &steady{status: healthy()}, password)
	defer func() { _ = stop() }()
	if !strings.HasPrefix(client.Address(), "https://") {
		t.Fatalf("asked at %s", client.Address())
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Error(err)
	}
	cfg.TLS = certificate(t)
	cfg.Listen = strings.TrimPrefix(client.Address(), "https://")
	stranger, err := NewClient(cfg, password)
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Healthy(t.Context()); err == nil || !strings.Contains(err.Error(), "another certificate") {
		t.Errorf("another certificate: %v", err)
	}
	code, _, _ := request(t, "GET", "http://"+cfg.Listen+"/api/v1/status")
	if code != http.StatusBadRequest {
		t.Errorf("plain HTTP on a TLS port: %d", code)
	}
}

// certificate makes one that no authority signed and that names another host.
func certificate(t *testing.T) config.HTTPTLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub"}, DNSNames: []string{"hub.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := config.HTTPTLS{Cert: filepath.Join(t.TempDir(), "cert.pem"), Key: filepath.Join(t.TempDir(), "key.pem")}
	if err := errors.Join(
		os.WriteFile(files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return files
}

// slow answers a status request when it is told to.
type slow struct {
	steady
	asked, answer chan struct{}
}

func (s *slow) Status(ctx context.Context) mesh.Status {
	s.asked <- struct{}{}
	select {
	case <-s.answer:
	case <-ctx.Done():
	}
	return s.status
}

func TestShutdownLetsRunningRequestsFinish(t *testing.T) {
	m := &slow{steady: steady{status: healthy()}, asked: make(chan struct{}), answer: make(chan struct{})}
	client, stop := start(t, open(), m, "")
	got := make(chan error, 1)
	go func() {
		_, err := client.Status(t.Context())
		got <- err
	}()
	<-m.asked
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	host := strings.TrimPrefix(client.Address(), "http://")
	for refused := false; !refused; { // the listener closes first
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", host)
		if refused = err != nil; !refused {
			_ = connection.Close()
		}
	}
	close(m.answer)
	if err := <-got; err != nil {
		t.Errorf("a request that ran at shutdown: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func TestListenExplainsFailures(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	cfg := open()
	cfg.Listen = taken.Addr().String()
	_, err = Listen(t.Context(), cfg, &steady{}, sums, zaptest.NewLogger(t))
	if f, ok := fault.As(err); !ok || !strings.Contains(f.Text(), "in use") || !strings.Contains(f.Remedy, "http.listen") {
		t.Errorf("a taken address: %v", err)
	}
	cfg = open()
	cfg.TLS = config.HTTPTLS{Cert: certificate(t).Cert, Key: certificate(t).Key}
	_, err = Listen(t.Context(), cfg, &steady{}, sums, zaptest.NewLogger(t))
	if f, ok := fault.As(err); !ok || f.Class != fault.Configuration {
		t.Errorf("a key of another certificate: %v", err)
	}
}
