package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"replicator/sandbox"
)

var titles = map[string]string{
	"write_only": "sysbench oltp_write_only",
	"update":     "sysbench oltp_update_non_index (single-row updates)",
	"append":     "transactions that only insert",
	"hot":        "sysbench oltp_update_non_index, of a few hot rows",
	"wide":       "wide transactions",
	"large":      "one transaction of many rows",
	"fanout":     "sysbench oltp_write_only, to three targets at once",
	"portable":   "sysbench oltp_write_only, applied by SQL",
}

// notes say what a section's figures are of, where that is not what the others are of.
var notes = map[string]string{
	"append":   fmt.Sprintf("Each inserts into two tables that are only added to: one row, and then %d of another table, a statement for each.", postings),
	"hot":      fmt.Sprintf("Each updates one row, and all of them the same %d rows.", hotRows),
	"wide":     fmt.Sprintf("Each transaction updates %d neighbouring rows by one statement.", wideRows),
	"fanout":   "Each contender has three targets. Time runs until all of them have everything; their CPU is added up.",
	"portable": "The replicator's account on the target may not run BINLOG, so its rows are written by SQL statements.",
}

// report prints the figures: one table per flavor and workload.
func report(o options, all figures, w io.Writer) error {
	var b strings.Builder
	b.WriteString(heading(all))
	fmt.Fprintf(&b, "- Machine: %d cores, %s, everything on it\n- Go: %s, static binary\n- Durability of all servers: %s; binlog on, also on the targets; nobody uses TLS\n- Rounds: %d, the median counts\n- Command: `go run ./integration/bench %s`\n",
		runtime.NumCPU(), processor(), runtime.Version(), durability(o.durable), o.rounds, strings.Join(os.Args[1:], " "))
	for _, rows := range neighbours(all.results, func(a, b result) bool { return a.flavor == b.flavor && a.workload == b.workload }) {
		section(&b, o, rows)
	}
	for _, rows := range neighbours(all.latencies, func(a, b latency) bool { return a.flavor == b.flavor }) {
		latencySection(&b, rows)
	}
	for _, rows := range neighbours(all.contests, func(a, b contest) bool { return a.flavor == b.flavor }) {
		contestSection(&b, rows)
	}
	for _, rows := range neighbours(all.passages, func(a, b passage) bool { return a.flavor == b.flavor }) {
		passageSection(&b, rows)
	}
	for _, rows := range neighbours(all.rescues, func(a, b rescue) bool { return a.flavor == b.flavor }) {
		rescueSection(&b, rows)
	}
	spellSection(&b, all.spells)
	_, err := io.WriteString(w, b.String())
	return err
}

// heading says what was measured how.
func heading(all figures) string {
	if len(all.rescues) > 0 && len(all.results) == 0 {
		return "# Benchmarks of recovery\n\nWritten by `make recovery`. A server is copied to an empty one, and compared with its copy, while an application\n" +
			"writes to it; everybody has the same servers and the same load, one after the other.\n\n"
	}
	return "# Benchmarks\n\nWritten by `make bench`. A backlog is produced while nobody replicates; then each contender drains it into servers of\n" +
		"its own that hold the same rows, one after the other on an otherwise idle source. Time runs from the start of the\n" +
		"replicator's process (or `START REPLICA`) until the backlog's last row is on the targets; afterwards all tables are\n" +
		"compared by checksum. The ratio is the better native time divided by the replicator's. *Begins after* is how long the\n" +
		"process took to make its link run, part of the seconds; *CPU s* is the process's processor time, then that of the servers\n" +
		"written to, then both for a million row changes.\n\n"
}

// neighbours divides a list where two neighbours are not alike.
func neighbours[T any](list []T, alike func(a, b T) bool) (parts [][]T) {
	for len(list) > 0 {
		n := 1
		for n < len(list) && alike(list[0], list[n]) {
			n++
		}
		parts, list = append(parts, list[:n]), list[n:]
	}
	return parts
}

func section(b *strings.Builder, o options, rows []result) {
	first := rows[0]
	fmt.Fprintf(b, "\n## %s %s: %s\n\n%d %s", family(first.flavor), first.version, titles[first.workload], first.count, first.unit)
	if first.workload != "large" && first.workload != "append" {
		fmt.Fprintf(b, ", %d tables of %d rows", tables, o.rows)
	}
	b.WriteString(".")
	if note := notes[first.workload]; note != "" {
		b.WriteString(" " + note)
	}
	fmt.Fprintf(b, "\n\n| contender | seconds | %s/s | ratio | begins after | peak memory | CPU s | of the targets | a million changes |\n|---|---|---|---|---|---|---|---|---|\n", first.unit)
	best := time.Duration(0)
	for _, r := range rows {
		if t := median(r.laps, lap.duration); r.native && (best == 0 || t < best) {
			best = t
		}
	}
	for _, r := range rows {
		t := median(r.laps, lap.duration)
		if t == 0 {
			continue
		}
		ratio, taken := "", " |  | "
		if !r.native {
			ratio, taken = fmt.Sprintf("%.2f", best.Seconds()/t.Seconds()), process(r.laps)
		}
		of := median(r.laps, lap.ofServers).Seconds()
		all := of + median(r.laps, lap.cpu).Seconds()
		fmt.Fprintf(b, "| %s | %.2f | %.0f | %s | %s | %.1f | %.1f |\n", r.contender, t.Seconds(), float64(r.count)/t.Seconds(),
			ratio, taken, of, all/float64(r.changes)*1e6)
	}
}

// process is what the replicator's took, as three columns.
func process(laps []lap) string {
	most := int64(0)
	for _, l := range laps {
		most = max(most, l.usage.peak)
	}
	return fmt.Sprintf("%.2f s | %d MiB | %.1f", median(laps, lap.startup).Seconds(), most>>20, median(laps, lap.cpu).Seconds())
}

func (l lap) duration() time.Duration  { return l.took }
func (l lap) ofServers() time.Duration { return l.servers }
func (l lap) startup() time.Duration   { return l.usage.startup }
func (l lap) cpu() time.Duration       { return l.usage.cpu }

// passageSection says what compression does on a long and narrow link.
func passageSection(b *strings.Builder, rows []passage) {
	first := rows[0]
	fmt.Fprintf(b, "\n## %s %s: one server far away\n\n%d transactions of sysbench oltp_write_only, one way, one round. The far server is %s away, there and back, and "+
		"each connection to it carries %d KiB/s. The target's binlog is read too, as ever. MB are those that the far server sent and received.\n\n| far | compress | seconds | MB from it | MB to it | CPU s |\n|---|---|---|---|---|---|\n",
		family(first.flavor), first.version, first.count, 2*farDelay, farBandwidth)
	for _, p := range rows {
		fmt.Fprintf(b, "| %s | %s | %.2f | %.1f | %.1f | %.1f |\n", p.far, p.compress, p.took.took.Seconds(), float64(p.received)/1e6, float64(p.sent)/1e6,
			p.took.usage.cpu.Seconds())
	}
}

// rescueSection says how fast a server is copied and compared.
func rescueSection(b *strings.Builder, rows []rescue) {
	first := rows[0]
	fmt.Fprintf(b, "\n## %s %s: recovery\n\nA table of %d rows, %d MB with its key, while %d transactions of oltp_write_only a second write to the source; buffer pools of %s. "+
		"*CPU s* is the tool's processor time, then that of both servers.\n\n| task | by | seconds | rows/s | peak memory | CPU s | of the servers |\n|---|---|---|---|---|---|---|\n",
		family(first.flavor), first.version, first.rows, first.bytes/1e6, recoveryRate, recoveryPool)
	for _, task := range []string{copying, comparing} {
		for _, r := range rows {
			if r.task != task {
				continue
			}
			took, peak := median(r.laps, lap.duration), int64(0)
			for _, l := range r.laps {
				peak = max(peak, l.usage.peak)
			}
			fmt.Fprintf(b, "| %s | %s | %.1f | %.0f | %d MiB | %.1f | %.1f |\n", task, r.tool, took.Seconds(), float64(r.rows)/took.Seconds(), peak>>20,
				median(r.laps, lap.cpu).Seconds(), median(r.laps, lap.ofServers).Seconds())
		}
	}
}

// spellSection says how long the suite took, part by part.
func spellSection(b *strings.Builder, spells []spell) {
	b.WriteString("\n## How long this took\n\n| servers | part | seconds |\n|---|---|---|\n")
	total := time.Duration(0)
	for _, s := range spells {
		total += s.took
		fmt.Fprintf(b, "| %s | %s | %.0f |\n", s.flavor, s.part, s.took.Seconds())
	}
	fmt.Fprintf(b, "| all | all | %.0f |\n", total.Seconds())
}

func family(f sandbox.Flavor) string {
	if f.MariaDB() {
		return "MariaDB"
	}
	return "MySQL"
}

func median(laps []lap, of func(lap) time.Duration) time.Duration {
	var times []time.Duration
	for _, l := range laps {
		times = append(times, of(l))
	}
	return middle(times)
}

// middle is the median; zero where there is none.
func middle[T cmp.Ordered](list []T) (m T) {
	if len(list) == 0 {
		return m
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

func durability(durable bool) string {
	if durable {
		return "sync_binlog=1, innodb_flush_log_at_trx_commit=1"
	}
	return "sync_binlog=0, innodb_flush_log_at_trx_commit=2"
}

var modelName = regexp.MustCompile(`model name\s*: (.*)`)

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	m := modelName.FindSubmatch(text)
	if m == nil {
		return runtime.GOARCH
	}
	return string(m[1])
}
