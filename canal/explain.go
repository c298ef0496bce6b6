package canal

import (
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/fault"
)

// explainServer gives the class and the remedy of an error that the server sent instead of its binlog. To an account
// without the privilege to read it, servers say "access denied" once more, after the login.
func explainServer(o *Options, err *mysql.MyError, loggedIn bool) error {
	code := err.Code
	if code == mysql.ER_ACCESS_DENIED_ERROR && loggedIn {
		code = mysql.ER_SPECIFIC_ACCESS_DENIED_ERROR
	}
	switch code {
	case mysql.ER_MASTER_FATAL_ERROR_READING_BINLOG: // 1236: eight texts
		return explainFatal(o, err)
	case mysql.ER_ACCESS_DENIED_ERROR, mysql.ER_DBACCESS_DENIED_ERROR, mysql.ER_ACCESS_DENIED_NO_PASSWORD_ERROR,
		mysql.ER_MUST_CHANGE_PASSWORD_LOGIN, accountLocked:
		return fault.Wrap(err, fault.Login, "correct user and password; they are read again at every attempt",
			"%s refuses the login of %s", o.Name, o.User)
	case mysql.ER_SPECIFIC_ACCESS_DENIED_ERROR:
		return fault.Wrap(err, fault.Privilege, "grant the account REPLICATION SLAVE; replicator init --grants prints the SQL",
			"%s may not read the binlog of %s", o.User, o.Name)
	case mysql.ER_CON_COUNT_ERROR, mysql.ER_TOO_MANY_USER_CONNECTIONS, mysql.ER_SERVER_SHUTDOWN, mysql.ER_QUERY_INTERRUPTED,
		mysql.ER_USER_LIMIT_REACHED, mysql.ER_NEW_ABORTING_CONNECTION, connectionKilled, sameServerID:
		return fault.Wrap(err, fault.Unavailable, "wait; it is tried again by itself", "%s ended the dump of its binlog", o.Name)
	}
	return fault.Wrap(err, fault.Unavailable, "read the server's error log; it is tried again by itself",
		"%s does not send its binlog", o.Name)
}

// Numbers that the library has no name for.
const (
	accountLocked    = 3118
	connectionKilled = 1927 // MariaDB
	sameServerID     = 4052 // MariaDB: another reader announced the same server_id
)

func explainFatal(o *Options, err *mysql.MyError) error {
	text := strings.ToLower(err.Message)
	switch {
	case strings.Contains(text, "same server_uuid"), strings.Contains(text, "same server_id"):
		return fault.Wrap(err, fault.Unavailable, "wait; it is tried again by itself", "%s ended the dump of its binlog", o.Name)
	case strings.Contains(text, "max_allowed_packet"):
		return fault.Wrap(err, fault.Configuration, "set max_allowed_packet=1G on the server",
			"an event of the binlog of %s is larger than it may send", o.Name)
	case strings.Contains(text, "more gtids than"), strings.Contains(text, "not in the master's binlog"),
		strings.Contains(text, "not in the source's binlog"):
		return fault.Wrap(err, fault.Purged,
			"the server was restored from a backup, or has lost transactions: make it a copy of another one, replicator clone --from SERVER --to "+o.Name+" --replace",
			"%s no longer has transactions that were already applied", o.Name)
	}
	return fault.Wrap(err, fault.Purged,
		"what is missing cannot be had from the binlog any more: make the server that was away a copy of one that was not, replicator clone "+
			"--from SERVER --to SERVER --replace; and keep binlogs longer than an outage may last (binlog_expire_logs_seconds)",
		"%s has purged the binlog that is needed", o.Name)
}
