package api

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"replicator/mesh"
)

// unknown stands where a value is not known. It is never 0 and never empty.
const unknown = "?"

// maxReplayTables is how many tables on the replay path are listed one by one.
const maxReplayTables = 20

// WriteText writes a status for people: aligned columns, plain ASCII layout, errors with their remedies at the end.
func WriteText(w io.Writer, s mesh.Status) error {
	var out bytes.Buffer
	writeHead(&out, s)
	writeServers(&out, s.Servers)
	writeLinks(&out, s.Links)
	writeTables(&out, s)
	writeCounts(&out, s)
	writeErrors(&out, s)
	_, err := w.Write(out.Bytes())
	return err
}

func writeHead(out *bytes.Buffer, s mesh.Status) {
	fmt.Fprintf(out, "mesh %s at %s, ", clean(s.Mesh), moment(s.Time))
	if s.Source == "tables" {
		out.WriteString("read from the servers: no process answered\n")
		return
	}
	processes := make([]string, len(s.Processes))
	for i, p := range s.Processes {
		processes[i] = clean(p.ID) + " on " + clean(p.Host)
		if p.Site != "" {
			processes[i] += " (site " + clean(p.Site) + ")"
		}
		if p.State != "" {
			processes[i] += " " + clean(p.State)
		}
	}
	fmt.Fprintf(out, "told by process %s\n", strings.Join(processes, ", "))
}

func writeServers(out *bytes.Buffer, servers []mesh.ServerStatus) {
	rows := make([][]string, len(servers))
	for i, s := range servers {
		reach := unknown
		if s.Reachable != nil {
			reach = map[bool]string{true: "reachable", false: "unreachable"}[*s.Reachable]
		}
		skew := unknown
		if s.ClockSkewSeconds != nil {
			// Rounded first: a negative nothing is nothing.
			skew = fmt.Sprintf("%+.3f s", math.Round(*s.ClockSkewSeconds*1000)/1000+0)
		}
		rows[i] = []string{s.Name, s.Endpoint, known(s.Flavor), known(s.Version), reach, known(s.Owner), skew, compression(s.Compression)}
	}
	table(out, "SERVER|ENDPOINT|FLAVOR|VERSION|STATE|OWNER|CLOCK SKEW|COMPRESSION", rows)
}

// compression names both kinds of connections where they differ: that of the binlog first.
func compression(c mesh.CompressionStatus) string {
	reader, apply := known(c.Reader), known(c.Apply)
	if reader == apply {
		return reader
	}
	return reader + ", " + apply
}

func writeLinks(out *bytes.Buffer, links []mesh.LinkStatus) {
	rows := make([][]string, len(links))
	for i, l := range links {
		rows[i] = []string{
			arrow(l.From, l.To), known(new(string(l.State))), decimal(l.LagSeconds, " s"), integer(l.Transactions), integer(l.Rows),
			decimal(l.RowsPerSecond, ""), integer(l.LostRows), integer(l.OverwrittenRows), integer(l.SupersededRows),
			integer(l.Retries),
		}
	}
	table(out, "LINK|STATE|LAG|TRANSACTIONS|ROWS|ROWS/S|LOST|OVERWRITTEN|SUPERSEDED|RETRIES", rows)
}

// writeTables gives one line to every table, path and reason, with the links that share them. Of those that are as they
// should be not all are listed.
func writeTables(out *bytes.Buffer, s mesh.Status) {
	type line struct{ table, path, reason, verified string }
	var order []line
	links := map[line][]string{}
	for _, t := range s.Tables {
		l := line{t.Table, t.Path, t.Reason, verified(t)}
		if links[l] == nil {
			order = append(order, l)
		}
		links[l] = append(links[l], arrow(t.From, t.To))
	}
	var rows [][]string
	replay, more := 0, 0
	for _, l := range order {
		if l.path != "portable" && !strings.HasPrefix(l.verified, differed) {
			if replay++; replay > maxReplayTables {
				more++
				continue
			}
		}
		where := strings.Join(links[l], ", ")
		switch {
		case l.path == "":
			where = unknown
		case len(links[l]) == len(s.Links):
			where = "all"
		}
		rows = append(rows, []string{l.table, known(&l.path), where, l.verified, l.reason})
	}
	if len(rows) == 0 {
		return
	}
	table(out, "TABLE|PATH|LINKS|VERIFIED|REASON", rows)
	if more > 0 {
		fmt.Fprintf(out, "and %d more; --json lists all\n", more)
	}
}

const differed = "DIFFERS"

// verified is what the last comparison of a table has found.
func verified(t mesh.TableStatus) string {
	if t.VerifiedAt == nil || t.VerifiedEqual == nil {
		return unknown
	}
	return map[bool]string{true: "equal", false: differed}[*t.VerifiedEqual] + ", " + moment(*t.VerifiedAt)
}

func writeCounts(out *bytes.Buffer, s mesh.Status) {
	if s.Conflicts.Total == nil { // nobody keeps them: what the links have counted is all there is
		var lost, overwritten *int64
		for _, l := range s.Links {
			lost, overwritten = sum(lost, l.LostRows), sum(overwritten, l.OverwrittenRows)
		}
		fmt.Fprintf(out, "\nconflicts since the process started: rows lost %s, rows overwritten %s\n", integer(lost),
			integer(overwritten))
	} else {
		fmt.Fprintf(out, "\nconflicts: %s in all, %s open\n", integer(s.Conflicts.Total), integer(s.Conflicts.Open))
	}
	if s.Errors.Open != nil {
		fmt.Fprintf(out, "transactions set aside: %s\n", integer(s.Errors.Open))
	}
}

func writeErrors(out *bytes.Buffer, s mesh.Status) {
	write := func(subject string, f *mesh.Fault) {
		if f == nil {
			return
		}
		age := time.Time(s.Time).Sub(time.Time(f.Since)).Truncate(time.Second)
		fmt.Fprintf(out, "\n%s\n  class:   %s\n  message: %s\n  remedy:  %s\n  since:   %s (%s ago)\n",
			subject, clean(f.Class), clean(f.Message), clean(f.Remedy), moment(f.Since), age)
	}
	for _, server := range s.Servers {
		write("error of server "+clean(server.Name), server.Error)
	}
	for _, l := range s.Links {
		write("error of link "+arrow(l.From, l.To)+", "+string(l.State), l.Error)
	}
}

// table writes a blank line, the header and the rows, columns two blanks apart.
func table(out *bytes.Buffer, header string, rows [][]string) {
	out.WriteByte('\n')
	tabs := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{strings.Split(header, "|")}, rows...) {
		for i, cell := range row {
			row[i] = clean(cell)
		}
		_, _ = io.WriteString(tabs, strings.TrimRight(strings.Join(row, "\t"), "\t")+"\n") // a bytes.Buffer takes all
	}
	_ = tabs.Flush()
}

func arrow(from, to string) string { return clean(from) + " -> " + clean(to) }

func moment(t mesh.Timestamp) string { return time.Time(t).UTC().Format("2006-01-02 15:04:05 UTC") }

func known(s *string) string {
	if s == nil || *s == "" {
		return unknown
	}
	return *s
}

func integer(n *int64) string {
	if n == nil {
		return unknown
	}
	return strconv.FormatInt(*n, 10)
}

// sum adds what is known; it is unknown while nothing is.
func sum(a, b *int64) *int64 {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return new(*a + *b)
}

func decimal(f *float64, unit string) string {
	if f == nil {
		return unknown
	}
	return strconv.FormatFloat(*f, 'f', 1, 64) + unit
}

// clean keeps what a server wrote from moving a terminal's cursor or breaking the columns.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
}
