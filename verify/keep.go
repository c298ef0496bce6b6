package verify

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"replicator/change"
	"replicator/checkpoint"
	"replicator/fault"
	"replicator/image"
	"replicator/resync/chunk"
	"replicator/server"
)

// keeper keeps how far a comparison is in replicator.verification of the first server, so that the same comparison goes on
// there when this process has died. A lock of its session keeps two processes from one comparison: it ends with the process.
type keeper struct {
	conn   *sql.Conn
	locked bool
	id     checkpoint.ComparisonID
	left   map[change.TableName]step // by an earlier process
	whole  checkpoint.Step           // of the comparison itself
	dirty  map[*comparison]bool      // what is not recorded yet
	next   time.Time                 // when it is recorded again
}

const (
	keepEvery   = 500 * time.Millisecond
	keepEffort  = 5 // times as long as recording took is the pause after it, at the least
	keepTimeout = 10 * time.Second
	keepBytes   = 256 << 10 // of a table with more rows open than that holds, nothing is recorded until they are settled
	// lockWait is for a process that has just been killed; lockIdle for one whose machine has died.
	lockWait = 2 * time.Second
	lockIdle = time.Hour
)

// step is how far a comparison is with one table. All rows up to a place have been compared; those of them that were not
// equal are listed, whether they have been settled or not: they are looked at again.
type step struct {
	Definition string       `json:"definition"` // of the table on all servers
	Done       bool         `json:"done"`       // to the end
	UpTo       []keyValue   `json:"up_to,omitempty"`
	Rows       []int64      `json:"rows"`
	Keys       [][]keyValue `json:"keys,omitempty"`
	More       int64        `json:"more,omitempty"` // differences that were settled, and of which no key is kept

	began time.Time
}

// keyValue is a value of a key.
type keyValue struct {
	Kind  image.Kind `json:"kind"`
	Int   int64      `json:"int,omitempty"`
	Uint  uint64     `json:"uint,omitempty"`
	Float float64    `json:"float,omitempty"`
	Bytes []byte     `json:"bytes,omitempty"`
}

// whole is what a comparison says of itself.
type whole struct {
	Tables string `json:"tables"` // their names
}

// resume finds out whether there is something to go on with, and prepares to record how far this comparison is.
func (v *verifier) resume(ctx context.Context, names []change.TableName) {
	k := &keeper{id: v.id(), dirty: map[*comparison]bool{}}
	err := v.lock(ctx, k)
	if err == nil {
		err = v.takeUp(ctx, k, names)
	}
	if err != nil {
		k.release(ctx)
		v.note("this comparison begins at the beginning, and could not be gone on with if it were ended: %v", err)
		return
	}
	v.keep = k
}

// id is the same for the same command.
func (v *verifier) id() (id checkpoint.ComparisonID) {
	text := fmt.Appendf(nil, "%q %t %d", v.opt.Scope, v.opt.Quick, v.opt.Limit)
	for i := range v.servers {
		text = append(text, v.servers[i].ID[:]...)
	}
	sum := sha256.Sum256(text)
	copy(id[:], sum[:])
	return id
}

func (v *verifier) lock(ctx context.Context, k *keeper) (err error) {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	first := &v.servers[0]
	if k.conn, err = first.DB.Conn(ctx); err != nil {
		return server.Fault(err, "connect to "+first.Name)
	}
	var got sql.NullInt64
	_, err = k.conn.ExecContext(ctx, fmt.Sprintf("SET SESSION wait_timeout = %d", lockIdle/time.Second))
	if err == nil {
		err = k.conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, ?)", k.lockName(), lockWait/time.Second).Scan(&got)
	}
	switch {
	case err != nil:
		return server.Fault(err, "lock the comparison on "+first.Name)
	case got.Int64 != 1:
		return fault.New(fault.Busy, "wait for it", "the same comparison is under way elsewhere")
	}
	k.locked = true
	return nil
}

// takeUp reads what an earlier process has left, and forgets it where it cannot be gone on with.
func (v *verifier) takeUp(ctx context.Context, k *keeper, names []change.TableName) error {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	steps, age, err := checkpoint.LoadSteps(ctx, k.conn, k.id)
	if err != nil {
		return server.Fault(err, "find out how far an earlier comparison was")
	}
	self := whole{Tables: hashOf(fmt.Appendf(nil, "%q", names))}
	why, rows := "", int64(0)
	k.left = map[change.TableName]step{}
	for _, s := range steps {
		var before whole
		one := step{began: s.Began}
		switch {
		case s.Table == change.TableName{}:
			if json.Unmarshal(s.Detail, &before) != nil || before != self {
				why = "the tables are others now"
			}
		case json.Unmarshal(s.Detail, &one) != nil || len(one.Rows) != len(v.servers):
			why = "what it has left cannot be read"
		default:
			k.left[s.Table] = one
			rows += slices.Max(one.Rows)
		}
	}
	switch {
	case len(steps) == 0:
	case v.opt.Anew:
		why = "so it was asked for"
	case age > checkpoint.StepsKept:
		why = "that was too long ago"
	}
	if why != "" {
		v.note("an earlier comparison did not come to its end; this one begins at the beginning: %s", why)
		k.left = nil
	}
	if len(k.left) > 0 {
		v.note("going on where an earlier comparison ended %s ago: with %d tables begun, and %d rows compared", age.Round(time.Second), len(k.left), rows)
	}
	begun, err := checkpoint.Now(ctx, k.conn)
	if err != nil {
		return server.Fault(err, "read a clock")
	}
	if err := v.begin(ctx, k, self, begun); err != nil {
		return server.Fault(err, "record how far the comparison is")
	}
	return nil
}

// begin records the comparison as a whole.
func (v *verifier) begin(ctx context.Context, k *keeper, self whole, now time.Time) error {
	detail, err := json.Marshal(self)
	if err != nil {
		return fmt.Errorf("bug: encode a comparison: %w", err)
	}
	tx, err := k.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	if len(k.left) == 0 {
		if err := checkpoint.DropSteps(ctx, tx, k.id); err != nil {
			return err
		}
	}
	if err := checkpoint.TrimVerification(ctx, tx); err != nil {
		return err
	}
	k.whole = checkpoint.Step{Began: now, Detail: detail}
	if err := checkpoint.SaveSteps(ctx, tx, k.id, []checkpoint.Step{k.whole}); err != nil {
		return err
	}
	return tx.Commit()
}

// release ends the lock. What has been recorded stays.
func (k *keeper) release(ctx context.Context) {
	if k == nil || k.conn == nil {
		return
	}
	const patience = 2 * time.Second // a process that stops does not wait for it
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if k.locked {
		_, _ = k.conn.ExecContext(ctx, "DO RELEASE_LOCK(?)", k.lockName()) // it ends with the session, too
	}
	_ = k.conn.Close()
	k.conn = nil
}

func (k *keeper) lockName() string { return "replicator.verify." + hex.EncodeToString(k.id[:]) }

// changed says that something is to be recorded of a table.
func (c *comparison) changed() {
	if c.keep != nil {
		c.keep.dirty[c] = true
	}
}

// record records how far the comparison is, if that has not been done just now. It must not be called in the middle of a
// range.
func (v *verifier) record(ctx context.Context) {
	k := v.keep
	if k == nil || time.Now().Before(k.next) || len(k.dirty) == 0 {
		return
	}
	began := time.Now()
	var steps []checkpoint.Step
	for c := range k.dirty {
		if s, ok := c.step(); ok {
			steps = append(steps, s)
			delete(k.dirty, c)
		}
	}
	if err := k.save(ctx, steps); err != nil {
		if ctx.Err() == nil {
			v.note("from here on this comparison could not be gone on with if it were ended: %v", server.Fault(err, "record how far it is"))
			k.release(ctx)
			v.keep = nil
		}
		return
	}
	pause := v.opt.pause
	if pause == 0 {
		pause = max(keepEvery, keepEffort*time.Since(began))
	}
	k.next = time.Now().Add(pause)
}

func (k *keeper) save(ctx context.Context, steps []checkpoint.Step) error {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	return checkpoint.SaveSteps(ctx, k.conn, k.id, append(steps, k.whole))
}

// step is how far the comparison of the table is; false: that cannot be recorded now.
func (c *comparison) step() (checkpoint.Step, bool) {
	if c.result.Err != nil {
		return checkpoint.Step{}, false
	}
	s := step{
		Definition: c.Definition, Done: c.place.done, Rows: c.place.rows, UpTo: c.keyOf(c.place.upTo),
		More: c.result.Total - int64(len(c.kept)),
	}
	for _, values := range c.kept {
		s.Keys = append(s.Keys, c.keyOf(values))
	}
	for _, x := range c.open {
		if x.of == c {
			s.Keys = append(s.Keys, c.keyOf(anyOf(x.rows)))
		}
	}
	detail, err := json.Marshal(s)
	return checkpoint.Step{Table: c.result.Name, Began: c.result.Began, Detail: detail}, err == nil && len(detail) <= keepBytes
}

// restore goes to where an earlier comparison of the table was.
func (c *comparison) restore() {
	if c.keep == nil {
		return
	}
	s, found := c.keep.left[c.result.Name]
	if !found {
		return
	}
	if s.Definition != c.Definition {
		c.note("%s is compared from the beginning: its definition has changed", c.result.Name)
		return
	}
	c.result.Began, c.result.Total = s.began, s.More
	c.place = place{upTo: c.rowOf(s.UpTo), rows: s.Rows, done: s.Done}
	copy(c.result.Rows, s.Rows)
	for _, key := range s.Keys {
		rows := make([][]image.Value, len(c.Sites))
		if rows[0] = c.rowOf(key); rows[0] != nil {
			c.suspect(&suspect{of: c, rows: rows})
		}
	}
}

// keyOf takes the key of a row, nil of none.
func (c *comparison) keyOf(row []image.Value) (key []keyValue) {
	if row == nil {
		return nil
	}
	for _, p := range c.Source.PrimaryKey {
		x := row[p.Column]
		key = append(key, keyValue{Kind: x.Kind, Int: x.Int, Uint: x.Uint, Float: x.Float, Bytes: x.Bytes})
	}
	return key
}

// rowOf makes a row of which nothing but the key is known, nil of none.
func (c *comparison) rowOf(key []keyValue) []image.Value {
	if len(key) != len(c.Source.PrimaryKey) {
		return nil
	}
	row := make([]image.Value, len(c.Source.Columns))
	for i, p := range c.Source.PrimaryKey {
		row[p.Column] = image.Value{Kind: key[i].Kind, Int: key[i].Int, Uint: key[i].Uint, Float: key[i].Float, Bytes: key[i].Bytes}
	}
	return row
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// conclude records on all servers what was found. On the first, what else depends on it is recorded in the same
// transaction, and its failure is the error: the same comparison can be gone on with then.
func (v *verifier) conclude(ctx context.Context, r *Report) error {
	var found []checkpoint.Verified
	for i := range r.Tables {
		t := &r.Tables[i]
		if equal := t.Equal(); equal != nil && !t.Began.IsZero() {
			found = append(found, checkpoint.Verified{Table: t.Name, At: t.Began, Equal: *equal})
		}
	}
	errs := make([]error, len(v.servers))
	_ = chunk.Each(len(v.servers), func(i int) error {
		errs[i] = v.concludeOn(ctx, i, found, r)
		return nil
	})
	if errs[0] != nil && v.opt.Conclude != nil {
		return server.Fault(errs[0], "record what the comparison has found on "+v.servers[0].Name)
	}
	for i, err := range errs {
		if err != nil {
			v.note("what was found is not kept on %s: %v", v.servers[i].Name, server.Fault(err, "record it"))
		}
	}
	return nil
}

func (v *verifier) concludeOn(ctx context.Context, i int, found []checkpoint.Verified, r *Report) error {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	var begin interface {
		BeginTx(ctx context.Context, o *sql.TxOptions) (*sql.Tx, error)
	} = v.servers[i].DB
	first := i == 0
	if first && v.keep != nil {
		begin = v.keep.conn
	}
	tx, err := begin.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	if err := checkpoint.SaveVerified(ctx, tx, found); err != nil {
		return err
	}
	if !first {
		if err := checkpoint.TrimVerification(ctx, tx); err != nil {
			return err
		}
		return tx.Commit()
	}
	if v.keep != nil {
		if err := checkpoint.DropSteps(ctx, tx, v.keep.id); err != nil {
			return err
		}
	}
	if v.opt.Conclude != nil {
		if err := v.opt.Conclude(ctx, tx, r); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (v *verifier) note(format string, args ...any) { v.opt.Note(fmt.Sprintf(format, args...)) }
