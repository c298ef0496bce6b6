package journal

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"replicator/change"
	"replicator/fault"
)

// Party is one side of a conflict as the journals have it.
type Party struct {
	Version       change.Version // zero: not known
	GTID          string         // "": not known
	User, Comment string
	Row           *Row // of Show only; nil: there is no row
}

// Record is a conflict, put together from the copies of all servers that could be asked.
type Record struct {
	ID            ID
	Time          time.Time // when it was decided first
	Table         change.TableName
	Key           json.RawMessage // an object
	Kind          Kind
	Policy        string
	Winner, Loser Party
	Columns       []string // in which the rows differ
	Servers       []string // that have it in their journals, in the order of the mesh
	State         string
	Restored      []string // of a record in the state restored: the columns that were put back; none: all that there is
	Restorable    bool
	Notified      bool
}

// Server is one whose journal is read.
type Server struct {
	Name string
	DB   *sql.DB
	ID   change.ServerID // zero: not known, because it could not be asked
	Err  error           // why it cannot be asked, or nil
}

// Failure is a server whose journal could not be read or changed.
type Failure struct {
	Server string
	Err    error
}

// serverTimeout bounds what one server is asked for.
const serverTimeout = 10 * time.Second

const recordColumns = "id, decided_at, database_name, table_name, key_columns, kind, policy, winner_origin, winner_time, winner_gtid," +
	" winner_user, winner_comment, loser_origin, loser_time, loser_gtid, loser_user, loser_comment, `columns`, state, restorable, notified"

// scan reads recordColumns, then what more points to.
func scan(rows *sql.Rows, server string, more ...any) (*Record, error) {
	r := &Record{Servers: []string{server}}
	var id, winnerOrigin, loserOrigin, key, columns []byte
	var at string
	var winnerTime, loserTime sql.NullInt64
	var texts [6]sql.NullString
	into := []any{
		&id, &at, &r.Table.Database, &r.Table.Table, &key, &r.Kind, &r.Policy, &winnerOrigin, &winnerTime, &texts[0], &texts[1],
		&texts[2], &loserOrigin, &loserTime, &texts[3], &texts[4], &texts[5], &columns, &r.State, &r.Restorable, &r.Notified,
	}
	if err := rows.Scan(append(into, more...)...); err != nil {
		return nil, err
	}
	copy(r.ID[:], id)
	var err error
	if r.Time, err = time.Parse("2006-01-02 15:04:05.999999", at); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(columns, &r.Columns); err != nil {
		return nil, fmt.Errorf("read the columns of conflict %s: %w", r.ID, err)
	}
	r.Key = json.RawMessage(key)
	r.Winner = party(winnerOrigin, winnerTime, texts[:3])
	r.Loser = party(loserOrigin, loserTime, texts[3:])
	return r, nil
}

func party(origin []byte, at sql.NullInt64, texts []sql.NullString) Party {
	p := Party{GTID: texts[0].String, User: texts[1].String, Comment: texts[2].String}
	p.Version.Time = change.Time(at.Int64)
	copy(p.Version.Origin[:], origin)
	return p
}

// states in the order in which a conflict goes through them.
var states = []string{Open, Acknowledged, Restored}

func stateRank(state string) int {
	for i, s := range states {
		if s == state {
			return i
		}
	}
	return 0
}

// closer reports whether r was written closer to the conflict than o: where it was settled (only the server that did it tells
// the kind; others meet what it published), or against the older winner.
func (r *Record) closer(o *Record) bool {
	if settles := r.Kind.Removal() != ""; settles != (o.Kind.Removal() != "") {
		return settles
	}
	mine, theirs := r.Winner.Version, o.Winner.Version
	if mine == theirs || mine == (change.Version{}) || theirs == (change.Version{}) {
		return theirs == (change.Version{}) && mine != theirs
	}
	return mine.Compare(theirs) < 0
}

// merge takes over what another server's copy knows better.
func (r *Record) merge(o *Record) {
	if o.closer(r) {
		r.Kind, o.Kind = o.Kind, r.Kind
		r.Winner, o.Winner = o.Winner, r.Winner
		r.Columns, o.Columns = o.Columns, r.Columns
	}
	if r.Policy == policyMerge { // each server knows what was lost there
		r.Columns = union(r.Columns, o.Columns)
	}
	if o.Time.Before(r.Time) {
		r.Time = o.Time
	}
	r.Servers = append(r.Servers, o.Servers...)
	r.Notified = r.Notified || o.Notified
	r.Restorable = r.Restorable || o.Restorable
	r.Restored = union(r.Restored, o.Restored)
	if stateRank(o.State) > stateRank(r.State) {
		r.State = o.State
	}
	r.Loser.fill(o.Loser)
	if r.Winner.Version == o.Winner.Version {
		r.Winner.fill(o.Winner)
	}
}

// RestoredColumns are the columns that were put back, nil when the conflict is not restored.
func (r *Record) RestoredColumns() []string {
	if r.State == Restored && len(r.Restored) == 0 {
		return r.Columns
	}
	return r.Restored
}

// Left names the columns that were lost and have not been put back.
func (r *Record) Left() []string { return without(r.Columns, r.RestoredColumns()) }

// stands is the losing row as the winning change leaves it, of a record of Show.
func (r *Record) stands() *Row {
	stands, _ := r.Kind.Sides(r.Winner.Row, r.Loser.Row)
	return stands
}

func (p *Party) fill(o Party) {
	if p.GTID == "" {
		p.GTID = o.GTID
	}
	if p.User == "" {
		p.User = o.User
	}
	if p.Comment == "" {
		p.Comment = o.Comment
	}
}

// Show finds one conflict, with its rows, by its id or by as many of the id's first digits as tell it from the others. The
// failures are the servers that could not be asked.
func Show(ctx context.Context, servers []Server, text string) (*Record, []Failure, error) {
	low, high, err := idRange(text)
	if err != nil {
		return nil, nil, err
	}
	copies, failed := ask(ctx, servers, func(ctx context.Context, s Server) ([]*Record, error) {
		return readWhole(ctx, s, low, high)
	})
	var found *Record
	for _, list := range copies {
		for _, r := range list {
			switch {
			case found == nil:
				found = r
			case found.ID != r.ID:
				return nil, failed, fault.New(fault.Configuration, "give more digits of the id", "several conflicts begin with %s: %s and %s, among others",
					text, found.ID, r.ID)
			default:
				found.mergeRows(r)
			}
		}
	}
	if found == nil {
		if len(failed) > 0 {
			return nil, failed, fault.New(fault.Network, "try again when all servers can be asked",
				"no server that could be asked has conflict %s; not asked: %s", text, strings.Join(serverNames(failed), ", "))
		}
		return nil, nil, fault.New(fault.Configuration, "see `replicator conflicts list` for those there are", "there is no conflict %s", text)
	}
	return found, failed, nil
}

// mergeRows is merge for records with rows: a copy that kept more of the losing row is preferred.
func (r *Record) mergeRows(o *Record) {
	if o.Restorable && !r.Restorable {
		r.Winner, o.Winner = o.Winner, r.Winner
		r.Loser, o.Loser = o.Loser, r.Loser
	}
	won, lost := r.Winner.Row, r.Loser.Row
	merged := r.Policy == policyMerge && won != nil && lost != nil && o.Winner.Row != nil && o.Loser.Row != nil
	if merged {
		more := without(Differing(o.Winner.Row, o.Loser.Row), Differing(won, lost))
		won.take(o.Winner.Row, more)
		lost.take(o.Loser.Row, more)
	}
	r.merge(o)
	if merged {
		r.Columns = Differing(won, lost)
	}
}

const idDigits = 2 * len(ID{})

// idRange gives the ids that begin with the digits.
func idRange(text string) (low, high ID, err error) {
	bad := fault.New(fault.Configuration, "give the id, or its first digits, as `replicator conflicts list` shows it", "%q is no conflict's id", text)
	if text == "" || len(text) > idDigits {
		return low, high, bad
	}
	a, errA := hex.DecodeString(text + strings.Repeat("0", idDigits-len(text)))
	b, errB := hex.DecodeString(text + strings.Repeat("f", idDigits-len(text)))
	if errA != nil || errB != nil {
		return low, high, bad
	}
	return ID(a), ID(b), nil
}

func readWhole(ctx context.Context, s Server, low, high ID) ([]*Record, error) {
	const few = 2 // two are too many already
	rows, err := s.DB.QueryContext(ctx, "SELECT "+recordColumns+", winner_row, loser_row FROM replicator.conflict WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
		low[:], high[:], few)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []*Record
	for rows.Next() {
		var winner, loser []byte
		r, err := scan(rows, s.Name, &winner, &loser)
		if err != nil {
			return nil, err
		}
		if r.Winner.Row, err = DecodeRow(winner); err != nil {
			return nil, err
		}
		if r.Loser.Row, err = DecodeRow(loser); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return list, readRestored(ctx, s, list)
}
