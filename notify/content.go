package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"replicator/change"
	"replicator/journal"
)

// notification is what a message says. As JSON it is the body of a request to the webhook.
type notification struct {
	ID        string         `json:"id"` // the same when it is sent again
	Mesh      string         `json:"mesh"`
	Time      timestamp      `json:"time"`
	Total     int            `json:"total"`
	First     timestamp      `json:"first"`
	Last      timestamp      `json:"last"`
	Conflicts []toldConflict `json:"conflicts"` // all of them in a request; in a mail of many, some
	Findings  []toldFinding  `json:"verifications,omitempty"`
	Tables    []toldCount    `json:"-"`
	Rows      []toldRow      `json:"-"`
	Test      bool           `json:"test,omitempty"` // nothing happened: somebody tries the way
	AtLeast   bool           `json:"-"`              // the counts of rows are at least these

	party   party
	subject []change.TableName
}

type toldConflict struct {
	ID         string          `json:"id"`
	Time       timestamp       `json:"time"`
	Table      string          `json:"table"`
	Key        json.RawMessage `json:"key"`
	Kind       journal.Kind    `json:"kind"`
	Policy     string          `json:"policy"`
	Winner     toldSide        `json:"winner"`
	Loser      toldSide        `json:"loser"`
	Other      json.RawMessage `json:"other,omitempty"` // the key of the row for whose sake the losing one was removed
	Columns    []toldColumn    `json:"columns"`         // that differ; empty when Unreadable, or when the loser deletes the row
	Restorable bool            `json:"restorable"`
	Restore    string          `json:"restore,omitempty"` // the command
	// RestoreColumns are all that the command puts back; none: the whole row.
	RestoreColumns []string `json:"restore_columns,omitempty"`
	Show           string   `json:"show"`
	Waits          bool     `json:"waits,omitempty"`      // policy halt: the link waits for a decision; nothing has won yet
	Unreadable     bool     `json:"unreadable,omitempty"` // the rows cannot be read now
}

type toldSide struct {
	Server  string     `json:"server"` // "" when it is not known
	Time    *timestamp `json:"time"`
	GTID    string     `json:"gtid,omitempty"`
	User    string     `json:"user"`
	Comment string     `json:"comment"`
	Deletes bool       `json:"deletes"` // it leaves no row
}

// toldColumn is a column's value on both sides, as conflicts show prints it. A side that leaves no row has null.
type toldColumn struct {
	Name     string `json:"name"`
	Winner   any    `json:"winner"`
	Loser    any    `json:"loser"`
	Redacted bool   `json:"redacted,omitempty"`
}

type toldCount struct {
	table string
	kind  journal.Kind
	n     int
}

type toldRow struct {
	table string
	key   json.RawMessage
	n     int
}

// timestamp is RFC 3339 in UTC with microseconds.
type timestamp time.Time

func (t timestamp) String() string {
	return time.Time(t).UTC().Format("2006-01-02T15:04:05.000000Z07:00")
}

// MarshalJSON implements json.Marshaler.
func (t timestamp) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// redacted stands for the values of a redacted column.
const redacted = "(redacted)"

// maxPlain is how long a value may be to be told.
const maxPlain = 1 << 10

// compose writes down what a message says.
func (r *round) compose(ctx context.Context, m *message) *notification {
	g := m.digest
	n := &notification{
		ID: m.id, Mesh: r.desk.options.Config.Mesh, Time: timestamp(time.Now()), Total: g.total, First: timestamp(g.first), Last: timestamp(g.last),
		Conflicts: []toldConflict{}, AtLeast: g.approximately, party: m.party, subject: g.tables(),
	}
	for _, d := range g.details {
		n.Conflicts = append(n.Conflicts, r.told(ctx, d))
	}
	for _, e := range g.findings {
		n.Findings = append(n.Findings, r.toldFinding(e))
	}
	for _, c := range g.worstKinds() {
		n.Tables = append(n.Tables, toldCount{c.key.table.String(), c.key.kind, c.n})
	}
	for _, c := range g.worstRows() {
		n.Rows = append(n.Rows, toldRow{c.key.table.String(), redactKey(c.key.key, r.redacts(c.key.table)), c.n})
	}
	return n
}

// redacts returns whether a column's values of a table are not told.
func (r *round) redacts(table change.TableName) func(column string) bool {
	rule := r.desk.options.Config.Tables.Rule(table)
	if rule == nil || rule.Conflict == nil || len(rule.Conflict.Redact) == 0 {
		return nil
	}
	return func(column string) bool {
		return slices.ContainsFunc(rule.Conflict.Redact, func(c string) bool { return strings.EqualFold(c, column) })
	}
}

func (r *round) told(ctx context.Context, d detail) toldConflict {
	redacts := r.redacts(d.table)
	c := toldConflict{
		ID: d.id.String(), Time: timestamp(d.at), Table: d.table.String(), Key: redactKey(d.key, redacts), Kind: d.kind, Policy: d.policy,
		Winner: r.toldSide(d.winner), Loser: r.toldSide(d.loser), Columns: []toldColumn{}, Restorable: d.restorable,
		Show: "replicator conflicts show " + d.id.String(), Waits: journal.Waits(d.policy, d.state),
	}
	winner, loser, found, err := rowsOf(ctx, d.from.DB, d.id)
	if err != nil {
		r.desk.log.Warn("a notice goes without its rows", zap.String("conflict", d.id.String()), zap.Error(err))
	}
	if !found {
		c.Unreadable = true
		return c
	}
	c.rows(winner, loser, redacts, r.desk.options.Config.Added(d.table))
	return c
}

// rows tells what was lost, of the two rows of the journal; the changes of the added columns add up.
func (c *toldConflict) rows(winner, loser *journal.Row, redacts func(column string) bool, added []string) {
	winner, other := c.Kind.Sides(winner, loser)
	if other != nil {
		c.Other = redactKey(other.KeyText(), redacts)
	}
	c.suggest(winner, loser, added)
	c.Winner.Deletes, c.Loser.Deletes = winner == nil, loser == nil
	if loser == nil {
		return
	}
	for _, name := range journal.Differing(winner, loser) {
		column := toldColumn{Name: name, Winner: valueOf(winner, name), Loser: valueOf(loser, name)}
		if redacts != nil && redacts(name) {
			column = toldColumn{Name: name, Winner: redacted, Loser: redacted, Redacted: true}
		}
		c.Columns = append(c.Columns, column)
	}
}

// suggest finds the command that puts back what was lost and nothing else; the changes of the added columns add up.
func (c *toldConflict) suggest(winner, loser *journal.Row, added []string) {
	columns, whole := journal.Suggest(winner, loser, c.Restorable, added)
	c.RestoreColumns = slices.DeleteFunc(columns, func(name string) bool { return plain(name, maxName) != name })
	if whole || len(c.RestoreColumns) > 0 {
		c.Restore = journal.RestoreCommand(c.ID, c.RestoreColumns...)
	}
}

func (r *round) toldSide(s side) toldSide {
	t := toldSide{GTID: s.gtid, User: s.user, Comment: s.comment}
	if !s.origin.IsZero() {
		t.Server = s.origin.String()
		if p := r.byID[s.origin]; p != nil {
			t.Server = p.Name
		}
		t.Time = new(timestamp(s.time.Wall()))
	}
	return t
}

// valueOf is a column's value for a notification; nil for NULL, for a row that is not there, and for a column that it does
// not have. Long values are left out.
func valueOf(row *journal.Row, name string) any {
	if row == nil {
		return nil
	}
	i := slices.IndexFunc(row.Table.Columns, func(c change.Column) bool { return strings.EqualFold(c.Name, name) })
	if i < 0 {
		return nil
	}
	if size := len(row.Values[i].Bytes); size > maxPlain {
		return longValue{size}
	}
	return row.Plain(i)
}

// longValue stands for a value that is too long for a notification.
type longValue struct {
	Bytes int `json:"bytes"`
}

// MarshalJSON implements json.Marshaler.
func (l longValue) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"omitted": map[string]int{"bytes": l.Bytes}})
}

// keyPart is one column of a key.
type keyPart struct {
	name  string
	value json.RawMessage
}

// keyParts reads a key in the order of its columns; false: it cannot be read, as when it was cut.
func keyParts(key []byte) ([]keyPart, bool) {
	d := json.NewDecoder(bytes.NewReader(key))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	var parts []keyPart
	for d.More() {
		t, err := d.Token()
		name, isName := t.(string)
		var value json.RawMessage
		if err != nil || !isName || d.Decode(&value) != nil {
			return nil, false
		}
		parts = append(parts, keyPart{name, value})
	}
	_, err := d.Token()
	return parts, err == nil
}

// redactKey hides the redacted columns of a key. What cannot be read is shown as text, or not at all where something has
// to be hidden.
func redactKey(key string, redacts func(string) bool) json.RawMessage {
	parts, ok := keyParts([]byte(key))
	if !ok {
		if redacts != nil {
			key = redacted
		}
		return quoted(key)
	}
	if redacts == nil {
		return json.RawMessage(key)
	}
	var out bytes.Buffer
	for i, p := range parts {
		out.WriteByte("{,"[min(i, 1)])
		out.Write(quoted(p.name))
		out.WriteByte(':')
		if redacts(p.name) {
			p.value = quoted(redacted)
		}
		out.Write(p.value)
	}
	if len(parts) == 0 {
		out.WriteByte('{')
	}
	out.WriteByte('}')
	return out.Bytes()
}

func quoted(text string) json.RawMessage {
	b, _ := json.Marshal(text) // a string always can be
	return b
}
