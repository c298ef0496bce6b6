package notify

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"replicator/config"
	"replicator/fault"
	"replicator/image/imagetest"
	"replicator/notify/notifytest"
	"replicator/sandbox"
	"replicator/server"
)

func provable(office *notifytest.Office, hook string) (*config.Config, []Server) {
	c := &config.Config{Mesh: "shop"}
	if office != nil {
		c.Notify.SMTP = office.Settings()
	}
	c.Notify.Webhook = config.Webhook{URL: hook, Secret: config.NewSecret("s3cret")}
	return c, []Server{
		{Name: "east", Contact: []string{"a@example.org", "b@example.org"}}, {Name: "west", Contact: []string{"a@example.org"}},
	}
}

func TestProve(t *testing.T) {
	office := notifytest.Open(t, config.SMTPImplicit)
	office.Refuse("b@example.org", 550)
	r := newReceiver(t, http.StatusOK)
	c, servers := provable(office, r.URL)
	findings := Prove(t.Context(), c, servers)
	require.Len(t, findings, 4)
	for i, want := range []server.Finding{
		{Server: "east", Name: "mail to a@example.org", State: server.Pass},
		{Server: "east", Name: "mail to b@example.org", State: server.Fail},
		{Server: "west", Name: "mail to a@example.org", State: server.Pass},
		{Name: "webhook", State: server.Pass},
	} {
		require.Equal(t, want, server.Finding{Server: findings[i].Server, Name: findings[i].Name, State: findings[i].State}, findings[i].Message)
	}
	require.Contains(t, findings[1].Message, "550")
	require.NotEmpty(t, findings[1].Remedy)
	require.Len(t, office.All(), 1, "one mail to an address")
	require.Contains(t, office.All()[0].Subject(t), "Test")
	require.Equal(t, 1, r.requests())
	require.Len(t, r.read(t), 1)
}

// TestProveRemedies: what is wrong with the way is said with what to do about it, and without the password.
func TestProveRemedies(t *testing.T) {
	for name, s := range map[string]struct {
		mode   string
		change func(*config.SMTP)
		class  fault.Class
		remedy string
	}{
		"wrong password":       {config.SMTPStartTLS, func(c *config.SMTP) { c.Password = config.NewSecret("wr0ng") }, fault.Login, "notify.smtp.username"},
		"unknown authority":    {config.SMTPImplicit, func(c *config.SMTP) { c.CA = "" }, fault.Configuration, "notify.smtp.ca"},
		"implicit on starttls": {config.SMTPStartTLS, func(c *config.SMTP) { c.TLS = config.SMTPImplicit }, fault.Configuration, "notify.smtp.tls"},
		"nobody there":         {config.SMTPStartTLS, func(c *config.SMTP) { c.Address = "127.0.0.1:1" }, fault.Network, "notify.smtp.address"},
	} {
		t.Run(name, func(t *testing.T) {
			office := notifytest.Open(t, s.mode)
			c, servers := provable(office, "")
			s.change(&c.Notify.SMTP)
			findings := Prove(t.Context(), c, servers)
			require.Len(t, findings, 3)
			for _, f := range findings {
				require.Equal(t, server.Fail, f.State)
				require.Equal(t, s.class, f.Class, f.Message)
				require.Contains(t, f.Remedy, s.remedy)
				require.NotContains(t, f.Message, "wr0ng")
			}
			require.Empty(t, office.All())
		})
	}
}

// TestPasswordsStayPrivate: a password is sent over an encrypted connection or not at all.
func TestPasswordsStayPrivate(t *testing.T) {
	office := notifytest.Open(t, config.SMTPPlain)
	c := office.Settings()
	c.CA = ""
	_, err := newMailer(c, patience{})
	require.ErrorContains(t, err, "unencrypted")

	// A server that offers no encryption is not talked to.
	plain := notifytest.Open(t, config.SMTPPlain)
	plain.WithoutTLS()
	cfg, servers := provable(plain, "")
	cfg.Notify.SMTP.TLS = config.SMTPStartTLS
	for _, f := range Prove(t.Context(), cfg, servers) {
		require.Equal(t, server.Fail, f.State)
		require.Contains(t, f.Remedy, "notify.smtp.tls")
	}
	require.Zero(t, plain.Logins())
}

func TestProveNobody(t *testing.T) {
	findings := Prove(t.Context(), &config.Config{}, []Server{{Name: "east"}})
	require.Len(t, findings, 1)
	require.Equal(t, server.Fail, findings[0].State)
}

// TestUsersQueryOnlyReads: a query that would write is refused by check, and writes nothing.
func TestUsersQueryOnlyReads(t *testing.T) {
	s := sandbox.StartTest(t, sandbox.Options{Flavor: sandbox.MariaDB118})
	imagetest.Exec(t, s, "CREATE DATABASE personnel", "CREATE TABLE personnel.users (id INT PRIMARY KEY)", "INSERT INTO personnel.users VALUES (1)")
	_, err := lookUpUser(t.Context(), s.DB(), "DELETE FROM personnel.users WHERE ? IS NOT NULL", "0")
	require.ErrorContains(t, err, "conflict.users.query may only read")
	var n int
	require.NoError(t, s.DB().QueryRowContext(t.Context(), "SELECT COUNT(*) FROM personnel.users").Scan(&n))
	require.Equal(t, 1, n)
}
