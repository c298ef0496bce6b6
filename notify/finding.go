package notify

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"replicator/change"
	"replicator/journal"
)

// Finding is what a comparison of all servers has found. It stands as JSON in replicator.verification until everybody has
// been told.
type Finding struct {
	Began      time.Time    `json:"began"`
	Servers    []string     `json:"servers"`
	Tables     []FoundTable `json:"tables"`
	Incomplete []FoundTable `json:"incomplete"` // that could not be compared
}

// FoundTable is a table that differs.
type FoundTable struct {
	Database string            `json:"database"`
	Table    string            `json:"table"`
	Rows     int64             `json:"rows"` // that differ
	Keys     []json.RawMessage `json:"keys"` // of the first of them
}

// FoundKeys is how many keys of a table are told, FoundTables how many tables of a comparison.
const (
	FoundKeys   = 5
	FoundTables = 100
)

func (f FoundTable) name() change.TableName {
	return change.TableName{Database: f.Database, Table: f.Table}
}

// toldFinding is a Finding as a message tells it.
type toldFinding struct {
	ID         string      `json:"id"`
	Began      timestamp   `json:"began"`
	Servers    []string    `json:"servers"`
	Tables     []toldTable `json:"tables"`
	Incomplete []string    `json:"incomplete"`
}

type toldTable struct {
	Table  string            `json:"table"`
	Rows   int64             `json:"rows,string"`
	Keys   []json.RawMessage `json:"keys"`
	Verify string            `json:"verify"`           // the command that shows all
	Repair string            `json:"repair,omitempty"` // the command that makes server B equal to server A
}

const findingColumns = "SELECT id, CAST(saved_at AS CHAR), detail FROM replicator.verification WHERE kind = 'finding' AND "

// findingsPending reports whether a server has findings that have not been told.
func findingsPending(ctx context.Context, db *sql.DB) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var pending bool
	err := db.QueryRowContext(ctx, "SELECT EXISTS (SELECT * FROM replicator.verification WHERE notified = 0)").Scan(&pending)
	return pending, err
}

func untoldFindings(ctx context.Context, db *sql.DB) ([]*entry, error) {
	return readFindings(ctx, db, "notified = 0 ORDER BY saved_at, id LIMIT ?", batchSize)
}

func findingsOf(ctx context.Context, db *sql.DB, ids []journal.ID) ([]*entry, error) {
	return readFindings(ctx, db, "id IN ("+marks(len(ids))+")", idArgs(ids)...)
}

func readFindings(ctx context.Context, db *sql.DB, where string, args ...any) ([]*entry, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	rows, err := db.QueryContext(ctx, findingColumns+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*entry
	for rows.Next() {
		var id, at, detail []byte
		if err := rows.Scan(&id, &at, &detail); err != nil {
			return nil, fmt.Errorf("read replicator.verification: %w", err)
		}
		e := &entry{finding: &Finding{}}
		copy(e.id[:], id)
		if e.at, err = time.Parse("2006-01-02 15:04:05.999999", string(at)); err != nil {
			return nil, fmt.Errorf("read replicator.verification: %w", err)
		}
		if err := json.Unmarshal(detail, e.finding); err != nil {
			return nil, fmt.Errorf("read replicator.verification: %w", err)
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

func markFinding(ctx context.Context, db *sql.DB, id journal.ID) error {
	if err := exec(ctx, db, "UPDATE replicator.verification SET notified = 1, saved_at = saved_at WHERE kind = 'finding' AND id = ?", id[:]); err != nil {
		return fmt.Errorf("mark a comparison as told: %w", err)
	}
	return nil
}

// findings looks after what comparisons have found. It stands on one server, which is also the home of its notices.
func (r *round) findings(ctx context.Context, j *journalOf) {
	p := r.desk.peer(j.server)
	if !r.everything || p == nil || !p.up(time.Now()) {
		return
	}
	found, err := untoldFindings(ctx, p.DB)
	if err != nil {
		r.desk.fell(ctx, p, err)
		return
	}
	var list []addressed
	for _, e := range found {
		parties := r.partiesOfFinding(e.finding)
		if len(parties) == 0 {
			r.settled = append(r.settled, settled{journal: p, finding: e.id})
			continue
		}
		list = append(list, addressed{e, parties, true})
	}
	if len(list) > 0 {
		r.tell(ctx, p, p, list)
	}
}

// partiesOfFinding are the contacts of all servers, and the webhook.
func (r *round) partiesOfFinding(f *Finding) (list []party) {
	if !slices.ContainsFunc(f.Tables, func(t FoundTable) bool { return !r.desk.mutes(t.name()) }) {
		return nil
	}
	if r.desk.mail != nil {
		for _, s := range r.peers {
			for _, text := range s.Contact {
				if p, ok := mailParty(text); ok && !slices.ContainsFunc(list, func(o party) bool { return o.key == p.key }) {
					list = append(list, p)
				}
			}
		}
	}
	if r.desk.hook != nil {
		list = append(list, party{key: hookParty})
	}
	return list
}

// mutes reports whether nobody is told of a table.
func (d *Desk) mutes(table change.TableName) bool {
	rule := d.options.Config.Tables.Rule(table)
	return rule != nil && rule.Conflict != nil && rule.Conflict.Mute
}

func (r *round) toldFinding(e *entry) toldFinding {
	f := toldFinding{ID: e.id.String(), Began: timestamp(e.finding.Began), Servers: e.finding.Servers, Tables: []toldTable{}, Incomplete: []string{}}
	for _, t := range e.finding.Tables {
		if r.desk.mutes(t.name()) {
			continue
		}
		one := toldTable{Table: t.name().String(), Rows: t.Rows, Keys: []json.RawMessage{}, Verify: "replicator verify"}
		for _, key := range t.Keys {
			one.Keys = append(one.Keys, redactKey(string(key), r.redacts(t.name())))
		}
		if typed.MatchString(one.Table) {
			one.Verify += " " + one.Table
			one.Repair = "replicator resync table " + one.Table + " --from A --to B"
		}
		f.Tables = append(f.Tables, one)
	}
	for _, t := range e.finding.Incomplete {
		if !r.desk.mutes(t.name()) {
			f.Incomplete = append(f.Incomplete, t.name().String())
		}
	}
	return f
}

// typed are the names of tables that can be typed into a shell as they are.
var typed = regexp.MustCompile(`^[A-Za-z0-9_]+\.[A-Za-z0-9_]+$`)

func (f *toldFinding) text(t *strings.Builder, mesh string) {
	fmt.Fprintf(t, "The servers of the mesh %s were compared, beginning at %s. They are not equal.\n", mesh, clock(f.Began))
	for _, x := range f.Tables {
		fmt.Fprintf(t, "\nTable %s: %s\n", plain(x.Table, maxName), count(x.Rows, "row differs", "rows differ"))
		for _, key := range x.Keys {
			fmt.Fprintf(t, "  %s\n", keyText(key))
		}
		if more := x.Rows - int64(len(x.Keys)); more > 0 && len(x.Keys) > 0 {
			fmt.Fprintf(t, "  and %d more\n", more)
		}
		fmt.Fprintf(t, "  To look closer:  %s\n", x.Verify)
		if x.Repair != "" {
			fmt.Fprintf(t, "  To repair:       %s\n", x.Repair)
		}
	}
	servers := make([]string, len(f.Servers))
	for i, s := range f.Servers {
		servers[i] = plain(s, maxName)
	}
	fmt.Fprintf(t, "\nA stands for the server that has the right rows, B for one that is to get them. The servers are %s.\n", strings.Join(servers, ", "))
	if len(f.Incomplete) > 0 {
		names := make([]string, 0, len(f.Incomplete))
		for _, name := range f.Incomplete {
			names = append(names, plain(name, maxName))
		}
		fmt.Fprintf(t, "Not compared, or not to the end: %s.\n", strings.Join(names, ", "))
	}
}

func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// differing are the tables of findings, sorted.
func differing(findings []toldFinding) []string {
	var names []string
	for _, f := range findings {
		for _, t := range f.Tables {
			names = append(names, t.Table)
		}
	}
	slices.SortFunc(names, cmp.Compare[string])
	return slices.Compact(names)
}
