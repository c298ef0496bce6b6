package canal

import (
	"fmt"
	"strings"

	"github.com/go-mysql-org/go-mysql/replication"

	"replicator/change"
	"replicator/fault"
)

// Whatever this reader does not know, or knows to falsify replication, ends it with a fault that names the place and
// what to do (invariant 8). The remedy for changes that cannot be read is always to copy the tables again.
const copyAgain = "and copy the tables again: see docs/operations.md, Cloning a server"

// where names the place of the event that is being read.
func (t *tailer) where() string {
	if t.tx.open {
		return fmt.Sprintf("transaction %s of %s (%s)", t.tx.gtid, t.opts.Name, t.place)
	}
	return fmt.Sprintf("the binlog of %s at %s", t.opts.Name, t.place)
}

func (t *tailer) refuse(remedy, format string, args ...any) error {
	return fault.New(fault.UnknownEvent, remedy, "%s: %s", t.where(), fmt.Sprintf(format, args...))
}

func (t *tailer) malformed(err error) error {
	return fault.Wrap(err, fault.UnknownEvent,
		"check the server's disk with mysqlbinlog --verify-binlog-checksum; if the binlog is sound, report this as a bug",
		"%s cannot be read", t.where())
}

func (t *tailer) outside(what string) error {
	return t.refuse("set gtid_mode=ON (MySQL) "+copyAgain, "%s stands outside of any transaction with a GTID", what)
}

func (t *tailer) refuseXA() error {
	return t.refuse("use ordinary transactions or XA COMMIT ... ONE PHASE "+copyAgain,
		"an XA transaction in two phases (XA PREPARE, XA COMMIT) is not supported")
}

func (t *tailer) refuseStatement(q query) error {
	return t.refuse("set binlog_format=ROW on the server, end the sessions that still use another format, "+copyAgain,
		"rows were changed by a statement that is logged as text: %s", abridge(q.text))
}

func (t *tailer) refuseRollback() error {
	return t.refuse("convert the table to InnoDB "+copyAgain,
		"a transaction was rolled back that had changed a table without transactions")
}

func (t *tailer) refusePartial(name change.TableName) error {
	return t.refuse("set binlog_row_value_options='' on the server and in all sessions "+copyAgain,
		"a change of %s holds only parts of a JSON value", name)
}

func (t *tailer) refuseCreateSelect() error {
	return t.refuse("create the table first and fill it with INSERT ... SELECT; for this one: exclude it from replication, "+
		"or create it on the other servers "+copyAgain,
		"a replicated table was created and filled by one statement: %s", abridge(t.tx.statement.Text))
}

func (t *tailer) refuseKind(kind replication.EventType) error {
	switch kind {
	case replication.ANONYMOUS_GTID_EVENT:
		return fault.New(fault.Precondition, "set gtid_mode=ON and enforce_gtid_consistency=ON on the server "+copyAgain,
			"%s has a transaction without a GTID", t.where())
	case replication.INCIDENT_EVENT:
		return t.refuse("read the server's error log for what it could not write "+copyAgain,
			"the server says that its binlog lost changes (INCIDENT event)")
	case replication.INTVAR_EVENT, replication.RAND_EVENT, replication.USER_VAR_EVENT,
		replication.BEGIN_LOAD_QUERY_EVENT, replication.EXECUTE_LOAD_QUERY_EVENT, replication.APPEND_BLOCK_EVENT,
		replication.DELETE_FILE_EVENT, replication.LOAD_EVENT, replication.NEW_LOAD_EVENT, replication.CREATE_FILE_EVENT,
		replication.EXEC_LOAD_EVENT:
		return t.refuse("set binlog_format=ROW on the server, end the sessions that still use another format, "+copyAgain,
			"rows were changed by a statement that is logged as text (%s event)", kind)
	default:
		return t.refuse("update replicator; if that does not help, find the statement with mysqlbinlog, avoid its kind "+copyAgain,
			"an event of type %d (%s) is not known", kind, kind)
	}
}

const abridged = 200

// abridge shortens a statement for a message.
func abridge(text string) string {
	text = strings.Join(strings.Fields(text[:min(len(text), 4*abridged)]), " ")
	if len(text) > abridged {
		return strings.ToValidUTF8(text[:abridged], "") + " ..."
	}
	return text
}

// systemDatabase reports whether a database belongs to the server or to the replicator.
func systemDatabase(name string) bool {
	switch strings.ToLower(name) {
	case "mysql", "information_schema", "performance_schema", "sys", "replicator":
		return true
	}
	return false
}
