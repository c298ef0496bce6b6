package server

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"replicator/change"
	"replicator/fault"
)

// Info is what a server says it is.
type Info struct {
	Flavor  change.Flavor
	Version string // as a person calls it: "9.7.4"
	Release Release
	// ServerID is the replication id: two servers of a mesh, and a reader, must not share one.
	ServerID uint32
	// UUID is server_uuid on MySQL and server_uid on MariaDB (10.11 and newer): it stays with the data directory.
	UUID string
	// Variables are those global system variables that decide something, by lower-case name. What the server does not
	// have is not in it.
	Variables map[string]string
}

// Release is a version that can be compared.
type Release struct{ Major, Minor, Patch int }

// AtLeast reports whether r is not older than the given release.
func (r Release) AtLeast(major, minor, patch int) bool {
	return cmp.Or(cmp.Compare(r.Major, major), cmp.Compare(r.Minor, minor), cmp.Compare(r.Patch, patch)) >= 0
}

// String is the title of a server in messages: "MySQL 9.7.4".
func (i Info) String() string {
	if i.Flavor == change.MariaDB {
		return "MariaDB " + i.Version
	}
	return "MySQL " + i.Version
}

// Has reports whether the server has a variable.
func (i Info) Has(variable string) bool { _, has := i.Variables[variable]; return has }

// On reports whether a boolean variable is on.
func (i Info) On(variable string) bool {
	v := i.Variables[variable]
	return strings.EqualFold(v, "ON") || v == "1"
}

var probed = []string{
	"version", "server_id", "server_uuid", "server_uid", "log_bin", "binlog_format", "binlog_row_image",
	"binlog_row_metadata", "binlog_row_value_options", "binlog_checksum", "gtid_mode", "enforce_gtid_consistency",
	"gtid_strict_mode", "gtid_domain_id", "log_slave_updates", "log_replica_updates", "lower_case_table_names",
	"slave_exec_mode", "replica_exec_mode", "slave_run_triggers_for_rbr", "sync_binlog", "innodb_flush_log_at_trx_commit",
	"expire_logs_days", "binlog_expire_logs_seconds", "binlog_expire_logs_auto_purge", "max_binlog_total_size",
	"binlog_space_limit", "max_allowed_packet", "max_binlog_cache_size", "read_only", "super_read_only", "offline_mode",
	"innodb_snapshot_isolation", "innodb_page_size", "innodb_native_foreign_keys", "binlog_alter_two_phase",
	"encrypt_binlog", "binlog_legacy_event_pos", "log_bin_compress", "binlog_transaction_compression",
	"binlog_annotate_row_events", "max_execution_time", "max_statement_time", "gtid_executed", "gtid_binlog_pos",
	"binlog_storage_engine", "wsrep_on", "group_replication_group_name", "gtid_purged", "version_comment",
	"auto_increment_increment", "auto_increment_offset",
}

// Probe asks a server what it is. A server that is neither MySQL nor MariaDB is refused.
func Probe(ctx context.Context, q Querier) (Info, error) {
	info := Info{Variables: map[string]string{}}
	query := "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('" + strings.Join(probed, "','") + "')"
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return Info{}, Fault(err, "ask the server for its variables")
	}
	defer rows.Close()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return Info{}, Fault(err, "read the server's variables")
		}
		info.Variables[strings.ToLower(name)] = value
	}
	if err := rows.Err(); err != nil {
		return Info{}, Fault(err, "read the server's variables")
	}
	text := info.Variables["version"]
	info.Flavor = change.MySQL
	info.UUID = info.Variables["server_uuid"]
	if strings.Contains(text, "MariaDB") {
		info.Flavor = change.MariaDB
		info.UUID = info.Variables["server_uid"]
	}
	info.Version, info.Release, err = parseVersion(text)
	if err != nil {
		return Info{}, err
	}
	id, err := strconv.ParseUint(info.Variables["server_id"], 10, 32)
	if err != nil {
		return Info{}, fault.Wrap(err, fault.Precondition, "set server_id on the server", "read server_id")
	}
	info.ServerID = uint32(id)
	return info, nil
}

var versionText = regexp.MustCompile(`(\d+)\.(\d+)\.(\d+)`)

func parseVersion(text string) (string, Release, error) {
	text = strings.TrimPrefix(text, "5.5.5-") // how MariaDB introduces itself to old replicas
	match := versionText.FindStringSubmatch(text)
	if match == nil {
		return "", Release{}, fault.New(fault.Precondition, "use MySQL or MariaDB", "the server's version is %q", text)
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(match[i+1]) // digits by the expression; absurdly many become the greatest int
	}
	return match[0], Release{n[0], n[1], n[2]}, nil
}

// Clock is one reading of a server's clock, taken with the process's own clock on both sides of it.
type Clock struct {
	Ahead     time.Duration // the server's clock minus this machine's
	RoundTrip time.Duration // the error of Ahead is at most half of it
}

// ReadClock compares a server's clock with this machine's: the reading with the shortest round trip of several.
func ReadClock(ctx context.Context, q Querier) (Clock, error) {
	const readings = 5
	best := Clock{RoundTrip: time.Duration(1<<63 - 1)}
	for range readings {
		var text string
		before := time.Now()
		if err := q.QueryRowContext(ctx, "SELECT UTC_TIMESTAMP(6)").Scan(&text); err != nil {
			return Clock{}, Fault(err, "read the server's clock")
		}
		trip := time.Since(before)
		server, err := time.Parse("2006-01-02 15:04:05.999999", text)
		if err != nil {
			return Clock{}, fmt.Errorf("read the server's clock: %w", err)
		}
		if trip < best.RoundTrip {
			best = Clock{Ahead: server.Sub(before.Add(trip / 2)), RoundTrip: trip}
		}
	}
	return best, nil
}
