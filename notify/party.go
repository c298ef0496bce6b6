package notify

import (
	"context"
	"database/sql"
	"errors"
	"net/mail"
	"strings"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/config"
	"replicator/fault"
	"replicator/server"
)

// hookParty is the webhook among the parties.
const hookParty = "webhook"

// party is somebody who is told.
type party struct {
	key     string // how replicator.notice calls it
	address string // "" of the webhook
}

func (p party) isHook() bool { return p.key == hookParty }

// details is how many conflicts of one message are told in full.
func (p party) details() int {
	if p.isHook() {
		return hookEntries
	}
	return mailDetails
}

// mailParty reads an address. Two spellings of one address are one party.
func mailParty(text string) (party, bool) {
	if !config.IsMailAddress(text) {
		return party{}, false
	}
	return party{key: strings.ToLower(text), address: text}, true
}

// partiesOf returns who has to be told of an entry, everybody once. whole is false while some of them cannot be found out,
// because a server is not there.
func (r *round) partiesOf(ctx context.Context, e *entry) (list []party, whole bool) {
	d := r.desk
	if d.mutes(e.table) || e.lostNothing() {
		return nil, true
	}
	add := func(p party) {
		for _, other := range list {
			if other.key == p.key {
				return
			}
		}
		list = append(list, p)
	}
	whole = true
	if d.mail != nil {
		for _, s := range []side{e.winner, e.loser} {
			if s.origin.IsZero() {
				continue
			}
			origin := r.byID[s.origin]
			if origin == nil { // not reached yet; or it has left the mesh, and nobody is there to be told
				whole = whole && r.complete
				continue
			}
			for _, text := range origin.Contact {
				if p, ok := mailParty(text); ok {
					add(p)
				}
			}
			p, found, known := r.user(ctx, origin, s.user)
			whole = whole && known
			if found {
				add(p)
			}
		}
	}
	if d.hook != nil {
		add(party{key: hookParty})
	}
	return list, whole
}

// userCache remembers for a moment who a user is.
type userCache struct {
	known map[userKey]userAnswer
}

type userKey struct {
	origin change.ServerID
	user   string
}

type userAnswer struct {
	party party
	found bool
	until time.Time
}

const (
	userMemory = time.Minute
	userLimit  = 10_000
)

func newUserCache() *userCache { return &userCache{known: map[userKey]userAnswer{}} }

// user looks up the address of a user on the server where the change was made. known is false while that server cannot
// be asked.
func (r *round) user(ctx context.Context, origin *peer, user string) (p party, found, known bool) {
	d := r.desk
	if d.query == "" || user == "" {
		return party{}, false, true
	}
	key, now := userKey{origin.ID, user}, time.Now()
	if a, ok := d.users.known[key]; ok && now.Before(a.until) {
		return a.party, a.found, true
	}
	if !origin.up(now) {
		r.later(origin.rest)
		return party{}, false, false
	}
	address, err := lookUpUser(ctx, origin.DB, d.query, user)
	if err != nil {
		f := asFault(err, "run conflict.users.query on "+origin.Name)
		if f.Class.Transient() {
			d.fell(ctx, origin, err)
			r.later(origin.rest)
			return party{}, false, false
		}
		f.Remedy = "correct conflict.users.query, or give the account the privilege to read that table; users are not told meanwhile"
		d.once("users "+origin.Name, "users cannot be looked up", f, zap.String("server", origin.Name))
	}
	a := userAnswer{until: now.Add(userMemory)}
	if err == nil && address != "" {
		if a.party, a.found = mailParty(address); !a.found {
			d.once("address "+origin.Name+user, "a user has no usable address", fault.New(fault.Configuration,
				"correct what conflict.users.query finds for that user", "conflict.users.query finds no mail address on %s", origin.Name),
				zap.String("server", origin.Name), zap.String("user", plain(user, 100)))
		}
	}
	if len(d.users.known) >= userLimit {
		clear(d.users.known)
	}
	d.users.known[key] = a
	return a.party, a.found, true
}

// lookUpUser runs the query with a user id, in a transaction that can only read; "" says that it finds nothing.
func lookUpUser(ctx context.Context, db *sql.DB, query, user string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }() // it has read only
	rows, err := tx.QueryContext(ctx, query, user)
	if server.IsWriteRefused(err) {
		return "", fault.Wrap(err, fault.Configuration, "make it a SELECT", "conflict.users.query may only read")
	}
	if err != nil {
		return "", err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil || len(columns) == 0 {
		return "", errors.Join(err, rows.Err())
	}
	if !rows.Next() {
		return "", rows.Err()
	}
	var address sql.NullString
	into := make([]any, len(columns))
	into[0] = &address
	for i := range into[1:] {
		into[i+1] = new(sql.RawBytes)
	}
	if err := rows.Scan(into...); err != nil {
		return "", err
	}
	return strings.TrimSpace(address.String), rows.Err()
}

func asFault(err error, doing string) *fault.Error {
	if f, ok := fault.As(err); ok {
		return &fault.Error{Class: f.Class, Message: f.Message, Remedy: f.Remedy, Err: f.Err}
	}
	return server.Fault(err, doing)
}

// domainOf is what follows the @.
func domainOf(address string) string {
	a, err := mail.ParseAddress(address)
	if err == nil {
		address = a.Address
	}
	return address[strings.LastIndexByte(address, '@')+1:]
}
