package notify

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"replicator/fault"
)

// courier carries messages: by mail, or to the webhook. It belongs to one goroutine.
type courier interface {
	// ready reports whether it may be tried at a time, next when it may be again.
	ready(now time.Time) bool
	next() time.Time
	// open prepares to deliver. When it returns false nothing can be delivered now; it has logged why.
	open(ctx context.Context) bool
	// deliver calls accepted at the moment when the message is, before anything else. It returns nil when the message was accepted, a *refusedError when its recipient never will be, errCourier when
	// nothing can be delivered to anybody now, and other errors when this message cannot be delivered now.
	deliver(ctx context.Context, n *notification, accepted func()) error
	close()
}

// errCourier says that a courier does not work at present.
var errCourier = errors.New("the courier waits")

// refusedError is a recipient that the mail server refuses for good.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

// patience is how a courier waits after a failure.
type patience struct {
	until   time.Time
	failing bool
	last    *fault.Error // why it fails
	backoff *backoff.ExponentialBackOff
	log     *zap.Logger
}

func (p *patience) ready(now time.Time) bool { return !now.Before(p.until) }
func (p *patience) next() time.Time          { return p.until }

// failed waits, longer every time, and logs the first of a series of failures for one reason.
func (p *patience) failed(ctx context.Context, what string, f *fault.Error) {
	if ctx.Err() != nil {
		return
	}
	pause := p.backoff.NextBackOff()
	p.until = time.Now().Add(pause)
	if !p.failing || reason(f) != reason(p.last) {
		p.log.Warn(what, zap.String("class", string(f.Class)), zap.String("error", f.Text()), zap.String("remedy", f.Remedy),
			zap.Duration("again_in", pause.Round(time.Millisecond)))
	}
	p.failing, p.last = true, f
}

// reason is a failure's text without numbers: the port of one's own end is another one every time.
func reason(f *fault.Error) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, f.Text())
}

func (p *patience) worked(what string) {
	if p.failing {
		p.log.Info(what)
	}
	p.failing, p.last = false, nil
	p.until = time.Time{}
	p.backoff.Reset()
}
