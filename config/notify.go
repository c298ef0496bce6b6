package config

import (
	"net"
	"net/mail"
	"net/url"
	"strconv"
	"strings"
)

// What protects the connection to the mail server.
const (
	SMTPPlain    = "none"
	SMTPStartTLS = "starttls" // refused by a server that does not offer it
	SMTPImplicit = "implicit" // TLS from the start
)

// IsMailAddress reports whether a text is a mail address and nothing else: no name, no brackets, at most 254 bytes.
func IsMailAddress(text string) bool {
	const most = 254
	a, err := mail.ParseAddress(text)
	return err == nil && a.Address == text && len(text) <= most && !strings.ContainsAny(text, " \t\r\n,<>\"")
}

func (v *validator) validateNotify() {
	for _, s := range v.Servers {
		for i, address := range s.Contact {
			if !IsMailAddress(address) {
				v.problem("servers."+s.Name+".contact["+strconv.Itoa(i)+"]", "write name@example.org", "%q is not a mail address", address)
			}
		}
	}
	v.validateSMTP("notify.smtp", v.Notify.SMTP)
	v.validateWebhook("notify.webhook", v.Notify.Webhook)
	if u := v.Conflict.Users; u != nil {
		v.validateUsers("conflict.users.query", u.Query)
	}
}

func (v *validator) validateSMTP(path string, m SMTP) {
	v.oneOf(path+".tls", m.TLS, SMTPPlain, SMTPStartTLS, SMTPImplicit)
	v.readable(path+".ca", m.CA)
	if m.CA != "" && m.TLS == SMTPPlain {
		v.problem(path+".ca", "set tls to starttls or implicit, or remove ca", "is not looked at with tls: none")
	}
	if m.Address == "" {
		for name, used := range map[string]bool{"from": m.From != "", "username": m.Username != "", "password": !m.Password.IsZero(), "ca": m.CA != ""} {
			if used {
				v.problem(path+"."+name, "set "+path+".address, or remove it", "is there without the address of a mail server")
			}
		}
		return
	}
	host, port, err := net.SplitHostPort(m.Address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" {
		v.problem(path+".address", "write host:port", "%q is not an address", m.Address)
	}
	switch _, err := mail.ParseAddress(m.From); {
	case m.From == "":
		v.problem(path+".from", "name the sender of mails", "is missing")
	case err != nil:
		v.problem(path+".from", "write replicator@example.org", "%q is not a mail address", m.From)
	}
	if (m.Username == "") != m.Password.IsZero() {
		v.problem(path+".username", "set both or neither", "username and password go together")
	}
	if m.Username != "" && m.TLS == SMTPPlain {
		v.problem(path+".tls", "set it to starttls or implicit", "a password is not sent over an unencrypted connection")
	}
}

func (v *validator) validateWebhook(path string, w Webhook) {
	if w.URL == "" {
		if !w.Secret.IsZero() {
			v.problem(path+".secret", "set "+path+".url, or remove it", "is there without an address")
		}
		return
	}
	u, err := url.Parse(w.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		v.problem(path+".url", "write https://host/path", "is not an HTTP address") // it may hold a token: it is not shown
	}
}

func (v *validator) validateUsers(path, query string) {
	const example = `"SELECT email FROM personnel.users WHERE id = ?"`
	const remedy = "put exactly one ? where it belongs, as in " + example
	switch n := strings.Count(query, "?"); {
	case strings.TrimSpace(query) == "":
		v.problem(path, "write "+example, "is missing")
	case n == 0:
		v.problem(path, remedy, "has no ? for the user's id")
	case n > 1:
		v.problem(path, remedy, "has %d ?, of which one is the user's id", n)
	case v.Conflict.ChangeLog == nil:
		v.problem(path, "configure conflict.change_log, or remove it", "is there without a change_log that names users")
	}
}
