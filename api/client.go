package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
	"replicator/mesh"
)

// PasswordVariable is the environment variable with the password of http.username: the configuration holds its hash only.
const PasswordVariable = "REPLICATOR_HTTP_PASSWORD"

const maxAnswer = 64 << 20

// Client asks the process that runs with the same configuration on this machine.
type Client struct {
	base     string
	username string
	password string
	http     *http.Client
}

// NewClient makes a client of the configured address. Errors are of class configuration.
func NewClient(cfg config.HTTP, password string) (*Client, error) {
	if cfg.Listen == "" {
		return nil, fault.New(fault.Configuration, "set http.listen and start the process again", "http.listen is empty: HTTP is off")
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fault.Wrap(err, fault.Configuration, "write host:port", "read http.listen")
	}
	c := &Client{username: cfg.Username, password: password}
	transport := &http.Transport{Proxy: nil, DisableKeepAlives: true}
	scheme := "http"
	if cfg.TLS.Cert != "" {
		scheme = "https"
		if transport.TLSClientConfig, err = pinned(cfg.TLS.Cert); err != nil {
			return nil, err
		}
	}
	c.base = scheme + "://" + net.JoinHostPort(reachable(host), port)
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the password goes to no other place
	}}
	return c, nil
}

// reachable turns "every address" into one that can be dialled.
func reachable(host string) string {
	ip := net.ParseIP(host)
	switch {
	case host == "":
		return "127.0.0.1"
	case ip == nil || !ip.IsUnspecified():
		return host
	case ip.To4() != nil:
		return "127.0.0.1"
	default:
		return "::1"
	}
}

// pinned accepts the configured certificate and no other. Its names are those by which other machines know this one, so
// they say nothing about a connection over loopback.
func pinned(file string) (*tls.Config, error) {
	const remedy = "give http.tls.cert a PEM certificate"
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.Wrap(err, fault.Configuration, remedy, "read http.tls.cert")
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fault.New(fault.Configuration, remedy, "http.tls.cert has no PEM block")
	}
	want := block.Bytes
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // the names do not matter, the certificate does
		VerifyConnection: func(c tls.ConnectionState) error {
			if len(c.PeerCertificates) == 0 || !bytes.Equal(c.PeerCertificates[0].Raw, want) {
				return errors.New("the process serves another certificate than the file of http.tls.cert holds")
			}
			return nil
		},
	}, nil
}

// Address is where the client asks.
func (c *Client) Address() string { return c.base }

// Healthy asks for /healthz. nil means that the process lives.
func (c *Client) Healthy(ctx context.Context) error {
	return c.do(ctx, http.MethodGet, "/healthz", http.StatusOK, nil)
}

// Status asks for the status of the mesh.
func (c *Client) Status(ctx context.Context) (mesh.Status, error) {
	var s mesh.Status
	err := c.do(ctx, http.MethodGet, "/api/v1/status", http.StatusOK, &s)
	return s, err
}

// Identities are the identities of a mesh's servers, by name, as far as the process knows them.
func (c *Client) Identities(ctx context.Context, meshName string) (map[string]change.ServerID, error) {
	s, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]change.ServerID{}
	for _, x := range s.Servers {
		if s.Mesh != meshName || x.ID == nil {
			continue
		}
		if known[x.Name], err = change.ParseServerID(*x.ID); err != nil {
			return nil, fmt.Errorf("read the identity of %s: %w", x.Name, err)
		}
	}
	return known, nil
}

// Resume has the process try a link again at once.
func (c *Client) Resume(ctx context.Context, from, to string) error {
	path := "/api/v1/links/" + url.PathEscape(from) + "/" + url.PathEscape(to) + "/resume"
	return c.do(ctx, http.MethodPost, path, http.StatusAccepted, nil)
}

func (c *Client) do(ctx context.Context, method, path string, want int, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if c.username != "" && c.password != "" && path != "/healthz" {
		request.SetBasicAuth(c.username, c.password)
	}
	response, err := c.http.Do(request)
	if err != nil {
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // the address is named already
		}
		return fault.Wrap(err, fault.Network, "start `replicator run` with this configuration on this machine",
			"ask the process at %s", c.base)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fault.Wrap(err, fault.Network, "try again", "read the answer of %s%s", c.base, path)
	}
	if response.StatusCode != want {
		return c.refusal(response, body, path)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fault.Wrap(err, fault.Configuration, "set http.listen to the replicator's address",
			"read the answer of %s%s", c.base, path)
	}
	return nil
}

// refusal repeats the fault that the process reported, word for word.
func (c *Client) refusal(response *http.Response, body []byte, path string) error {
	if response.StatusCode == http.StatusUnauthorized {
		return fault.New(fault.Login, "set "+PasswordVariable+" to the password of http.username",
			"the process at %s refused the login", c.base)
	}
	var told failure
	if json.Unmarshal(body, &told) == nil && told.Error.Message != "" {
		return &fault.Error{
			Class: fault.Class(told.Error.Class), Message: told.Error.Message, Remedy: told.Error.Remedy,
		}
	}
	return fault.New(fault.Configuration, "set http.listen to the replicator's address",
		"%s%s answered %s: another program may be listening there", c.base, path, response.Status)
}
