package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"replicator/config"
	"replicator/fault"
)

// The headers of a request to the webhook.
const (
	SignatureHeader = "X-Replicator-Signature" // sha256=<hexadecimal HMAC-SHA256 of the body>
	DeliveryHeader  = "X-Replicator-Delivery"  // the id of the body: the same when it is sent again
)

// webhook posts notifications.
type webhook struct {
	patience
	config config.Webhook
	client *http.Client
}

func newWebhook(c config.Webhook, p patience) *webhook {
	return &webhook{patience: p, config: c, client: &http.Client{
		Timeout: sendTimeout,
		// A redirection would turn the request into another one, or take it elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (w *webhook) open(context.Context) bool { return w.ready(time.Now()) }

func (w *webhook) close() { w.client.CloseIdleConnections() }

func (w *webhook) deliver(ctx context.Context, n *notification, accepted func()) error {
	if err := w.post(ctx, n, accepted); err != nil {
		w.failed(ctx, "the webhook does not take notices: they wait", err)
		return errCourier
	}
	w.worked("the webhook takes notices again")
	return nil
}

// post sends one request.
func (w *webhook) post(ctx context.Context, n *notification, accepted func()) *fault.Error {
	body, err := json.Marshal(n)
	if err != nil {
		return fault.Wrap(err, fault.Bug, "report this", "bug: encode a notification")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.config.URL, bytes.NewReader(body))
	if err != nil {
		return fault.New(fault.Configuration, "correct notify.webhook.url", "notify.webhook.url cannot be used")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "replicator")
	request.Header.Set(DeliveryHeader, n.ID)
	if !w.config.Secret.IsZero() {
		request.Header.Set(SignatureHeader, Sign([]byte(w.config.Secret.Reveal()), body))
	}
	response, err := w.client.Do(request)
	if err != nil {
		return fault.Wrap(withoutURL(err), fault.Network, "see that notify.webhook.url is right, and that its server runs and can be reached", "call the webhook on %s", request.URL.Host)
	}
	defer response.Body.Close()
	if response.StatusCode/100 == 2 {
		accepted()
	}
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // lets the connection be used again
	if response.StatusCode/100 != 2 {
		return fault.New(fault.Unavailable, "see why the webhook's server does not answer 2xx", "the webhook on %s answers %s", request.URL.Host,
			plain(fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode)), maxName))
	}
	return nil
}

// Sign returns what SignatureHeader holds for a body.
func Sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// withoutURL takes the address out of an error of package http: it may hold a token.
func withoutURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}
