package verify

import (
	"encoding/json"
	"fmt"
	"strconv"

	"replicator/journal"
)

// Document is a report as JSON.
type Document struct {
	Equal   *bool           `json:"equal"` // null: not everything could be compared, and nothing differs so far
	Seconds float64         `json:"seconds"`
	Tables  []TableDocument `json:"tables"`
}

// TableDocument is what was found in one table.
type TableDocument struct {
	Table       string               `json:"table"`
	Equal       *bool                `json:"equal"`
	Rows        map[string]*string   `json:"rows"`              // by server; null: not all are counted
	Total       *string              `json:"differences_total"` // null: not known; beside an error, at least so many
	Differences []DifferenceDocument `json:"differences"`
	Error       *string              `json:"error"`
	Skipped     *string              `json:"skipped"`         // why it is none that can be compared
	Lonely      []string             `json:"columns_skipped"` // that the first server does not have: "name (server)"
}

// DifferenceDocument is one row that differs.
type DifferenceDocument struct {
	Key     json.RawMessage         `json:"key"`
	Kind    string                  `json:"kind"`    // "missing" on some server, or "changed"
	Servers map[string]*journal.Row `json:"servers"` // null: it is missing there
	Columns []string                `json:"columns"` // in which those rows differ that are there
}

// Document makes the JSON of a report; servers are their names, in the order of Run.
func (r *Report) Document(servers []string) (Document, error) {
	d := Document{Seconds: r.Elapsed.Seconds(), Tables: []TableDocument{}}
	unknown, differs := false, false
	for i := range r.Tables {
		t, err := r.Tables[i].document(servers)
		if err != nil {
			return d, err
		}
		unknown = unknown || t.Error != nil
		differs = differs || t.Equal != nil && !*t.Equal
		d.Tables = append(d.Tables, t)
	}
	d.Equal = verdict(differs, unknown)
	return d, nil
}

func verdict(differs, unknown bool) *bool {
	if unknown && !differs {
		return nil
	}
	equal := !differs
	return &equal
}

func (t *Table) document(servers []string) (TableDocument, error) {
	d := TableDocument{
		Table: t.Name.String(), Equal: t.Equal(), Rows: map[string]*string{},
		Differences: []DifferenceDocument{}, Lonely: append([]string{}, t.Lonely...),
	}
	known := t.Err == nil && t.Skipped == "" && !t.cut
	for i, n := range t.Rows {
		d.Rows[servers[i]] = count(n, known)
	}
	d.Total = count(t.Total, known || t.Total > 0 && !t.cut)
	if t.Err != nil {
		text := t.Err.Error()
		d.Error = &text
	}
	if t.Skipped != "" {
		d.Skipped = &t.Skipped
	}
	for i := range t.Differences {
		x := &t.Differences[i]
		key, err := x.Any().Key()
		if err != nil {
			return d, fmt.Errorf("print a key of %s: %w", t.Name, err)
		}
		one := DifferenceDocument{Key: key, Kind: "changed", Servers: map[string]*journal.Row{}, Columns: x.Columns()}
		if x.Missing() {
			one.Kind = "missing"
		}
		if one.Columns == nil {
			one.Columns = []string{}
		}
		for j, row := range x.Rows {
			one.Servers[servers[j]] = row
		}
		d.Differences = append(d.Differences, one)
	}
	return d, nil
}

func count(n int64, known bool) *string {
	if !known {
		return nil
	}
	text := strconv.FormatInt(n, 10)
	return &text
}
