package notify

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"go.uber.org/zap"

	"replicator/config"
	"replicator/fault"
	"replicator/server"
)

// Prove tries the way of notices: a test mail to every contact, a test request to the webhook, and the query that finds
// users, on every server. Each is a finding, with its remedy where it fails.
func Prove(ctx context.Context, c *config.Config, servers []Server) []server.Finding {
	p := prover{config: c, mails: map[string]server.Finding{}}
	p.contacts(ctx, servers)
	p.webhook(ctx)
	p.users(ctx, servers)
	if len(p.findings) == 0 {
		p.add(server.Finding{
			Name: "notices", State: server.Fail, Class: fault.Configuration, Message: "nobody is told of conflicts",
			Remedy: "set notify.smtp and servers.*.contact, or notify.webhook",
		})
	}
	return p.findings
}

type prover struct {
	config   *config.Config
	findings []server.Finding
	mails    map[string]server.Finding // by address: a contact of several servers gets one mail
}

func (p *prover) add(f server.Finding) { p.findings = append(p.findings, f) }

// failed makes a finding of an error.
func failed(f server.Finding, err *fault.Error) server.Finding {
	f.State, f.Class, f.Message, f.Remedy = server.Fail, err.Class, err.Text(), err.Remedy
	return f
}

func (p *prover) patience() patience {
	return patience{backoff: newBackOff(time.Hour, Pace{Poll: time.Minute, Every: time.Hour}), log: zap.NewNop()}
}

func (p *prover) test(to party) *notification {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails: crypto/rand aborts the program when the system has no randomness
	now := timestamp(time.Now())
	return &notification{
		ID: messageID(p.config.Mesh, to.key, nonce[:]), Mesh: p.config.Mesh, Time: now, First: now, Last: now,
		Conflicts: []toldConflict{}, Test: true, party: to,
	}
}

func (p *prover) contacts(ctx context.Context, servers []Server) {
	smtp := p.config.Notify.SMTP
	var m *mailer
	if smtp.Address != "" {
		var err error
		if m, err = newMailer(smtp, p.patience()); err != nil {
			p.add(failed(server.Finding{Name: "mail server"}, asFault(err, "use notify.smtp")))
			return
		}
		defer m.close()
	}
	told := false
	for _, s := range servers {
		for _, address := range s.Contact {
			f, known := p.mails[address]
			if !known {
				f = p.mailTo(ctx, m, address)
				p.mails[address] = f
			}
			f.Server, told = s.Name, true
			p.add(f)
		}
	}
	if m != nil && !told {
		p.add(server.Finding{Name: "mail", State: server.Warn, Message: "no server has a contact", Remedy: "set servers.*.contact"})
	}
}

func (p *prover) mailTo(ctx context.Context, m *mailer, address string) server.Finding {
	f := server.Finding{Name: "mail to " + address, State: server.Pass, Message: "the mail server has taken a test mail"}
	to, ok := mailParty(address)
	switch {
	case m == nil:
		return failed(f, fault.New(fault.Configuration, "set notify.smtp.address and from", "no mail server is configured"))
	case !ok:
		return failed(f, fault.New(fault.Configuration, "correct the address", "it is not a mail address"))
	case !m.open(ctx):
		return failed(f, m.reason(ctx))
	}
	err := m.deliver(ctx, p.test(to), func() {})
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		return failed(f, fault.New(fault.Configuration, "correct the address, or have the mail server accept it", "the mail server refuses it: %s", refused))
	case errors.Is(err, errCourier):
		return failed(f, m.reason(ctx))
	case err != nil:
		return failed(f, asFault(err, "send a test mail"))
	}
	return f
}

// reason is why a courier does not work.
func (p *patience) reason(ctx context.Context) *fault.Error {
	if p.last != nil {
		return p.last
	}
	return fault.New(fault.Network, "run it again", "it was not tried: %v", context.Cause(ctx))
}

func (p *prover) webhook(ctx context.Context) {
	if p.config.Notify.Webhook.URL == "" {
		return
	}
	f := server.Finding{Name: "webhook", State: server.Pass, Message: "it has taken a test request"}
	w := newWebhook(p.config.Notify.Webhook, p.patience())
	defer w.close()
	if err := w.deliver(ctx, p.test(party{key: hookParty}), func() {}); err != nil {
		f = failed(f, w.reason(ctx))
	}
	p.add(f)
}

// users runs the query with an id that nobody has.
func (p *prover) users(ctx context.Context, servers []Server) {
	u := p.config.Conflict.Users
	if u == nil || p.config.Notify.SMTP.Address == "" {
		return
	}
	for _, s := range servers {
		f := server.Finding{Server: s.Name, Name: "conflict.users.query", State: server.Pass, Message: "can be run"}
		if _, err := lookUpUser(ctx, s.DB, u.Query, "0"); err != nil {
			cause := asFault(err, "run it")
			f = failed(f, cause)
			f.Incomplete = cause.Class.Transient()
			if !f.Incomplete && cause.Class != fault.Configuration {
				f.Remedy = "correct the query, or give the account the privilege to read that table"
			}
		}
		p.add(f)
	}
}
