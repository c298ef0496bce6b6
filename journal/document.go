package journal

import (
	"encoding/csv"
	"encoding/json"
	"slices"
	"strings"
	"unicode"

	"replicator/change"
)

// Document is a conflict as command line and HTTP print it. Unknown is null.
type Document struct {
	ID         string          `json:"id"`
	Time       string          `json:"time"`
	Table      string          `json:"table"`
	Key        json.RawMessage `json:"key"`
	Kind       Kind            `json:"kind"`
	Policy     string          `json:"policy"`
	Winner     PartyDocument   `json:"winner"`
	Loser      PartyDocument   `json:"loser"`
	Columns    []string        `json:"columns"`
	User       *string         `json:"user"`    // who made the losing change
	Comment    *string         `json:"comment"` // what for
	Servers    []string        `json:"servers"`
	State      string          `json:"state"`
	Restored   []string        `json:"restored_columns"` // that were put back; null: it is not restored
	Restorable bool            `json:"restorable"`
	Notified   bool            `json:"notified"`
	// Unreachable are the servers that could not be asked: what they know is missing.
	Unreachable []string `json:"unreachable"`
}

// PartyDocument is one side of a conflict.
type PartyDocument struct {
	Origin  *string `json:"origin"`  // the server's name, or its identity where no configured server has it
	Version *string `json:"version"` // a time; null: older than everything that is remembered
	GTID    *string `json:"gtid"`
	User    *string `json:"user"`
	Comment *string `json:"comment"`
}

// Shown is a Document with its rows; null is no row.
type Shown struct {
	Document
	WinnerRow *Row `json:"winner_row"`
	LoserRow  *Row `json:"loser_row"`
}

// RestorationDocument is a Restoration as command line and HTTP print it.
type RestorationDocument struct {
	ID          string   `json:"id"`
	Server      string   `json:"server"`
	Done        bool     `json:"done"`      // false of a dry run
	Statement   *string  `json:"statement"` // null: the row is like that already
	Replaces    *Row     `json:"replaces"`  // null: there is no such row
	Journals    []string `json:"journals"`  // that have the conflict as restored
	Unreachable []string `json:"unreachable"`
	Restored    []string `json:"restored_columns"` // that are restored then, now or before
	Left        []string `json:"left_columns"`     // that were lost and are not
}

const timeFormat = "2006-01-02T15:04:05.000000Z"

// Document prints the record; the servers give origins their names, and the failures are those that could not be asked.
func (r *Record) Document(servers []Server, failed []Failure) Document {
	d := Document{
		ID: r.ID.String(), Time: r.Time.UTC().Format(timeFormat), Table: r.Table.String(), Key: r.Key, Kind: r.Kind, Policy: r.Policy,
		Winner: r.Winner.document(servers), Loser: r.Loser.document(servers), Columns: list(r.Columns), Servers: r.Servers, State: r.State,
		Restorable: r.Restorable, Notified: r.Notified, Unreachable: serverNames(failed),
	}
	if r.State == Restored {
		d.Restored = list(r.RestoredColumns())
	}
	d.User, d.Comment = d.Loser.User, d.Loser.Comment
	return d
}

// Shown prints a record of Show.
func (r *Record) Shown(servers []Server, failed []Failure) Shown {
	return Shown{Document: r.Document(servers, failed), WinnerRow: r.Winner.Row, LoserRow: r.Loser.Row}
}

// Documents prints all records.
func Documents(records []*Record, servers []Server, failed []Failure) []Document {
	all := make([]Document, len(records))
	for i, r := range records {
		all[i] = r.Document(servers, failed)
	}
	return all
}

func (p *Party) document(servers []Server) PartyDocument {
	d := PartyDocument{GTID: known(p.GTID), User: known(p.User), Comment: known(p.Comment)}
	if p.Version == (change.Version{}) {
		return d
	}
	d.Version = known(p.Version.Time.String())
	d.Origin = known(p.Version.Origin.String())
	for _, s := range servers {
		if s.ID == p.Version.Origin {
			d.Origin = known(s.Name)
		}
	}
	return d
}

// Sums are those of the conflict's columns of which nothing was lost: both sides updated the row, and the changes of the added
// columns add up.
func (d *Document) Sums(added []string) []string {
	if d.Kind != UpdateOriginDiffers {
		return nil // what was concurrent with a row's insert or deletion is lost with it
	}
	return without(d.Columns, without(d.Columns, added))
}

// Left names the columns that were lost and have not been put back.
func (d *Document) Left() []string { return without(d.Columns, d.Restored) }

// Suggest says what a restore is still to put back (see the function of this name); the changes of the added columns add up.
func (s *Shown) Suggest(added []string) (columns []string, whole bool) {
	stands, _ := s.Kind.Sides(s.WinnerRow, s.LoserRow)
	columns, whole = Suggest(stands, s.LoserRow, s.Restorable, append(slices.Clip(added), s.Restored...))
	if whole && s.State == Restored { // in part: the row is there again
		return without(s.Left(), added), false
	}
	return columns, whole
}

// RestoreCommand is the command that puts a conflict's losing row back, or some of its columns, for a shell.
func RestoreCommand(id string, columns ...string) string {
	command := "replicator conflicts restore " + id
	if len(columns) == 0 {
		return command
	}
	var names strings.Builder
	w := csv.NewWriter(&names) // as the flag is read
	_ = w.Write(columns)       // a Builder takes everything
	w.Flush()
	text := strings.TrimSuffix(names.String(), "\n")
	if strings.ContainsFunc(text, func(c rune) bool { return c != '_' && c != ',' && !unicode.IsLetter(c) && !unicode.IsDigit(c) }) {
		text = "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	return command + " --columns " + text
}

// list is never nil: it prints as [].
func list(names []string) []string { return append([]string{}, names...) }

func known(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// Document prints the restoration of a record.
func (x *Restoration) Document(r *Record) RestorationDocument {
	return RestorationDocument{
		ID: r.ID.String(), Server: x.Server, Done: x.Done, Statement: known(x.Statement), Replaces: x.Replaces,
		Journals: list(x.Told), Unreachable: serverNames(x.Failed), Restored: list(x.Restored), Left: list(x.Left),
	}
}

func serverNames(failed []Failure) []string {
	names := make([]string, len(failed))
	for i, f := range failed {
		names[i] = f.Server
	}
	return names
}
