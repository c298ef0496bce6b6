package api

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"replicator/verify"
)

// Incomplete reports whether something could not be compared.
func Incomplete(d verify.Document) bool {
	return slices.ContainsFunc(d.Tables, func(t verify.TableDocument) bool { return t.Error != nil })
}

// WriteVerified writes what a comparison has found for people; servers are in the order of the columns.
func WriteVerified(w io.Writer, d verify.Document, servers []string) error {
	var out bytes.Buffer
	rows := make([][]string, len(d.Tables))
	var equal, differ, skipped, incomplete int
	for i, t := range d.Tables {
		row := []string{t.Table, ""}
		switch {
		case t.Equal != nil && !*t.Equal:
			differ++
			switch total := known(t.Total); total {
			case unknown:
				row[1] = "differs"
			case "1":
				row[1] = "1 row differs"
			default:
				row[1] = total + " rows differ"
			}
		case t.Skipped != nil:
			skipped++
			row[1] = "skipped: " + *t.Skipped
		case t.Error != nil:
			incomplete++
			row[1] = unknown
		default:
			equal++
			row[1] = "equal"
		}
		for _, s := range servers {
			row = append(row, known(t.Rows[s]))
		}
		rows[i] = row
	}
	table(&out, "TABLE|RESULT|"+strings.Join(servers, "|"), rows)
	for _, t := range d.Tables {
		if t.Error != nil {
			fmt.Fprintf(&out, "\n%s could not be compared: %s\n", clean(t.Table), clean(*t.Error))
		}
		if len(t.Lonely) > 0 {
			fmt.Fprintf(&out, "\n%s, not compared: column %s\n", clean(t.Table), clean(strings.Join(t.Lonely, ", ")))
		}
		if t.Equal == nil || *t.Equal || t.Total == nil {
			continue
		}
		fmt.Fprintf(&out, "\n%s:\n", clean(t.Table))
		for i := range t.Differences {
			writeDifference(&out, &t.Differences[i], servers)
		}
		if total, err := strconv.Atoi(*t.Total); err == nil && total > len(t.Differences) {
			fmt.Fprintf(&out, "  %d of %d are shown; --limit N shows more\n", len(t.Differences), total)
		}
	}
	fmt.Fprintf(&out, "\ntables: %d equal, %d differ, %d skipped, %d incomplete; %.1f s\n", equal, differ, skipped, incomplete, d.Seconds)
	_, err := w.Write(bytes.TrimLeft(out.Bytes(), "\n"))
	return err
}

// writeDifference writes the key, and what each server has in the columns that differ.
func writeDifference(out *bytes.Buffer, d *verify.DifferenceDocument, servers []string) {
	fmt.Fprintf(out, "  %s %s\n", d.Kind, clean(string(d.Key)))
	for _, s := range servers {
		row := d.Servers[s]
		if row == nil {
			fmt.Fprintf(out, "    %s: no such row\n", s)
			continue
		}
		var parts []string
		for _, name := range d.Columns {
			parts = append(parts, name+"="+cell(row, name))
		}
		if len(parts) == 0 {
			parts = []string{"has it"}
		}
		fmt.Fprintf(out, "    %s: %s\n", s, clean(strings.Join(parts, ", ")))
	}
}
