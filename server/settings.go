package server

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"replicator/change"
	"replicator/fault"
)

// equalSetting compares values of a variable: boolean ones come as ON, OFF, 1 and 0.
func equalSetting(have, want string) bool { return normalSetting(have) == normalSetting(want) }

func normalSetting(value string) string {
	switch value {
	case "1":
		return "ON"
	case "0":
		return "OFF"
	}
	return strings.ToUpper(value)
}

// serverSettings checks the variables of both flavors.
func serverSettings(r *report, d Dialect) {
	checkVersion(r)
	r.check(r.info.ServerID != 0, Fail, "server_id", "set server_id to a number of its own on every server",
		"is %d", r.info.ServerID)
	r.want("log_bin", "ON", Fail, "start the server with log_bin")
	r.want("binlog_format", "ROW", Fail, "SET PERSIST binlog_format = ROW (MariaDB: in my.cnf), then reconnect applications")
	r.want("binlog_row_image", "FULL", Fail, "set binlog_row_image = FULL, then reconnect applications")
	r.want("binlog_row_metadata", "FULL", Fail, "set binlog_row_metadata = FULL")
	d.settings(r)
	r.want("sync_binlog", "1", Warn,
		"set sync_binlog = 1: after a crash the server could use lost GTIDs again, unnoticed")
	r.want("innodb_flush_log_at_trx_commit", "1", Warn,
		"set innodb_flush_log_at_trx_commit = 1: a crash could lose what others have already applied")
	checkRetention(r, d.retention())
	packet, _ := strconv.ParseInt(r.info.Variables["max_allowed_packet"], 10, 64)
	r.check(packet >= 16<<20, Warn, "max_allowed_packet", "set max_allowed_packet to 16M or more, the same on all servers",
		"is %d bytes", packet)
	checkCluster(r)
}

// checkCluster warns of cluster software below, which this program was not tried on.
func checkCluster(r *report) {
	for _, v := range []string{"wsrep_on", "group_replication_group_name"} {
		value := r.info.Variables[v]
		if value == "" || equalSetting(value, "OFF") {
			continue
		}
		r.check(false, Warn, v, "try it on a copy first: clusters of this kind were not tested", "is %q", value)
	}
}

func checkVersion(r *report) {
	i := r.info
	oldest, newest, text := i.Release.AtLeast(8, 0, 1), !i.Release.AtLeast(10, 0, 0), "MySQL 8.0 to 9"
	if i.Flavor == change.MariaDB {
		oldest, newest, text = i.Release.AtLeast(10, 6, 0), !i.Release.AtLeast(12, 0, 0), "MariaDB 10.6 to 11"
	}
	switch {
	case !oldest:
		r.check(false, Fail, "version", "use "+text, "%s is too old", i)
	case !newest:
		r.check(false, Warn, "version", "use "+text+", or try it on a copy first", "%s was not tested", i)
	default:
		r.check(true, Pass, "version", "", "%s", i)
	}
}

func checkRetention(r *report, keep time.Duration) {
	const name, remedy = "binlog retention", "set binlog_expire_logs_seconds to more than the longest outage"
	if keep == 0 {
		r.check(true, Pass, name, "", "binlogs are kept for ever")
		return
	}
	text := keep.String()
	if days := keep / (24 * time.Hour); days > 1 {
		text = fmt.Sprintf("%d days", days)
	}
	r.check(keep >= 24*time.Hour, Warn, name, remedy, "binlogs are kept for %s: a longer outage needs the data to be copied anew",
		text)
}

func (d mysqlDialect) settings(r *report) {
	r.want("gtid_mode", "ON", Fail, "switch GTIDs on: gtid_mode = ON and enforce_gtid_consistency = ON")
	r.want("enforce_gtid_consistency", "ON", Fail, "set enforce_gtid_consistency = ON")
	r.want("binlog_row_value_options", "", Fail, "set binlog_row_value_options = '': partial JSON updates hold no full row")
	mode := "replica_exec_mode"
	if !d.info.Has(mode) {
		mode = "slave_exec_mode"
	}
	r.want(mode, "STRICT", Fail, "set "+mode+" = STRICT: else rows that do not fit are passed over in silence")
}

func (d mysqlDialect) retention() time.Duration {
	if d.info.Has("binlog_expire_logs_auto_purge") && !d.info.On("binlog_expire_logs_auto_purge") {
		return 0
	}
	return seconds(d.info, "binlog_expire_logs_seconds")
}

func (d mysqlDialect) replicates(ctx context.Context, q Querier) (bool, error) {
	statement := "SHOW REPLICA STATUS"
	if !d.info.Release.AtLeast(8, 0, 22) {
		statement = "SHOW SLAVE STATUS"
	}
	row, err := firstRow(ctx, q, statement)
	if err != nil {
		return false, Fault(err, "ask whether the server is a replica")
	}
	return row != nil, nil
}

func (d mariadb) settings(r *report) {
	r.want("gtid_strict_mode", "ON", Warn, "set gtid_strict_mode = ON: else GTIDs can go out of order, and positions with them")
	r.want("slave_exec_mode", "STRICT", Fail, "set slave_exec_mode = STRICT: else rows that do not fit are passed over in silence")
	r.want("slave_run_triggers_for_rbr", "NO", Fail, "set slave_run_triggers_for_rbr = NO: else triggers run a second time")
	if engine := d.info.Variables["binlog_storage_engine"]; engine != "" {
		r.check(false, Fail, "binlog_storage_engine", "start the server without binlog_storage_engine", "is %q", engine)
	}
	for _, limit := range []string{"max_binlog_total_size", "binlog_space_limit"} {
		if v := d.info.Variables[limit]; v != "" && v != "0" {
			r.check(false, Warn, limit, "set "+limit+" = 0", "is %s: binlogs can vanish before every peer has read them", v)
			return
		}
	}
}

func (d mariadb) retention() time.Duration {
	if keep := seconds(d.info, "binlog_expire_logs_seconds"); keep > 0 {
		return keep
	}
	days, err := strconv.ParseFloat(d.info.Variables["expire_logs_days"], 64)
	if err != nil {
		return 0
	}
	return time.Duration(days * 24 * float64(time.Hour))
}

// replicates looks at a counter that everybody may read: SHOW REPLICA STATUS would need one privilege more.
func (mariadb) replicates(ctx context.Context, q Querier) (bool, error) {
	row, err := firstRow(ctx, q, "SHOW GLOBAL STATUS LIKE 'Slaves_running'")
	if err != nil {
		return false, Fault(err, "ask whether the server is a replica")
	}
	return len(row) == 2 && row[1].String != "0", nil
}

func seconds(i Info, variable string) time.Duration {
	n, err := strconv.ParseInt(i.Variables[variable], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// checkFilter finds out whether the binlog leaves databases out: rows of the replicator's schema must reach it, or peers
// send each other the same change for ever. It returns a function that says so of other databases.
func checkFilter(ctx context.Context, r *report, q Querier, d Dialect) func(database string) bool {
	const name = "marker schema in binlog"
	statement := "SHOW MASTER STATUS"
	if my, isMySQL := d.(mysqlDialect); isMySQL {
		statement = my.statusStatement()
	}
	row, names, err := firstNamedRow(ctx, q, statement)
	if err != nil {
		r.failed(name, err)
		return func(string) bool { return true }
	}
	if row == nil {
		r.add(Fail, fault.Precondition, name, "start the server with log_bin", "the binlog is off")
		return func(string) bool { return true }
	}
	var only, never string
	for i, column := range names {
		switch strings.ToLower(column) {
		case "binlog_do_db":
			only = row[i].String
		case "binlog_ignore_db":
			never = row[i].String
		}
	}
	logged := func(database string) bool {
		if only != "" {
			return inList(only, database)
		}
		return !inList(never, database)
	}
	if logged("replicator") {
		r.check(true, Pass, name, "", "is not filtered")
		return logged
	}
	r.check(false, Fail, name, "remove binlog-do-db and binlog-ignore-db from the server's options",
		"is filtered out: binlog-do-db is %q, binlog-ignore-db is %q", only, never)
	return logged
}

// checkSession looks at what new sessions of the account get, which init_connect can make different from the global values.
func checkSession(ctx context.Context, r *report, q Querier) {
	const name = "session"
	var logged, format, image string
	err := q.QueryRowContext(ctx, "SELECT @@SESSION.sql_log_bin, @@SESSION.binlog_format, @@SESSION.binlog_row_image").
		Scan(&logged, &format, &image)
	if err != nil {
		r.failed(name, err)
		return
	}
	r.check(logged == "1" && format == r.info.Variables["binlog_format"] && image == r.info.Variables["binlog_row_image"],
		Fail, name, "remove what init_connect sets", "sql_log_bin is %s, binlog_format %s, binlog_row_image %s", logged, format, image)
}

func inList(list, name string) bool {
	for item := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(item), name) {
			return true
		}
	}
	return false
}
