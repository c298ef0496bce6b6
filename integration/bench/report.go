package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

var titles = map[string]string{
	"write_only": "sysbench oltp_write_only",
	"update":     "sysbench oltp_update_non_index (single-row updates)",
	"large":      "one transaction of many rows",
}

// report prints the figures: one table per flavor and workload.
func report(o options, all figures, w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks\n\nWritten by `make bench`. A backlog is produced while nobody replicates; then each contender drains it into a server of\n"+
		"its own that holds the same rows, one after the other on an otherwise idle source. Time runs from the start of the\n"+
		"replicator's process (or `START REPLICA`) until the backlog's last row is on the target; afterwards all tables are\n"+
		"compared by checksum. The ratio is the better native time divided by the replicator's.\n\n")
	fmt.Fprintf(&b, "- Machine: %d cores, %s, everything on it\n- Go: %s, static binary\n- Durability of all servers: %s; binlog on, also on the targets\n- Rounds: %d, the median counts\n",
		runtime.NumCPU(), processor(), runtime.Version(), durability(o.durable), o.rounds)
	for _, rows := range neighbours(all.results, func(a, b result) bool { return a.flavor == b.flavor && a.workload == b.workload }) {
		section(&b, rows)
	}
	for _, rows := range neighbours(all.latencies, func(a, b latency) bool { return a.flavor == b.flavor }) {
		latencySection(&b, rows)
	}
	_, err := io.WriteString(w, b.String())
	return err
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

func section(b *strings.Builder, rows []result) {
	first := rows[0]
	fmt.Fprintf(b, "\n## %s %s: %s\n\n%d %s", family(first), first.version, titles[first.workload], first.count, first.unit)
	if first.workload != "large" {
		fmt.Fprintf(b, ", %d tables of %d rows", tables, tableRows)
	}
	fmt.Fprintf(b, ".\n\n| contender | seconds | %s/s | ratio | begins after | peak memory | CPU s | of the target |\n|---|---|---|---|---|---|---|---|\n", first.unit)
	best := time.Duration(0)
	for _, r := range rows {
		if t := median(r.times); r.native && (best == 0 || t < best) {
			best = t
		}
	}
	for _, r := range rows {
		t := median(r.times)
		if t == 0 {
			continue
		}
		ratio, startup, peak, cpu := "", "", "", ""
		if !r.native {
			var begins, spent []time.Duration
			most := int64(0)
			for _, u := range r.usages {
				begins, spent, most = append(begins, u.startup), append(spent, u.cpu), max(most, u.peak)
			}
			ratio = fmt.Sprintf("%.2f", best.Seconds()/t.Seconds())
			startup = fmt.Sprintf("%.2f s", median(begins).Seconds())
			peak = fmt.Sprintf("%d MiB", most>>20)
			cpu = fmt.Sprintf("%.1f", median(spent).Seconds())
		}
		fmt.Fprintf(b, "| %s | %.2f | %.0f | %s | %s | %s | %s | %.1f |\n", r.contender, t.Seconds(), float64(r.count)/t.Seconds(),
			ratio, startup, peak, cpu, median(r.target).Seconds())
	}
}

func family(r result) string {
	if r.flavor.MariaDB() {
		return "MariaDB"
	}
	return "MySQL"
}

func median(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
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
