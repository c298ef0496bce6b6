// Package notifytest is a real mail server for tests, in the test's own process.
package notifytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"

	"replicator/config"
)

// Password is that of the account replicator.
const Password = "correct horse battery staple"

// Office is a mail server that keeps what it gets. It takes mails from those who log in over TLS.
type Office struct {
	address string
	ca      string
	mode    string
	pair    tls.Certificate
	server  *smtp.Server

	mu     sync.Mutex
	mails  []Mail
	replyR map[string]*smtp.SMTPError // to RCPT TO
	onData func() error
	after  func()
	logins int
}

// Mail is one that was accepted.
type Mail struct {
	To     string
	At     time.Time
	Header mail.Header
	Body   string
	Raw    string
}

// ID is its Message-ID.
func (r Mail) ID() string { return r.Header.Get("Message-Id") }

var totalOf = regexp.MustCompile(`(?m)^(\d+) times two changes`)

// Total is how many conflicts a mail is about.
func (r Mail) Total() int {
	if m := totalOf.FindStringSubmatch(r.Body); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 1
}

// New makes a mail server; Listen starts it.
func New(t testing.TB, mode string) *Office {
	t.Helper()
	p, l := build(t, mode)
	require.NoError(t, l.Close())
	return p
}

// Open starts a mail server.
func Open(t testing.TB, mode string) *Office {
	t.Helper()
	p, l := build(t, mode)
	p.serve(t, l)
	return p
}

// build makes a mail server, and listens at its address.
func build(t testing.TB, mode string) (*Office, net.Listener) {
	t.Helper()
	p := &Office{mode: mode, ca: filepath.Join(t.TempDir(), "ca.pem"), replyR: map[string]*smtp.SMTPError{}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "post office"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(p.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	p.pair = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.address = l.Addr().String()
	return p, l
}

// Listen has it take mails from now on.
func (p *Office) Listen(t testing.TB) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", p.address)
	require.NoError(t, err)
	p.serve(t, l)
}

func (p *Office) serve(t testing.TB, l net.Listener) {
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &counter{office: p, conn: c}, nil }))
	s.Domain, s.TLSConfig = "localhost", &tls.Config{Certificates: []tls.Certificate{p.pair}}
	s.ErrorLog = log.New(io.Discard, "", 0)
	if p.mode == config.SMTPImplicit {
		l = tls.NewListener(l, s.TLSConfig)
	}
	p.server = s
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { // a server that has not begun to serve yet does not know what it listens to
		_, _ = s.Close(), l.Close() // the second fails where the first has closed the listener
		<-done
	})
}

// Settings is how a mailer reaches it.
func (p *Office) Settings() config.SMTP {
	return config.SMTP{
		Address: p.address, From: "Replicator <replicator@example.org>", Username: "replicator", Password: config.NewSecret(Password),
		TLS: p.mode, CA: p.ca,
	}
}

// All is what was accepted.
func (p *Office) All() []Mail {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mails)
}

// To is what an address got.
func (p *Office) To(address string) []Mail {
	return slices.DeleteFunc(p.All(), func(r Mail) bool { return r.To != address })
}

// Counted is how many conflicts an address has been told of.
func (p *Office) Counted(address string) int {
	n := 0
	for _, m := range p.To(address) {
		n += m.Total()
	}
	return n
}

// Refuse answers an address with an error from now on; 0 ends it.
func (p *Office) Refuse(address string, code int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if code == 0 {
		delete(p.replyR, address)
		return
	}
	p.replyR[address] = &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "no such person here"}
}

// OnData has f called when a whole mail is there, before it is accepted. It is not when f returns an error.
func (p *Office) OnData(f func() error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onData = f
}

// AfterAnswer has f called when a mail has been accepted and its sender knows: the server hears nothing of what the sender
// says next before f returns.
func (p *Office) AfterAnswer(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = f
}

// Logins is how many sessions logged in.
func (p *Office) Logins() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logins
}

// WithoutTLS has the server offer no encryption.
func (p *Office) WithoutTLS() { p.server.TLSConfig = nil }

// counter is one session.
type counter struct {
	office *Office
	conn   *smtp.Conn
	known  bool
	to     string
	took   bool // a mail, and has just answered so
}

func (c *counter) AuthMechanisms() []string { return []string{sasl.Plain} }

func (c *counter) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "replicator" || password != Password {
			return smtp.ErrAuthFailed
		}
		c.known = true
		c.office.mu.Lock()
		defer c.office.mu.Unlock()
		c.office.logins++
		return nil
	}), nil
}

func (c *counter) Mail(string, *smtp.MailOptions) error {
	if !c.known {
		return smtp.ErrAuthRequired
	}
	return nil
}

func (c *counter) Rcpt(to string, _ *smtp.RcptOptions) error {
	c.office.mu.Lock()
	defer c.office.mu.Unlock()
	if e := c.office.replyR[to]; e != nil {
		return e
	}
	c.to = to
	return nil
}

func (c *counter) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	c.office.mu.Lock()
	onData := c.office.onData
	c.office.mu.Unlock()
	if onData != nil {
		if err := onData(); err != nil {
			return err
		}
	}
	c.office.mu.Lock()
	defer c.office.mu.Unlock()
	m, err := mail.ReadMessage(strings.NewReader(string(raw)))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		return err
	}
	c.took = true
	c.office.mails = append(c.office.mails, Mail{c.to, time.Now(), m.Header, strings.ReplaceAll(string(body), "\r\n", "\n"), string(raw)})
	return nil
}

// Reset is called after the answer to a mail.
func (c *counter) Reset() {
	c.office.mu.Lock()
	after := c.office.after
	c.office.mu.Unlock()
	if c.took && after != nil {
		after()
	}
	c.to, c.took = "", false
}

func (c *counter) Logout() error { return nil }

// Subject is the decoded subject.
func (r Mail) Subject(t testing.TB) string {
	text, err := new(mime.WordDecoder).DecodeHeader(r.Header.Get("Subject"))
	require.NoError(t, err)
	return text
}
