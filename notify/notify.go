// Package notify tells both parties of a conflict about it: by e-mail the contacts of the two servers and the two users
// who made the changes, by a webhook a program. Of a comparison that has found differences it tells the contacts of all
// servers, and the webhook. What has to be told is what the journal (replicator.conflict, and findings in
// replicator.verification) has not marked as notified; who has been told is in replicator.notice. Nothing else is remembered, so that it does not matter
// which process tells, or how often it is killed meanwhile.
//
// Exactly one notice per conflict and party: the pair is a primary key of replicator.notice on one server, the same for
// all processes (the origin of the losing change), and it is written before the notice leaves. A row of that table with
// the conflict 0 is the party's head: who of the processes may write to that party now, what the message is called that is
// on its way, and when the last one arrived. It is taken on every server that can be reached, which is what keeps a party
// at one mail a minute although several processes tell.
package notify

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/config"
	"replicator/fault"
)

// Server is a server of the mesh as notices need it.
type Server struct {
	Name    string
	ID      change.ServerID // zero: not known yet
	DB      *sql.DB
	Contact []string // addresses
}

// Options say what a Desk works with.
type Options struct {
	Config  *config.Config
	Servers func() []Server // all servers of the mesh, as far as they are known now
	Owner   checkpoint.Owner
	Log     *zap.Logger

	Pace Pace // zero: DefaultPace

	// Reached, if not nil, hears of places at which tests stop a process.
	Reached func(place)
}

// place is a step between which a process may die.
type place string

const (
	afterClaim place = "after claim"
	beforeSend place = "before send"
	afterSend  place = "after send"
)

func (d *Desk) reached(p place) {
	if d.options.Reached != nil {
		d.options.Reached(p)
	}
}

// Pace is how often what happens.
type Pace struct {
	Poll  time.Duration // how often the journal is asked whether there is something to tell
	Every time.Duration // a party gets at most one mail in this time
	Lease time.Duration // after this time without a sign, a notice on its way counts as abandoned
	Rest  time.Duration // how long a server that cannot be reached is left alone, and a look at all that is pending takes
}

// DefaultPace is the pace of production.
var DefaultPace = Pace{Poll: time.Second, Every: time.Minute, Lease: 15 * time.Second, Rest: 10 * time.Second}

// Limits of what is in memory at once, and of one message.
const (
	batchSize    = 200     // journal entries read at once
	openMessages = 100     // messages under way at once
	mailEntries  = 100_000 // conflicts of one mail
	hookEntries  = 200     // conflicts of one request, all in detail; not less than batchSize
	mailDetails  = 5       // conflicts of one mail in detail
	roundEntries = 100_000 // conflicts of one round
)

const (
	statementTimeout = 10 * time.Second
	roundTime        = 20 * time.Second // of reading; what was found so far is sent then
	connectTimeout   = 20 * time.Second
	sendTimeout      = time.Minute // of one message
	quitTimeout      = 2 * time.Second
)

// Stats counts since the process started.
type Stats struct {
	Sent    atomic.Int64 // messages that were accepted
	Failed  atomic.Int64 // attempts that were not
	Refused atomic.Int64 // messages given up because the recipient is refused for good
	Pending atomic.Int64 // parties that wait for a message
}

// Desk is one process's notifier. New makes it; Run works for the servers that are registered by Serve.
type Desk struct {
	options  Options
	pace     Pace
	mail     courier // nil: no mail server is configured
	hook     courier // nil: no webhook is configured
	query    string  // of users
	log      *zap.Logger
	Stats    Stats
	mu       sync.Mutex
	journals []*journalOf

	// Of Run's goroutine.
	peers   map[string]*peer // by name
	parties map[string]*waiting
	users   *userCache
	scan    time.Time // when everything pending is looked at again
	tidied  time.Time
	logged  map[string]bool
}

// journalOf is the journal of one owned server.
type journalOf struct {
	server string
	seen   uint64 // the greatest seq that a round has looked at
}

// waiting is why a party cannot be written to now.
type waiting struct {
	until   time.Time
	backoff *backoff.ExponentialBackOff
	// unrecorded messages have arrived, but are not recorded as sent on all servers yet.
	unrecorded []*message
}

// New makes a Desk. A fault says that the files or addresses of the configuration cannot be used. Without a mail server
// and a webhook there is nothing to do: Desk is nil then, and its methods do nothing.
func New(o Options) (*Desk, error) {
	n := o.Config.Notify
	if n.SMTP.Address == "" && n.Webhook.URL == "" {
		return nil, nil
	}
	if o.Pace == (Pace{}) {
		o.Pace = DefaultPace
	}
	d := &Desk{
		options: o, pace: o.Pace, log: o.Log, tidied: time.Now(), peers: map[string]*peer{}, parties: map[string]*waiting{}, logged: map[string]bool{},
		users: newUserCache(),
	}
	if o.Config.Conflict.Users != nil {
		d.query = o.Config.Conflict.Users.Query
	}
	if n.SMTP.Address != "" {
		m, err := newMailer(n.SMTP, d.patience())
		if err != nil {
			return nil, err
		}
		d.mail = m
	}
	if n.Webhook.URL != "" {
		d.hook = newWebhook(n.Webhook, d.patience())
	}
	return d, nil
}

func (d *Desk) patience() patience {
	const longest = 2 * time.Minute
	return patience{backoff: newBackOff(longest, d.pace), log: d.log}
}

// Serve has the conflicts in a server's journal told until the context ends, which is its error.
func (d *Desk) Serve(ctx context.Context, server string) error {
	if d != nil {
		j := &journalOf{server: server}
		d.mu.Lock()
		d.journals = append(d.journals, j)
		d.mu.Unlock()
		defer func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.journals = slices.DeleteFunc(d.journals, func(other *journalOf) bool { return other == j })
		}()
	}
	<-ctx.Done()
	return ctx.Err()
}

func (d *Desk) owned() []*journalOf {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.journals)
}

// Run tells until the context ends. Nothing that fails ends it: it is logged, and tried again.
func (d *Desk) Run(ctx context.Context) {
	if d == nil {
		return
	}
	tick := time.NewTicker(d.pace.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.look(ctx)
		}
	}
}

// look asks the journals whether there is something to tell, and tells what can be told now.
func (d *Desk) look(ctx context.Context) {
	now := time.Now()
	d.recordLate(ctx)
	d.tidy(ctx, now)
	pending, fresh := false, false
	for _, j := range d.owned() {
		p := d.peer(j.server)
		if p == nil || !p.up(now) {
			continue
		}
		newest, err := newestUntold(ctx, p.DB)
		found := false
		if err == nil {
			found, err = findingsPending(ctx, p.DB)
		}
		if err != nil {
			d.fell(ctx, p, err)
			continue
		}
		d.rose(p)
		pending = pending || newest > 0 || found
		fresh = fresh || newest > j.seen
	}
	if !pending {
		d.Stats.Pending.Store(0)
		d.prune(now)
		return
	}
	everything := !now.Before(d.scan)
	if !everything && !fresh || !d.anyCourier(now) {
		return
	}
	r := newRound(d, everything)
	r.run(ctx)
	if everything {
		// Entries commit out of order, and what another process does is not heard of: look at all of them now and then, the
		// more seldom the longer it takes.
		d.scan = time.Now().Add(max(d.pace.Rest, 10*time.Since(now)))
		d.Stats.Pending.Store(int64(len(r.deferred)))
		d.prune(now)
	}
	if !r.next.IsZero() && r.next.Before(d.scan) {
		d.scan = r.next
	}
}

// recordLate records what arrived when some server could not be told so.
func (d *Desk) recordLate(ctx context.Context) {
	for _, w := range d.parties {
		w.unrecorded = slices.DeleteFunc(w.unrecorded, func(m *message) bool { return d.record(ctx, m) })
	}
}

// tidy forgets notices of conflicts that no journal has any more.
func (d *Desk) tidy(ctx context.Context, now time.Time) {
	const every, margin = time.Hour, 30 * 24 * time.Hour
	if now.Before(d.tidied.Add(every)) {
		return
	}
	d.tidied = now
	for _, j := range d.owned() {
		if p := d.peer(j.server); p != nil && p.up(now) {
			if err := forget(ctx, p.DB, d.options.Config.Journal.Keep+margin); err != nil {
				d.fell(ctx, p, err)
			}
		}
	}
}

func (d *Desk) anyCourier(now time.Time) bool {
	return d.mail != nil && d.mail.ready(now) || d.hook != nil && d.hook.ready(now)
}

// prune forgets parties that nothing keeps from being written to.
func (d *Desk) prune(now time.Time) {
	for key, w := range d.parties {
		if len(w.unrecorded) == 0 && now.After(w.until.Add(time.Hour)) {
			delete(d.parties, key)
		}
	}
}

func (d *Desk) party(key string) *waiting {
	w := d.parties[key]
	if w == nil {
		w = &waiting{backoff: newBackOff(10*time.Minute, d.pace)}
		d.parties[key] = w
	}
	return w
}

// peer is a server with what this process has found out about it.
type peer struct {
	Server
	rest time.Time // it is left alone until then
	down bool
}

func (p *peer) up(now time.Time) bool { return !p.ID.IsZero() && !now.Before(p.rest) }

// peer returns a server by name, nil when the mesh has none of that name.
func (d *Desk) peer(name string) *peer {
	for _, s := range d.options.Servers() {
		if s.Name != name {
			continue
		}
		p := d.peers[name]
		if p == nil {
			p = &peer{}
			d.peers[name] = p
		}
		p.Server = s
		return p
	}
	return nil
}

// all returns all servers of the mesh.
func (d *Desk) all() []*peer {
	var out []*peer
	for _, s := range d.options.Servers() {
		out = append(out, d.peer(s.Name))
	}
	return out
}

// fell leaves a server alone for a while.
func (d *Desk) fell(ctx context.Context, p *peer, err error) {
	if ctx.Err() != nil {
		return
	}
	p.rest = time.Now().Add(d.pace.Rest)
	if !p.down {
		f := asFault(err, "use the notices on "+p.Name)
		d.log.Warn("notices wait for a server", zap.String("server", p.Name), zap.String("class", string(f.Class)),
			zap.String("error", f.Text()), zap.String("remedy", f.Remedy))
	}
	p.down = true
}

func (d *Desk) rose(p *peer) {
	if p.down {
		d.log.Info("notices of a server go on", zap.String("server", p.Name))
	}
	p.down = false
}

// once logs something that needs a person the first time only.
func (d *Desk) once(key, what string, f *fault.Error, fields ...zap.Field) {
	if d.logged[key] || len(d.logged) > 1000 {
		return
	}
	d.logged[key] = true
	d.log.Error(what, append(fields, zap.String("class", string(f.Class)), zap.String("error", f.Text()), zap.String("remedy", f.Remedy))...)
}

// newBackOff grows from the poll to the given longest pause.
func newBackOff(longest time.Duration, p Pace) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(2*p.Poll),
		backoff.WithMaxInterval(min(longest, 10*p.Every)), backoff.WithMaxElapsedTime(0))
}

// jitter keeps two processes that met from meeting again.
func jitter(d time.Duration) time.Duration { return d + rand.N(d) }
