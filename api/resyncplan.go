package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"replicator/journal"
	"replicator/verify"
)

// ResyncPlan is what a resync would do to one server, as JSON.
type ResyncPlan struct {
	Table string      `json:"table"`
	From  string      `json:"from"`
	To    string      `json:"to"`
	Total *string     `json:"rows_total"` // to be written; null: not known
	Rows  []ResyncRow `json:"rows"`       // the first of them
	Error *string     `json:"error"`      // why it is not known
}

// ResyncRow is one row that would be written.
type ResyncRow struct {
	Key     json.RawMessage `json:"key"`
	Do      string          `json:"do"`      // insert, update or delete
	Columns []string        `json:"columns"` // of an update: those that differ
	Source  *journal.Row    `json:"source"`  // null: it has no such row
	Target  *journal.Row    `json:"target"`
}

// NewResyncPlan reads a comparison of two servers: the first has the right rows.
func NewResyncPlan(r *verify.Report, from, to string) (ResyncPlan, error) {
	p := ResyncPlan{From: from, To: to, Rows: []ResyncRow{}}
	d, err := r.Document([]string{from, to})
	if err != nil || len(d.Tables) == 0 {
		return p, err
	}
	t := d.Tables[0]
	p.Table, p.Total, p.Error = t.Table, t.Total, t.Error
	if t.Skipped != nil {
		p.Error = t.Skipped
	}
	for _, x := range t.Differences {
		row := ResyncRow{Key: x.Key, Do: "update", Columns: x.Columns, Source: x.Servers[from], Target: x.Servers[to]}
		switch {
		case row.Source == nil:
			row.Do = "delete"
		case row.Target == nil:
			row.Do = "insert"
		}
		p.Rows = append(p.Rows, row)
	}
	return p, nil
}

// WriteResyncPlans writes plans for people.
func WriteResyncPlans(w io.Writer, plans []ResyncPlan) error {
	var out bytes.Buffer
	for i, p := range plans {
		if i > 0 {
			out.WriteByte('\n')
		}
		rows := known(p.Total) + " rows"
		if rows == "1 rows" {
			rows = "1 row"
		}
		fmt.Fprintf(&out, "%s, %s to %s: %s would be written\n", clean(p.Table), p.From, p.To, rows)
		if p.Error != nil {
			fmt.Fprintf(&out, "it is not known: %s\n", clean(*p.Error))
		}
		for _, r := range p.Rows {
			key, err := compact(r.Key)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "  %s %s", r.Do, clean(key))
			if len(r.Columns) > 0 {
				fmt.Fprintf(&out, " (%s)", clean(strings.Join(r.Columns, ", ")))
			}
			out.WriteByte('\n')
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

func compact(raw json.RawMessage) (string, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", fmt.Errorf("print a key: %w", err)
	}
	return b.String(), nil
}
