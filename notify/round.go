package notify

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/fault"
	"replicator/journal"
)

// round is one pass over what is pending.
type round struct {
	desk       *Desk
	everything bool // from the beginning of the journals, not only what is new
	peers      []*peer
	byID       map[change.ServerID]*peer
	complete   bool // every server's identity is known

	open     map[string]*message // by party; nil: the party cannot be written to now
	began    time.Time
	begun    int             // messages in open
	deferred map[string]bool // parties that wait
	settled  []settled
	next     time.Time // when it is worth to look at everything again; zero: nothing is known
}

// settled is an entry of which everybody is told once these messages have arrived.
type settled struct {
	journal *peer
	seq     uint64
	finding journal.ID // zero: it is a conflict
	needs   []*message
}

// message is one mail or request under way.
type message struct {
	party     party
	id        string
	digest    *digest
	names     []string     // its own, and those under which its conflicts were claimed before
	ids       []journal.ID // of a message that was left behind
	resumed   bool
	holds     []hold
	claims    map[*peer]bool  // where its conflicts are claimed
	delivered map[string]bool // messages that arrived before, as far as heads say
	abandoned bool            // a claim is uncertain: it is taken up again from what the servers have
	arrived   bool            // or was refused for good
	refusal   string
}

func (m *message) holdsOn(p *peer) bool {
	return slices.ContainsFunc(m.holds, func(h hold) bool { return h.peer == p })
}

func newRound(d *Desk, everything bool) *round {
	r := &round{
		desk: d, everything: everything, began: time.Now(), peers: d.all(), byID: map[change.ServerID]*peer{}, complete: true,
		open: map[string]*message{}, deferred: map[string]bool{},
	}
	for _, p := range r.peers {
		if p.ID.IsZero() {
			r.complete = false
			continue
		}
		r.byID[p.ID] = p
	}
	slices.SortFunc(r.peers, comparePeers)
	return r
}

// later has everything looked at again at that time, or before.
func (r *round) later(at time.Time) {
	if r.next.IsZero() || at.Before(r.next) {
		r.next = at
	}
}

func (r *round) reachable() []*peer {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(r.peers), func(p *peer) bool { return !p.up(now) })
}

func (r *round) run(ctx context.Context) {
	defer r.closeCouriers()
	for _, j := range r.desk.owned() {
		r.read(ctx, j)
		r.findings(ctx, j)
	}
	r.desk.reached(afterClaim)
	for _, key := range slices.Sorted(maps.Keys(r.open)) {
		if m := r.open[key]; m != nil {
			r.send(ctx, m)
		}
	}
	r.settle(ctx)
}

func (r *round) closeCouriers() {
	for _, c := range []courier{r.desk.mail, r.desk.hook} {
		if c != nil {
			c.close()
		}
	}
}

// read goes through one journal.
func (r *round) read(ctx context.Context, j *journalOf) {
	p := r.desk.peer(j.server)
	if p == nil || !p.up(time.Now()) {
		return
	}
	seq := j.seen
	if r.everything {
		seq = 0
	}
	for ctx.Err() == nil {
		batch, err := untold(ctx, p.DB, seq)
		if err != nil {
			r.desk.fell(ctx, p, err)
			return
		}
		if len(batch) == 0 {
			return
		}
		r.batch(ctx, p, batch)
		seq = batch[len(batch)-1].seq
		j.seen = max(j.seen, seq)
		if len(r.settled) >= roundEntries || time.Since(r.began) > roundTime || !r.desk.anyCourier(time.Now()) {
			r.later(time.Now())
			return
		}
	}
}

// addressed is an entry with those who must be told of it.
type addressed struct {
	*entry
	parties []party
	whole   bool
}

// batch looks after some entries of one journal.
func (r *round) batch(ctx context.Context, from *peer, entries []*entry) {
	byHome := map[*peer][]addressed{}
	var homes []*peer
	for _, e := range entries {
		parties, whole := r.partiesOf(ctx, e)
		if len(parties) == 0 && whole {
			r.settled = append(r.settled, settled{journal: from, seq: e.seq})
			continue
		}
		home := r.home(e)
		if home == nil || !home.up(time.Now()) {
			r.later(time.Now().Add(r.desk.pace.Rest))
			for _, p := range parties {
				r.deferred[p.key] = true
			}
			continue
		}
		if byHome[home] == nil {
			homes = append(homes, home)
		}
		byHome[home] = append(byHome[home], addressed{e, parties, whole})
	}
	for _, home := range homes {
		r.tell(ctx, from, home, byHome[home])
	}
}

// home is the server that keeps the notices of a conflict, the same for all processes: the origin of the losing change,
// else that of the winning one, else the first by name. It is nil while that cannot be said.
func (r *round) home(e *entry) *peer {
	for _, origin := range []change.ServerID{e.loser.origin, e.winner.origin} {
		if origin.IsZero() {
			continue
		}
		if p := r.byID[origin]; p != nil {
			return p
		}
		if !r.complete {
			return nil
		}
	}
	return slices.MinFunc(r.peers, func(a, b *peer) int { return cmp.Compare(a.Name, b.Name) })
}

// tell puts entries of one home into the messages of those who have not heard of them.
func (r *round) tell(ctx context.Context, from, home *peer, entries []addressed) {
	ids := make([]journal.ID, len(entries))
	for i, e := range entries {
		ids[i] = e.id
	}
	told, err := noticesOf(ctx, home.DB, ids)
	if err != nil {
		r.desk.fell(ctx, home, err)
		r.later(home.rest)
		return
	}
	r.makeRoom(ctx, len(entries))
	claims := map[*message][]*entry{}
	var order []*message
	for _, e := range entries {
		s := settled{journal: from, seq: e.seq}
		if e.finding != nil {
			s.finding = e.id
		}
		whole := e.whole
		for _, p := range e.parties {
			n, known := told[e.id][p.key]
			if known && n.sent {
				continue
			}
			m := r.message(ctx, p, e.id)
			switch {
			case m == nil, !m.holdsOn(home), !known && (m.resumed || m.digest.size()+len(claims[m]) >= mailEntries):
				whole = false
				r.deferred[p.key] = true
			case !known:
				if claims[m] == nil {
					order = append(order, m)
				}
				claims[m] = append(claims[m], e.entry)
				s.needs = append(s.needs, m)
			case n.message == m.id || m.resumed:
				s.needs = append(s.needs, m)
			default:
				whole = false
			}
		}
		if whole {
			r.settled = append(r.settled, s)
		}
	}
	for _, m := range order {
		r.claim(ctx, m, from, home, claims[m])
	}
}

// claim puts entries into a message.
func (r *round) claim(ctx context.Context, m *message, from, home *peer, entries []*entry) {
	ids := make([]journal.ID, len(entries))
	for i, e := range entries {
		ids[i] = e.id
	}
	claimed, err := r.desk.claim(ctx, m, home, ids)
	if err != nil {
		if !errors.Is(err, errTaken) {
			r.desk.fell(ctx, home, err)
		}
		m.abandoned = true
		r.later(time.Now().Add(r.desk.pace.Rest))
		return
	}
	for _, e := range entries {
		if slices.Contains(claimed, e.id) {
			m.digest.add(e, from)
		}
	}
}

// message returns the message of this round to a party, nil when the party cannot be written to now.
func (r *round) message(ctx context.Context, p party, first journal.ID) *message {
	m, known := r.open[p.key]
	if known && (m == nil || m.abandoned) {
		return nil
	}
	if !known || m.arrived {
		m = r.begin(ctx, p, first)
		r.open[p.key] = m
	}
	return m
}

// makeRoom sends the request under way to the webhook when that many conflicts more would be too many.
func (r *round) makeRoom(ctx context.Context, more int) {
	if m := r.open[hookParty]; m != nil && m.digest.size()+more > hookEntries {
		r.begun--
		r.send(ctx, m)
		if !m.arrived {
			r.open[hookParty] = nil
		}
	}
}

func (r *round) begin(ctx context.Context, p party, first journal.ID) *message {
	d, now := r.desk, time.Now()
	w := d.party(p.key)
	if now.Before(w.until) {
		r.later(w.until)
		return nil
	}
	if r.begun >= openMessages {
		r.later(now)
		return nil
	}
	if c := d.courier(p); !c.open(ctx) {
		r.later(c.next())
		return nil
	}
	m, wait, err := r.take(ctx, p, first)
	if m == nil {
		w.until = now.Add(wait)
		r.later(w.until)
		return nil
	}
	if err == nil && m.resumed {
		err = r.reload(ctx, m)
	}
	if err != nil {
		d.log.Warn("a notice waits", zap.Error(err))
		w.until = now.Add(d.pace.Rest)
		r.later(w.until)
		return nil
	}
	r.begun++
	return m
}

func (d *Desk) courier(p party) courier {
	if p.isHook() {
		return d.hook
	}
	return d.mail
}

// reload finds the entries of a message that was left behind, wherever they are.
func (r *round) reload(ctx context.Context, m *message) error {
	for ids := range slices.Chunk(m.ids, batchSize) {
		missing := slices.Clone(ids)
		for _, p := range r.reachable() {
			if len(missing) == 0 {
				break
			}
			entries, err := entriesOf(ctx, p.DB, missing)
			if err != nil {
				return err
			}
			found, err := findingsOf(ctx, p.DB, missing)
			if err != nil {
				return err
			}
			entries = append(entries, found...)
			for _, e := range entries {
				m.digest.add(e, p)
				missing = slices.DeleteFunc(missing, func(id journal.ID) bool { return id == e.id })
			}
		}
		m.digest.total += len(missing)
	}
	return nil
}

// send delivers a message and records it.
func (r *round) send(ctx context.Context, m *message) {
	d := r.desk
	if m.arrived || m.abandoned || ctx.Err() != nil {
		return
	}
	if m.digest.size() == 0 { // others were faster
		d.release(ctx, m)
		return
	}
	w := d.party(m.party.key)
	err := r.deliver(ctx, m)
	if refused := (*refusedError)(nil); errors.As(err, &refused) {
		m.refusal = refused.Error()
		err = nil
	}
	if err != nil {
		if !errors.Is(err, errTaken) { // another process tells
			d.Stats.Failed.Add(1)
		}
		r.deferred[m.party.key] = true
		r.postpone(m, w, err)
		return
	}
	m.arrived = true
	w.backoff.Reset()
	if m.refusal != "" {
		d.once("refused "+m.party.key, "a recipient is refused", fault.New(fault.Configuration,
			"correct the address; what was to be told is in `replicator conflicts list`", "the mail server refuses %s: %s", m.party.address, m.refusal))
		d.Stats.Refused.Add(1)
	} else {
		delete(d.logged, "refused "+m.party.key)
		d.Stats.Sent.Add(1)
	}
	if !m.party.isHook() {
		w.until = time.Now().Add(d.pace.Every)
	}
	ctx, cancel := lingering(ctx)
	defer cancel()
	if !d.record(ctx, m) {
		w.unrecorded = append(w.unrecorded, m)
	}
	if r.deferred[m.party.key] || m.resumed {
		r.later(w.until)
	}
}

// deliver hands a message to its courier. One that is leaving when the process is told to stop still leaves, so that
// nobody has to wonder whether it did.
func (r *round) deliver(ctx context.Context, m *message) error {
	d := r.desk
	ctx, cancel := lingering(ctx)
	defer cancel()
	c := d.courier(m.party)
	if !c.open(ctx) {
		return errCourier
	}
	text := r.compose(ctx, m)
	ready, err := d.prepare(ctx, m)
	if err != nil {
		return err
	}
	defer ready.finish()
	d.reached(beforeSend)
	defer d.keep(ctx, m)()
	return c.deliver(ctx, text, func() {
		d.reached(afterSend)
		ready.note(ctx)
	})
}

// postpone says when a message that could not be delivered is tried again.
func (r *round) postpone(m *message, w *waiting, err error) {
	d := r.desk
	if errors.Is(err, errCourier) { // has said so, and waits for itself
		r.later(d.courier(m.party).next())
		return
	}
	w.until = time.Now().Add(w.backoff.NextBackOff())
	r.later(w.until)
	if !errors.Is(err, errTaken) {
		f := asFault(err, "tell "+m.party.key)
		d.log.Warn("a notice is delayed", zap.String("party", m.party.key), zap.String("error", f.Text()), zap.Time("again_at", w.until))
	}
}

// lingering outlives a context by a few seconds.
func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	const grace = 3 * time.Second
	long, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return long, func() { stop(); cancel() }
}

// settle marks the entries of which everybody has been told.
func (r *round) settle(ctx context.Context) {
	ctx, cancel := lingering(ctx)
	defer cancel()
	done := map[*peer][]uint64{}
	for _, s := range r.settled {
		if !slices.ContainsFunc(s.needs, func(m *message) bool { return !m.arrived || m.abandoned }) {
			if s.finding == (journal.ID{}) {
				done[s.journal] = append(done[s.journal], s.seq)
			} else if err := markFinding(ctx, s.journal.DB, s.finding); err != nil {
				r.desk.fell(ctx, s.journal, err)
			}
		}
	}
	for p, seqs := range done {
		if err := markNotified(ctx, p.DB, seqs); err != nil {
			r.desk.fell(ctx, p, err)
		}
	}
}
