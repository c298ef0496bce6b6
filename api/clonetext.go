package api

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"time"

	"replicator/clone"
)

// CloneDocument is what a clone has done, as JSON.
type CloneDocument struct {
	From    string               `json:"from"`
	To      string               `json:"to"`
	Seconds float64              `json:"seconds"`
	Rows    string               `json:"rows"`         // of the source
	Copied  string               `json:"rows_copied"`  // of these
	Same    string               `json:"rows_same"`    // that were there already
	Removed string               `json:"rows_removed"` // that only the target had, or had otherwise
	Bytes   string               `json:"bytes"`
	Tables  []CloneTableDocument `json:"tables"`
	Objects []string             `json:"objects"` // views and the like that were made
	Missing []string             `json:"missing"` // that could not be made, and why
}

// CloneTableDocument is one table of a CloneDocument.
type CloneTableDocument struct {
	Table   string `json:"table"`
	Rows    string `json:"rows"`
	Copied  string `json:"rows_copied"`
	Same    string `json:"rows_same"`
	Removed string `json:"rows_removed"`
	Created bool   `json:"created"` // made on the target, or made anew
}

// NewCloneDocument makes the JSON of a report.
func NewCloneDocument(r *clone.Report, from, to string, took time.Duration) CloneDocument {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	d := CloneDocument{
		From: from, To: to, Seconds: took.Seconds(), Rows: number(r.Rows), Copied: number(r.Rows - r.Same), Same: number(r.Same), Removed: number(r.Removed), Bytes: number(r.Bytes),
		Tables: []CloneTableDocument{}, Objects: append([]string{}, r.Objects...), Missing: append([]string{}, r.Missing...),
	}
	for _, t := range r.Tables {
		d.Tables = append(d.Tables, CloneTableDocument{t.Name.String(), number(t.Rows), number(t.Rows - t.Same), number(t.Same), number(t.Removed), t.Created})
	}
	return d
}

// WriteClone writes a report for people.
func WriteClone(w io.Writer, r *clone.Report, from, to string, took time.Duration) error {
	var out bytes.Buffer
	rows := make([][]string, len(r.Tables))
	for i, t := range r.Tables {
		rows[i] = []string{t.Name.String(), strconv.FormatInt(t.Rows-t.Same, 10), strconv.FormatInt(t.Same, 10), strconv.FormatInt(t.Removed, 10)}
	}
	table(&out, "TABLE|COPIED|SAME|REMOVED", rows)
	for _, m := range r.Missing {
		fmt.Fprintf(&out, "\nnot made: %s\n", clean(m))
	}
	fmt.Fprintf(&out, "\n%s is a copy of %s and joins the mesh: %d rows copied in %s", to, from, r.Rows-r.Same, took.Round(100*time.Millisecond))
	if r.Same > 0 {
		fmt.Fprintf(&out, ", %d were there", r.Same)
	}
	out.WriteString(".\n")
	_, err := w.Write(out.Bytes())
	return err
}
