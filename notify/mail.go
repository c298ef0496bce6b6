package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"replicator/config"
	"replicator/fault"
)

// mailer sends mails over one connection at a time.
type mailer struct {
	patience
	config config.SMTP
	client *mail.Client
	smtp   *smtp.Client // nil: not connected

	mu   sync.Mutex
	conn net.Conn // what cut closes
}

// logins are the ways to log in, the best first. The last two show the password to the server: the connection is
// encrypted wherever there is a password.
var logins = []mail.SMTPAuthType{
	mail.SMTPAuthSCRAMSHA256PLUS, mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthSCRAMSHA1PLUS, mail.SMTPAuthSCRAMSHA1,
	mail.SMTPAuthCramMD5, mail.SMTPAuthPlain, mail.SMTPAuthLogin,
}

// newMailer reads the files of the configuration; it connects to nothing yet.
func newMailer(c config.SMTP, p patience) (*mailer, error) {
	host, text, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fault.Wrap(err, fault.Configuration, "write host:port", "read notify.smtp.address")
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fault.Wrap(err, fault.Configuration, "write host:port", "read notify.smtp.address")
	}
	m := &mailer{patience: p, config: c}
	security := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		raw, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fault.Wrap(err, fault.Configuration, "name a PEM file that replicator may read", "read notify.smtp.ca")
		}
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fault.New(fault.Configuration, "name a PEM file of the certificate authority", "notify.smtp.ca: %s holds no PEM certificate", c.CA)
		}
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "localhost"
	}
	options := []mail.Option{
		mail.WithPort(port), mail.WithTimeout(sendTimeout), mail.WithTLSConfig(security), mail.WithHELO(name),
		mail.WithDialContextFunc(m.dial(security)),
	}
	switch c.TLS {
	case config.SMTPImplicit:
		options = append(options, mail.WithSSL())
	case config.SMTPStartTLS:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	case config.SMTPPlain:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	}
	if c.Username != "" {
		if c.TLS == config.SMTPPlain {
			return nil, fault.New(fault.Configuration, "set notify.smtp.tls to starttls or implicit", "a password is not sent over an unencrypted connection")
		}
		options = append(options, mail.WithOpportunisticSMTPAuth(logins...), mail.WithUsername(c.Username), mail.WithPassword(c.Password.Reveal()))
	}
	m.client, err = mail.NewClient(host, options...)
	if err != nil {
		return nil, fault.Wrap(err, fault.Configuration, "correct notify.smtp", "use notify.smtp")
	}
	return m, nil
}

// dial keeps the connection, so that it can be cut when time is up.
func (m *mailer) dial(security *tls.Config) mail.DialContextFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if m.config.TLS == config.SMTPImplicit {
			secure := tls.Client(conn, security)
			if err := secure.HandshakeContext(ctx); err != nil {
				return nil, errors.Join(err, conn.Close())
			}
			conn = secure
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.conn = conn
		return conn, ctx.Err()
	}
}

func (m *mailer) open(ctx context.Context) bool {
	if m.smtp != nil {
		return true
	}
	if !m.ready(time.Now()) {
		return false
	}
	if f := m.connect(ctx); f != nil {
		m.failed(ctx, "the mail server cannot be used: mails wait", f)
		return false
	}
	m.worked("the mail server can be used again")
	return true
}

// connect connects and logs in.
func (m *mailer) connect(ctx context.Context) *fault.Error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, m.cut)
	defer stop()
	c, err := m.client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		m.cut()
		return smtpFault(err, m.config)
	}
	m.smtp = c
	return nil
}

// cut ends the connection at once. It may be called from any goroutine.
func (m *mailer) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		_ = m.conn.Close()
	}
}

func (m *mailer) close() {
	if m.smtp != nil {
		// A QUIT that fails changes nothing.
		_ = m.smtp.UpdateDeadline(quitTimeout)
		_ = m.client.CloseWithSMTPClient(m.smtp)
		m.cut()
	}
	m.smtp = nil
}

func (m *mailer) deliver(ctx context.Context, n *notification, accepted func()) error {
	msg, err := m.write(n)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, m.cut)
	failed, err := m.send(msg)
	if err == nil {
		if !stop() {
			m.close()
		}
		accepted()
		return nil
	}
	stop()
	var reply *textproto.Error
	if !errors.As(err, &reply) || reply.Code == 421 || failed == sender {
		// The connection is broken or ends, or the sender is refused: nobody would get anything.
		m.close()
		m.failed(ctx, "the mail server cannot be used: mails wait", smtpFault(err, m.config))
		return errCourier
	}
	if failed != recipient || m.smtp.Reset() != nil {
		m.close()
	}
	if failed == recipient && reply.Code >= 500 {
		return &refusedError{plain(err.Error(), maxComment)}
	}
	return smtpFault(err, m.config)
}

// step is what a mail server is told of a mail.
type step int

const (
	sender step = iota
	recipient
	content
)

// send hands a mail to the server, and returns as soon as its answer is there. The library's own way to send would ask the
// server one thing more before it says that a mail has been accepted. With an error comes the step that failed.
func (m *mailer) send(msg *mail.Msg) (step, error) {
	from, err := msg.GetSender(false)
	if err != nil {
		return sender, err
	}
	to, err := msg.GetRecipients()
	if err != nil {
		return recipient, err
	}
	if err := m.smtp.UpdateDeadline(sendTimeout); err != nil {
		return sender, err
	}
	if err := m.smtp.Mail(from); err != nil {
		return sender, err
	}
	for _, address := range to {
		if err := m.smtp.Rcpt(address); err != nil {
			return recipient, err
		}
	}
	w, err := m.smtp.Data()
	if err != nil {
		return content, err
	}
	if _, err := msg.WriteTo(w); err != nil {
		return content, err
	}
	return content, w.Close()
}

// write makes the mail. Whatever stands in the notification, it cannot become a header.
func (m *mailer) write(n *notification) (*mail.Msg, error) {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := msg.From(m.config.From); err != nil {
		return nil, fault.Wrap(err, fault.Configuration, "correct notify.smtp.from", "use notify.smtp.from")
	}
	if err := msg.To(n.party.address); err != nil {
		return nil, fault.Wrap(err, fault.Configuration, "correct the address", "write to %s", n.party.address)
	}
	domain := domainOf(m.config.From)
	msg.Subject(n.Subject())
	msg.SetMessageIDWithValue(n.ID + "@" + domain)
	msg.SetDateWithValue(time.Time(n.Time))
	thread := "<" + n.Thread() + "@" + domain + ">"
	msg.SetGenHeader(mail.HeaderInReplyTo, thread)
	msg.SetGenHeader(mail.HeaderReferences, thread)
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")
	msg.SetBodyString(mail.TypeTextPlain, n.Text())
	return msg, nil
}

// smtpFault says what to do about an error of the mail server. Its cause quotes what the server
// answered, and never what it was told.
func smtpFault(err error, c config.SMTP) *fault.Error {
	at := "use the mail server " + c.Address
	text := strings.ToLower(err.Error())
	var reply *textproto.Error
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fault.Wrap(err, fault.Configuration, "name the certificate of its authority in notify.smtp.ca", "%s", at)
	case errors.As(err, &hostname):
		return fault.Wrap(err, fault.Configuration, "write the name that stands in its certificate into notify.smtp.address", "%s", at)
	case errors.As(err, &record):
		return fault.Wrap(err, fault.Configuration, "set notify.smtp.tls to starttls (or none): the port does not speak TLS from the start", "%s", at)
	case strings.Contains(text, "starttls"):
		return fault.Wrap(err, fault.Configuration, "set notify.smtp.tls to what the port speaks: starttls, implicit or none", "%s", at)
	case strings.Contains(text, "auth"):
		return fault.Wrap(err, fault.Login, "correct notify.smtp.username and password, or ask for an account on the mail server", "%s", at)
	case errors.As(err, &reply):
		return fault.Wrap(err, fault.Unavailable, "see what the mail server says", "%s", at)
	}
	return fault.Wrap(err, fault.Network, "see that notify.smtp.address is right, and that the mail server runs and can be reached", "%s", at)
}
