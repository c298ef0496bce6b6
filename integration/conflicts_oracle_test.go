package integration

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// place is a row of a table.
type place struct {
	table string
	key   int
}

// outcome is what is left of a workload.
type outcome struct {
	rows   map[place]map[string]string // on every server
	tags   map[string]place            // of those rows
	losers map[string][]conflictEntry  // by the losing row's tag
	gone   map[string]bool             // "site table key": deletes that lost
	missed map[string]bool             // "site table key": rows that came back there, over nobody knew what
	count  int                         // entries

	cards     map[int]map[string]string
	lostCards map[int][]map[string]string
}

// check compares what is left with the history, and returns how many entries the journal has.
func (w *workload) check(t *testing.T) int {
	t.Helper()
	o := w.outcome(t)
	problems := 0
	report := func(format string, args ...any) {
		if problems++; problems <= 10 {
			t.Errorf(format, args...)
		}
	}
	for _, wr := range w.history.writes {
		w.checkWrite(o, wr, report)
	}
	for _, r := range w.history.removals {
		w.checkRemoval(o, r, report)
	}
	w.checkCards(o, report)
	for id, want := range w.history.taken {
		var got int64
		if err := w.sites[0].db.QueryRow(fmt.Sprintf("SELECT quantity FROM %s.stock WHERE id = ?", w.database), id).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			report("row %d of stock holds %d, everything added makes %d", id, got, want)
		}
	}
	if problems > 10 {
		t.Errorf("and %d problems more", problems-10)
	}
	if problems == 0 && o.count > 0 {
		t.Logf("%d journal entries, %d rows left", o.count, len(o.rows))
	}
	return o.count
}

// checkWrite demands that a write is there, or was overwritten by an application that had seen it, or is in the journal
// with its whole image.
func (w *workload) checkWrite(o *outcome, wr *write, report func(string, ...any)) {
	if at, ok := o.tags[wr.tag]; ok {
		if at != (place{wr.table, wr.key}) || !sameImage(wr, o.rows[at]) {
			report("write %s of %s left %v in %s, there is %v", wr.tag, wr.site, wr.image, wr.table, o.rows[at])
		}
		if wr.table == "thing" && len(o.losers[wr.tag]) > 0 {
			report("write %s of %s is in the journal as lost, and in the table: %v", wr.tag, wr.site, wr.image)
		}
		return
	}
	if w.history.overwritten[wr.tag] {
		return
	}
	for _, e := range o.losers[wr.tag] {
		if e.Table == w.database+"."+wr.table && sameImage(wr, textRow(e.LoserRow)) {
			return
		}
	}
	report("write %s of %s is lost without a trace: %s %v; the journal has %d images of it", wr.tag, wr.site, wr.table, wr.image,
		len(o.losers[wr.tag]))
}

// sameImage compares a row with what a write left; a child whose parent went may have lost its reference since.
func sameImage(wr *write, row map[string]string) bool {
	if row == nil {
		return false
	}
	for name, want := range wr.image {
		if row[name] != want && (name != "pid" || row[name] != "NULL") {
			return false
		}
	}
	return true
}

// checkRemoval demands that a row which stands although it was deleted, or a successor of it that had not seen the delete,
// won over that delete by the journal's word.
func (w *workload) checkRemoval(o *outcome, r removal, report func(string, ...any)) {
	row, stands := o.rows[place{r.table, r.key}]
	if !stands || !w.descends(row["tag"], r.tag) {
		return
	}
	if w.wroteAgain(r) || o.gone[removalName(r.site, r.table, r.key)] {
		return
	}
	// A foreign key took the row along. MariaDB does not log that: what is known of it is the delete of the parent, and when
	// the parent has been put back since, only that the row was missing on the server where it went.
	if r.parent != 0 && (o.gone[removalName(r.site, "parent", r.parent)] || o.missed[removalName(r.site, r.table, r.key)]) {
		return
	}
	report("%s deleted row %d of %s with tag %s, and the row is there, %v, without an entry of the lost delete", r.site, r.key, r.table,
		r.tag, row)
}

// wroteAgain reports whether an application of the same server has put a row where it was removed, a new one or one that
// had another key: then that row, made on top of the delete, is what lost.
func (w *workload) wroteAgain(r removal) bool {
	for _, wr := range w.history.writes {
		before := w.history.writes[wr.before]
		arrives := before == nil || before.key != wr.key
		if wr.site == r.site && wr.table == r.table && wr.key == r.key && arrives {
			return true
		}
	}
	return false
}

// descends reports whether a row's tag is another's or was made on top of it.
func (w *workload) descends(tag, from string) bool {
	for tag != "" {
		if tag == from {
			return true
		}
		wr := w.history.writes[tag]
		if wr == nil {
			return false
		}
		tag = wr.before
	}
	return false
}

func removalName(site, table string, key int) string {
	return fmt.Sprintf("%s %s %d", site, table, key)
}

func (w *workload) outcome(t *testing.T) *outcome {
	t.Helper()
	o := &outcome{
		rows: map[place]map[string]string{}, tags: map[string]place{}, losers: map[string][]conflictEntry{}, gone: map[string]bool{}, missed: map[string]bool{},
		cards: map[int]map[string]string{}, lostCards: map[int][]map[string]string{},
	}
	for _, table := range append(workloadTables, "card") {
		rows, err := readRows(w.sites[0].db.Query("SELECT * FROM " + w.database + "." + table))
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			key, err := strconv.Atoi(row["id"])
			if err != nil {
				t.Fatal(err)
			}
			if table == "card" {
				o.cards[key] = row
				continue
			}
			o.rows[place{table, key}] = row
			o.tags[row["tag"]] = place{table, key}
		}
	}
	entries, err := w.journalOf(w.database)
	if err != nil {
		t.Fatal(err)
	}
	o.count = len(entries)
	for _, e := range entries {
		key, err := strconv.Atoi(valueText(e.Key["id"]))
		if err != nil {
			t.Fatal(err)
		}
		if e.Table == w.database+".card" {
			o.lostCards[key] = append(o.lostCards[key], textRow(e.LoserRow))
			continue
		}
		if e.LoserRow == nil {
			table := strings.TrimPrefix(e.Table, w.database+".")
			o.gone[removalName(w.origin(e.Loser), table, key)] = true
			for _, s := range e.Servers {
				o.missed[removalName(s, table, key)] = o.missed[removalName(s, table, key)] || e.Kind == "update_missing"
			}
			continue
		}
		tag := valueText(e.LoserRow["tag"])
		o.losers[tag] = append(o.losers[tag], e)
	}
	return o
}

func textRow(row map[string]any) map[string]string {
	texts := map[string]string{}
	for name, v := range row {
		texts[name] = valueText(v)
	}
	return texts
}

// journalOf reads the journals of all servers, merged, straight from their tables: a random workload has more conflicts than
// the program could show one by one.
func (g *stage) journalOf(database string) ([]conflictEntry, error) {
	var all []conflictEntry
	places := map[string]int{}
	for _, s := range g.sites {
		rows, err := readRows(s.db.Query("SELECT LOWER(HEX(id)) id, table_name, key_columns, kind, policy, LOWER(HEX(winner_origin)) winner, "+
			"winner_row, LOWER(HEX(loser_origin)) loser, loser_row, `columns`, state, restorable FROM replicator.conflict "+
			"WHERE database_name = ? ORDER BY seq", database))
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if at, ok := places[row["id"]]; ok {
				all[at].Servers = append(all[at].Servers, s.name)
				continue
			}
			e, err := entryOf(database, row)
			if err != nil {
				return nil, fmt.Errorf("%w in %v", err, row)
			}
			e.Servers = []string{s.name}
			places[e.ID] = len(all)
			all = append(all, e)
		}
	}
	return all, nil
}

func entryOf(database string, row map[string]string) (conflictEntry, error) {
	e := conflictEntry{
		ID: row["id"], Table: database + "." + row["table_name"], Kind: row["kind"], Policy: row["policy"], State: row["state"],
		Restorable: row["restorable"] == "1",
	}
	for text, side := range map[string]*conflictSide{row["winner"]: &e.Winner, row["loser"]: &e.Loser} {
		if text != "NULL" {
			side.Origin = &text
		}
	}
	var err error
	if e.WinnerRow, err = storedRow(row["winner_row"]); err != nil {
		return e, err
	}
	if e.LoserRow, err = storedRow(row["loser_row"]); err != nil {
		return e, err
	}
	if err := json.Unmarshal([]byte(row["key_columns"]), &e.Key); err != nil {
		return e, err
	}
	return e, json.Unmarshal([]byte(row["columns"]), &e.Columns)
}

// storedRow reads a row of the journal: its values say by one member each what they are.
func storedRow(text string) (map[string]any, error) {
	if text == "NULL" {
		return nil, nil
	}
	var stored struct {
		Columns []struct{ Name string }
		Values  []map[string]any
	}
	if err := json.Unmarshal([]byte(text), &stored); err != nil {
		return nil, err
	}
	row := map[string]any{}
	for i, c := range stored.Columns {
		row[c.Name] = nil
		for _, v := range stored.Values[i] {
			row[c.Name] = v
		}
	}
	return row, nil
}
