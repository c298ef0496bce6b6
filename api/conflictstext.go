package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"replicator/journal"
)

// WriteConflicts writes a list for people; added are the columns of a conflict's table whose changes add up.
func WriteConflicts(w io.Writer, list []journal.Document, added func(i int) []string) error {
	var out bytes.Buffer
	if len(list) == 0 {
		out.WriteString("no conflicts\n")
	} else {
		rows := make([][]string, len(list))
		for i, d := range list {
			rows[i] = []string{
				d.ID, d.Time, d.Table, brief(string(d.Key), 40), string(d.Kind), known(d.Winner.Origin), known(d.Loser.Origin), stateText(&d),
				brief(columnsText(&d, added(i)), 40),
			}
		}
		table(&out, "ID|TIME|TABLE|KEY|KIND|WON|LOST|STATE|COLUMNS", rows)
	}
	_, err := w.Write(bytes.TrimLeft(out.Bytes(), "\n"))
	return err
}

// WriteConflict writes one conflict for people: what is known of both changes, then both rows column by column, and how to
// put back what was lost. The changes of the added columns add up.
func WriteConflict(w io.Writer, s journal.Shown, added []string) error {
	var out bytes.Buffer
	line := func(name, value string) { fmt.Fprintf(&out, "%-9s %s\n", name, clean(value)) }
	line("conflict", s.ID+", "+stateText(&s.Document))
	line("time", s.Time)
	line("row", s.Table+" "+string(s.Key))
	line("kind", string(s.Kind)+", decided by "+s.Policy)
	line("journals", strings.Join(s.Servers, ", "))
	won, lost := "won", "lost"
	waits := journal.Waits(s.Policy, s.State)
	if waits {
		won, lost = "to win", "to lose"
	}
	line(won, partyLine(s.Winner))
	line(lost, partyLine(s.Loser))
	stands, other := s.Kind.Sides(s.WinnerRow, s.LoserRow)
	sums := s.Sums(added)
	rows := compareRows(stands, s.LoserRow, s.Columns, sums)
	if other != nil {
		rows = compareRows(other, s.LoserRow, nil, nil) // two rows: none of their differences was lost
	}
	if len(rows) > 0 {
		table(&out, "|COLUMN|"+strings.ToUpper(won+"|"+lost), rows)
	}
	out.WriteByte('\n')
	if len(sums) > 0 {
		fmt.Fprintf(&out, "+ The changes of %s add up: nothing of them was lost.\n", clean(strings.Join(sums, ", ")))
	}
	if why := s.Kind.Removal(); why != "" && stands == nil && s.LoserRow != nil && !waits {
		fmt.Fprintf(&out, "The replicator removed the row, %s; nobody deleted it.\n", why)
	}
	if other != nil {
		fmt.Fprintf(&out, "The other row is %s: while it has that value, a restore is refused.\n", clean(other.KeyText()))
	}
	writeRemedy(&out, s, added)
	_, err := w.Write(out.Bytes())
	return err
}

// columnsText tells the columns that were lost from those whose changes add up.
func columnsText(d *journal.Document, added []string) string {
	var lost []string
	sums := d.Sums(added)
	for _, name := range d.Columns {
		if !slices.Contains(sums, name) {
			lost = append(lost, name)
		}
	}
	text := strings.Join(lost, ", ")
	if len(sums) > 0 {
		text = strings.TrimSpace(text + " (added up: " + strings.Join(sums, ", ") + ")")
	}
	return text
}

// stateText names the columns that were put back where others were not.
func stateText(d *journal.Document) string {
	if d.State != journal.Restored || len(d.Left()) == 0 {
		return d.State
	}
	return d.State + ": " + brief(strings.Join(d.Restored, ", "), 40)
}

// writeRemedy says how what was lost can be put back.
func writeRemedy(out *bytes.Buffer, s journal.Shown, added []string) {
	if journal.Waits(s.Policy, s.State) {
		fmt.Fprintf(out, "A link waits until a person decides: replicator conflicts ack %s --keep winner|loser\n", s.ID)
		return
	}
	left := s.Left()
	columns, whole := s.Suggest(added)
	if s.State == journal.Restored && len(left) == 0 {
		out.WriteString("What was lost has been restored.\n")
		return
	}
	what := "what was lost"
	if s.State == journal.Restored || !s.Restorable {
		what = "the other columns"
	}
	switch {
	case whole || len(columns) > 0:
		if !s.Restorable {
			out.WriteString("The journal did not keep all of the losing row.\n")
		}
		fmt.Fprintf(out, "restore %s: %s\n", what, clean(journal.RestoreCommand(s.ID, columns...)))
	case s.Restorable && len(left) > 0:
		fmt.Fprintf(out, "The changes of these columns add up: %s. A restore sets them where --columns names them.\n", clean(strings.Join(left, ", ")))
	case s.LoserRow != nil:
		out.WriteString("The journal did not keep all of the losing row: what is missing cannot be restored.\n")
	default:
		out.WriteString("There is nothing to restore.\n")
	}
}

func partyLine(p journal.PartyDocument) string {
	text := "on " + known(p.Origin) + " at " + known(p.Version)
	if p.GTID != nil {
		text += ", GTID " + *p.GTID
	}
	if p.User != nil {
		text += ", by " + *p.User
	}
	if p.Comment != nil {
		text += ": " + *p.Comment
	}
	return text
}

// compareRows gives one line to each column; those that differ have a star in front, or a plus where their changes add up.
func compareRows(winner, loser *journal.Row, differing, sums []string) [][]string {
	var names []string
	for _, r := range []*journal.Row{winner, loser} {
		for _, name := range r.Names() {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	var rows [][]string
	for _, name := range names {
		mark := ""
		switch {
		case slices.Contains(sums, name):
			mark = "+"
		case slices.Contains(differing, name):
			mark = "*"
		}
		a, b := apart(cell(winner, name), cell(loser, name))
		rows = append(rows, []string{mark, name, a, b})
	}
	return rows
}

const (
	cellWidth = 60
	alike     = 20 // how much is shown of what two long values have in common
)

// apart shortens two values so that it is seen where they differ.
func apart(a, b string) (shortA, shortB string) {
	shortA, shortB = brief(a, cellWidth), brief(b, cellWidth)
	if shortA != shortB || a == b {
		return shortA, shortB
	}
	x, y := []rune(a), []rune(b)
	same := 0
	for same < len(x) && same < len(y) && x[same] == y[same] {
		same++
	}
	from := max(0, same-alike)
	return "…" + brief(string(x[from:]), cellWidth-1), "…" + brief(string(y[from:]), cellWidth-1)
}

// What a cell says where there is no value.
const (
	noRow    = "(no row)"
	noColumn = "(no such column)"
	null     = "NULL"
)

// quoted writes a text so that it is not taken for something else, or for another text that looks the same.
func quoted(text string) string {
	ambiguous := text == noRow || text == noColumn || text == null || text != strings.TrimSpace(text) || strings.HasPrefix(text, `"`)
	if ambiguous || strings.ContainsFunc(text, unicode.IsControl) {
		return strconv.Quote(text)
	}
	return text
}

func cell(r *journal.Row, name string) string {
	if r == nil {
		return noRow
	}
	v, ok := r.Value(name)
	switch text, isText := v.(string); {
	case !ok:
		return noColumn
	case v == nil:
		return null
	case isText:
		return quoted(text)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return unknown
	}
	return string(text)
}

func brief(text string, most int) string {
	runes := []rune(text)
	if len(runes) <= most {
		return text
	}
	return string(runes[:most-1]) + "…"
}

// WriteRestoration writes for people what a restore did, or would do.
func WriteRestoration(w io.Writer, d journal.RestorationDocument) error {
	var out bytes.Buffer
	ran := "ran"
	if !d.Done {
		ran = "would run"
	}
	switch {
	case d.Statement == nil:
		fmt.Fprintf(&out, "nothing is to be changed: the row on %s is like that already\n", d.Server)
	case d.Replaces == nil:
		fmt.Fprintf(&out, "on %s, where the row did not exist, this %s:\n\n  %s;\n", d.Server, ran, clean(*d.Statement))
	default:
		row, err := d.Replaces.MarshalJSON() // as it is: json.Marshal would escape for HTML
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "on %s this %s:\n\n  %s;\n\nin place of:\n\n  %s\n", d.Server, ran, clean(*d.Statement), clean(string(row)))
	}
	if d.Done && len(d.Left) > 0 {
		fmt.Fprintf(&out, "\nof conflict %s these columns are restored: %s; these are not: %s\nthe journals of %s say so\n", d.ID,
			clean(strings.Join(d.Restored, ", ")), clean(strings.Join(d.Left, ", ")), strings.Join(d.Journals, ", "))
	} else if d.Done {
		fmt.Fprintf(&out, "\nconflict %s is restored; it says so in the journals of: %s\n", d.ID, strings.Join(d.Journals, ", "))
	}
	_, err := w.Write(out.Bytes())
	return err
}

// WriteAcknowledged writes which journals have a conflict as acknowledged, or still as restored.
func WriteAcknowledged(w io.Writer, d journal.Document, told []string, failed []journal.Failure, asJSON bool) error {
	unreachable := []string{}
	for _, f := range failed {
		unreachable = append(unreachable, f.Server)
	}
	if asJSON {
		return WriteJSON(w, map[string]any{"id": d.ID, "state": d.State, "journals": list(told), "unreachable": unreachable})
	}
	is := "is acknowledged"
	if d.State == journal.Restored {
		is = "was " + clean(stateText(&d)) + ", and stays so"
	}
	_, err := fmt.Fprintf(w, "conflict %s %s in the journals of: %s\n", d.ID, is, strings.Join(told, ", "))
	return err
}
