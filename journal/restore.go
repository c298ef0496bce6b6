package journal

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"replicator/change"
	"replicator/dml"
	"replicator/fault"
	"replicator/image"
	"replicator/server"
)

// RestoreOptions say how a losing row is put back.
type RestoreOptions struct {
	On string // the server that writes it; "": the one that the losing change came from
	// Columns are the only ones to be restored; none: the whole row, or where columns are merged, those that were lost.
	Columns []string
	// Added are the columns whose changes add up (config.Added). A row that exists keeps its sums in them unless Columns name
	// them: the losing row's would undo what has been added since.
	Added  []string
	DryRun bool // nothing is kept
}

// policyMerge is the policy under which columns win and lose by themselves.
const policyMerge = "merge-columns"

// Restoration is what a restore did, or would do.
type Restoration struct {
	Server    string
	Statement string   // for people; "": the row is like that already
	Replaces  *Row     // the row as it was; nil: there was none
	Done      bool     // false of a dry run
	Restored  []string // the columns of the conflict that are, or would be, restored then
	Left      []string // those that were lost and are not
	Told      []string
	Failed    []Failure // servers whose journals do not know of it: their copies of the conflict stay as they are
}

// Restore writes the losing row of a record (of Show) back, or deletes the row where the losing change had deleted it: an
// ordinary change, as an application's, in one transaction, which replicates everywhere. The row is locked first. Triggers
// that look at @replicator_apply do not fire: what they derived was replicated when the losing change was made.
//
// A dry run executes all of it and rolls back, so that it fails where the restore would. What is in the way (a row with the
// same value of a unique key, a missing parent, children of a row to be deleted) is a fault of class Row that names it.
func Restore(ctx context.Context, servers []Server, r *Record, o RestoreOptions) (*Restoration, error) {
	on, err := chooseServer(servers, r, o.On)
	if err != nil {
		return nil, err
	}
	x := &restorer{server: on, record: r, options: o, result: &Restoration{Server: on.Name}}
	if err := x.run(ctx); err != nil {
		return nil, err
	}
	after := *r
	after.State, after.Restored = Restored, union(r.Restored, x.restores())
	x.result.Restored, x.result.Left = after.RestoredColumns(), after.Left()
	if o.DryRun {
		return x.result, nil
	}
	x.result.Done = true
	x.result.Told, x.result.Failed = SetState(ctx, servers, r.ID, Restored, x.restores()...)
	return x.result, nil
}

func chooseServer(servers []Server, r *Record, name string) (Server, error) {
	origin := r.Loser.Version.Origin
	var unknown []string
	for _, s := range servers {
		switch {
		case name != "" && s.Name != name || name == "" && s.Err == nil && (origin.IsZero() || s.ID != origin):
		case name == "" && s.Err != nil:
			unknown = append(unknown, s.Name)
		case s.Err != nil:
			return Server{}, s.Err
		default:
			return s, nil
		}
	}
	switch {
	case name != "":
		return Server{}, UnknownServer(name, Names(servers))
	case origin.IsZero():
		return Server{}, fault.New(fault.Configuration, "name the server that is to write the row, with --on",
			"it is not known on which server the losing change of conflict %s was made", r.ID)
	case len(unknown) > 0:
		return Server{}, fault.New(fault.Network, "try again when it can be asked, or name another server with --on",
			"the losing change of conflict %s was made on a server that cannot be asked now (%s)", r.ID, strings.Join(unknown, ", "))
	}
	return Server{}, fault.New(fault.Configuration, "name another server with --on",
		"the server on which the losing change of conflict %s was made, %s, is not in the configuration", r.ID, origin)
}

// UnknownServer is the fault that there is no server of a name, among those that there are.
func UnknownServer(name string, known []string) error {
	return fault.New(fault.Configuration, "name one of "+strings.Join(known, ", "), "there is no server %q", name)
}

// Names are the servers' names.
func Names(servers []Server) []string {
	names := make([]string, len(servers))
	for i, s := range servers {
		names[i] = s.Name
	}
	return names
}

// restorer carries one restore out.
type restorer struct {
	server  Server
	record  *Record
	options RestoreOptions
	result  *Restoration

	conn   *sql.Conn
	want   *Row // the losing row; of a delete, the row whose key names what is deleted
	delete bool
	only   []int    // columns of want; nil: all
	kept   []string // of the columns that were lost, those in which the row keeps its sums
	plan   *dml.Plan
	target *server.Table
}

func (x *restorer) run(ctx context.Context) error {
	if err := x.choose(); err != nil {
		return err
	}
	var err error
	if x.conn, err = x.server.DB.Conn(ctx); err != nil {
		return server.Fault(err, "connect to "+x.server.Name)
	}
	defer func() { // the session is not given back: its settings differ
		_ = x.conn.Raw(func(any) error { return driver.ErrBadConn })
		_ = x.conn.Close()
	}()
	if x.target, err = server.OneTable(ctx, x.conn, x.record.Table); err != nil {
		return err
	}
	// The origin's flavor is the row's; another server may be of the other one.
	mixed := x.server.ID != x.record.Loser.Version.Origin
	if x.plan, err = dml.NewPart(x.want.Table, x.target, mixed); err != nil {
		return err
	}
	for _, q := range []string{
		"SET NAMES utf8mb4", "SET SESSION innodb_lock_wait_timeout = 10", "SET @replicator_apply = 1", "BEGIN",
	} {
		if _, err := x.conn.ExecContext(ctx, q); err != nil {
			return server.Fault(err, "prepare the session on "+x.server.Name)
		}
	}
	if err := x.write(ctx); err != nil {
		return err // the session ends, and the transaction with it
	}
	return x.end(ctx)
}

func (x *restorer) end(ctx context.Context) error {
	if x.options.DryRun {
		if _, err := x.conn.ExecContext(ctx, "ROLLBACK"); err != nil {
			return server.Fault(err, "roll the dry run back on "+x.server.Name)
		}
		return nil
	}
	if _, err := setState(ctx, x.conn, x.record.ID, Restored, x.restores()); err != nil && !server.IsMissingTable(err) {
		return server.Fault(err, "write to the journal of "+x.server.Name)
	}
	if _, err := x.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return server.Fault(err, "commit the restore on "+x.server.Name)
	}
	return nil
}

// choose finds out from the record what is to be written, and whether the journal has all of it.
func (x *restorer) choose() error {
	r := x.record
	x.want = r.Loser.Row
	if x.want == nil {
		x.want, x.delete = r.Winner.Row, true
		if len(x.options.Columns) > 0 {
			return fault.New(fault.Configuration, "leave --columns out", "the losing change of conflict %s deleted the row: it has no columns", r.ID)
		}
		if !r.Restorable || x.want == nil {
			return fault.New(fault.Row, "there is nothing to do", "the losing change of conflict %s deleted a row that is not there", r.ID)
		}
	}
	for _, name := range x.options.Columns {
		at := x.want.column(name)
		if at < 0 {
			return fault.New(fault.Configuration, "name columns of the table", "conflict %s has no column %q", r.ID, name)
		}
		if !slices.Contains(x.only, at) {
			x.only = append(x.only, at)
		}
	}
	if len(x.options.Columns) == 0 && !x.delete && r.Winner.Row != nil && r.Policy == policyMerge {
		for _, name := range Differing(r.Winner.Row, r.Loser.Row) { // the others are not the loser's
			x.only = append(x.only, x.want.column(name))
		}
	}
	for i, o := range x.want.Omitted {
		isKey := slices.ContainsFunc(x.want.Table.PrimaryKey, func(p change.KeyPart) bool { return p.Column == i })
		if isKey || !x.delete && (x.only == nil || slices.Contains(x.only, i)) {
			return fault.New(fault.Row, "take the row from a backup; where it exists, restore its other columns with --columns; journal.max_value says how long values may be",
				"conflict %s cannot be restored: the journal did not keep column %s, which has %d bytes (SHA-256 %s)", r.ID,
				x.want.Table.Columns[i].Name, o.Bytes, o.SHA256)
		}
	}
	return nil
}

// write locks the row, changes it, and looks at it again.
func (x *restorer) write(ctx context.Context) error {
	old, err := x.row(ctx, dml.Options{Lock: true})
	if err != nil {
		return err
	}
	x.result.Replaces = old
	if old != nil && !x.delete && len(x.options.Columns) == 0 {
		if err := x.keepSums(); err != nil {
			return err
		}
	}
	if lacks := x.lacks(old); len(lacks) > 0 {
		return x.misfit(old, lacks)
	}
	c := dml.Change{Kind: change.Update, Before: x.want.Values, After: x.want.Values, Only: x.only}
	switch {
	case x.delete && old == nil:
		return x.arrived(ctx)
	case x.delete:
		c.Kind = change.Delete
	case old == nil && len(x.options.Columns) > 0:
		remedy := "restore the whole row: leave --columns out"
		if len(x.want.Omitted) > 0 {
			remedy = fmt.Sprintf("insert the row with what the journal has of it, which `replicator conflicts show %s --json` prints", x.record.ID)
		}
		return fault.New(fault.Row, remedy, "row %s of %s does not exist on %s: single columns cannot be restored", x.record.Key, x.record.Table, x.server.Name)
	case old == nil:
		c.Kind, c.Only, x.only = change.Insert, nil, nil
	case len(x.differing(old)) == 0:
		if left := x.left(); len(left) > 0 && len(without(x.options.Columns, x.record.RestoredColumns())) > 0 {
			return fault.New(fault.Row, "name columns that were lost: "+strings.Join(left, ", "),
				"row %s of %s has the losing values of these columns on %s already: nothing is restored", x.record.Key, x.record.Table, x.server.Name)
		}
		return x.arrived(ctx)
	}
	if x.result.Statement, err = x.plan.RenderText(c); err != nil {
		return err
	}
	s, err := x.plan.Render(c)
	if err != nil {
		return err
	}
	if _, err := s.Exec(ctx, x.conn); err != nil {
		if named := x.inTheWay(ctx, err, old); named != nil {
			return named
		}
		failed := server.Fault(err, fmt.Sprintf("restore row %s of %s on %s", x.record.Key, x.record.Table, x.server.Name))
		if failed.Class == fault.Row { // no link waits for it
			failed.Remedy = "change what the server complains of, then restore again; a column that is new needs a default"
		}
		return failed
	}
	return x.check(ctx)
}

// lacks names the columns that are to be written and that the table does not take any more.
func (x *restorer) lacks(old *Row) (names []string) {
	inserts := old == nil && len(x.options.Columns) == 0
	for i, c := range x.want.Table.Columns {
		written := !x.delete && (inserts || x.only == nil || slices.Contains(x.only, i))
		at := x.target.Column(c.Name)
		generated := at >= 0 && x.target.Columns[at].Generated
		if written && !generated && !x.plan.Takes(i) {
			names = append(names, c.Name)
		}
	}
	return names
}

// misfit says what can be restored of a row where its table's definition has changed since.
func (x *restorer) misfit(old *Row, lacks []string) error {
	var rest []string
	if old != nil {
		rest = slices.DeleteFunc(without(x.record.Left(), x.options.Added), func(name string) bool {
			at := x.want.column(name)
			return at < 0 || x.want.omits(at) || !x.plan.Takes(at) || !x.writes(name)
		})
	}
	remedy := "change the definition of the table so that it takes them, restore, and change it back; or write the row yourself: " +
		"`replicator conflicts show --json` has it"
	if len(rest) > 0 {
		remedy = "restore the others: " + RestoreCommand(x.record.ID.String(), rest...)
	}
	return fault.New(fault.Definition, remedy, "the definition of table %s on %s has changed since: it has no such columns any more, or they do not take these values: %s",
		x.record.Table, x.server.Name, strings.Join(lacks, ", "))
}

// keepSums leaves the columns whose changes add up out of the restore of a row that exists.
func (x *restorer) keepSums() error {
	others := without(x.record.Columns, x.options.Added)
	x.kept = without(x.record.Columns, others)
	switch {
	case len(x.options.Added) == 0:
		return nil
	case len(others) == 0 && len(x.kept) > 0:
		return fault.New(fault.Row, "name them with --columns to set them to what the losing change had left in them",
			"conflict %s is about columns whose changes add up, and these keep their sums: %s", x.record.ID, strings.Join(x.kept, ", "))
	}
	only := []int{}
	for i, c := range x.want.Table.Columns {
		if (x.only == nil || slices.Contains(x.only, i)) && len(without([]string{c.Name}, x.options.Added)) > 0 {
			only = append(only, i)
		}
	}
	x.only = only
	return nil
}

// left names the columns that were lost and that a restore of some columns leaves out.
func (x *restorer) left() []string {
	stands := x.record.stands()
	if len(x.options.Columns) == 0 || stands == nil {
		return nil
	}
	return without(Differing(stands, x.want), append(x.chosen(), x.record.RestoredColumns()...))
}

// chosen names the only columns that are restored.
func (x *restorer) chosen() []string {
	names := make([]string, len(x.only))
	for i, at := range x.only {
		names[i] = x.want.Table.Columns[at].Name
	}
	return names
}

// restores names the columns that are to be recorded as restored: all that were lost, when none is left that can be written.
func (x *restorer) restores() []string {
	if len(x.options.Columns) == 0 {
		return without(x.record.Columns, x.kept)
	}
	if slices.ContainsFunc(without(x.record.Left(), x.chosen()), x.writes) {
		return x.chosen()
	}
	return union(x.record.Columns, x.chosen())
}

// writes reports whether a restore of a column can change it: the server computes some, and the key of a row that was not
// there finds the row.
func (x *restorer) writes(name string) bool {
	at := x.target.Column(name)
	if at >= 0 && x.target.Columns[at].Generated {
		return false
	}
	at = x.want.column(name)
	return x.record.stands() != nil || !slices.ContainsFunc(x.want.Table.PrimaryKey, func(p change.KeyPart) bool { return p.Column == at })
}

// errAway says that a server does not have the winning change yet.
var errAway = errors.New("the winning change has not arrived there yet")

// arrived makes sure that a row which is as it should be stays so. Where the winning change is still on its way, it would
// replace the row; and writing the row once more changes nothing, so that no server would hear of it.
func (x *restorer) arrived(ctx context.Context) error {
	winner := x.record.Winner.Version
	if winner == (change.Version{}) || winner.Origin == x.server.ID {
		return nil
	}
	var raw []byte
	var applied change.Context
	err := x.conn.QueryRowContext(ctx, "SELECT context FROM replicator.heartbeat").Scan(&raw)
	switch {
	case server.IsMissingTable(err):
		return nil // nobody replicates to it
	case errors.Is(err, sql.ErrNoRows): // the process there has just begun
	case err != nil:
		return server.Fault(err, "ask how far "+x.server.Name+" is")
	default:
		if applied, _, err = change.DecodeContext(raw); err != nil {
			return fmt.Errorf("read the heartbeat of %s: %w", x.server.Name, err)
		}
	}
	if applied.Covers(winner) {
		return nil
	}
	return fault.Wrap(errAway, fault.Busy, "try again when its links have caught up (`replicator status`), or name a server that has the winning row, with --on",
		"row %s of %s is on %s as the losing change left it", x.record.Key, x.record.Table, x.server.Name)
}

// Keep restores the losing row of a record, and waits for the winning change where that has not arrived yet: under the
// policy halt, links bring it only when the conflict is acknowledged, which Keep does first. When patience ends before, the
// conflict is acknowledged and the error says that it is not restored.
func Keep(ctx context.Context, servers []Server, r *Record, o RestoreOptions, patience time.Duration) (*Restoration, error) {
	_, _ = SetState(ctx, servers, r.ID, Acknowledged) // who could not be told shows when it is restored
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		x, err := Restore(ctx, servers, r, o)
		if !errors.Is(err, errAway) {
			return x, err
		}
		again := time.NewTimer(keepEvery)
		select {
		case <-again.C:
		case <-deadline.C:
			again.Stop()
			return nil, err
		case <-ctx.Done():
			again.Stop()
			return nil, ctx.Err()
		}
	}
}

// keepEvery is how often Keep looks whether the winning change has arrived.
const keepEvery = 500 * time.Millisecond

// check makes sure that the row is as it should be: the table's own triggers may have their own ideas.
func (x *restorer) check(ctx context.Context) error {
	now, err := x.row(ctx, dml.Options{})
	if err != nil {
		return err
	}
	if x.delete {
		if now == nil {
			return nil
		}
		return x.refused("it is still there")
	}
	if now == nil {
		return x.refused("it is not there")
	}
	if differing := x.differing(now); len(differing) > 0 {
		return x.refused("columns " + strings.Join(differing, ", ") + " have other values")
	}
	return nil
}

func (x *restorer) refused(how string) error {
	return fault.New(fault.Row, "look at the triggers of the table: put their bodies into IF @replicator_apply IS NULL THEN … END IF",
		"row %s of %s was written on %s, and then %s: nothing is changed", x.record.Key, x.record.Table, x.server.Name, how)
}

// differing names the columns to be restored in which a row is not yet as it should be.
func (x *restorer) differing(now *Row) []string {
	return slices.DeleteFunc(Differing(x.want, now), func(name string) bool {
		at := x.target.Column(name)
		return at >= 0 && x.target.Columns[at].Generated || x.only != nil && !slices.Contains(x.only, x.want.column(name))
	})
}

// row reads the row that is restored, nil when there is none.
func (x *restorer) row(ctx context.Context, o dml.Options) (*Row, error) {
	q, err := x.plan.SelectRows([][]image.Value{x.want.Values}, o)
	if err != nil {
		return nil, err
	}
	found, err := q.Run(ctx, x.conn)
	if err != nil {
		return nil, server.Fault(err, fmt.Sprintf("read row %s of %s on %s", x.record.Key, x.record.Table, x.server.Name))
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &Row{Table: x.want.Table, Values: found[0].Values}, nil
}
