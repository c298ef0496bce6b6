package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-sql-driver/mysql"

	"replicator/fault"
)

// Numbers that decide something on their own.
const (
	errDuplicateKey = 1062
	errMissingRow   = 1032
	errDumpFailed   = 1236
	errPlainRefused = 3922 // MySQL: the connection's compression is not in protocol_compression_algorithms
)

// classes gives the class of the servers' error numbers. What is not here is a row that the target refuses.
var classes = map[uint16]fault.Class{
	1205: fault.Busy, 1213: fault.Busy, 1020: fault.Busy, 1614: fault.Busy, 1637: fault.Busy, 3572: fault.Busy,
	3058: fault.Busy, 1969: fault.Busy, 3024: fault.Busy, 4031: fault.Network,

	1158: fault.Network, 1159: fault.Network, 1160: fault.Network, 1161: fault.Network, 1152: fault.Network,
	1184: fault.Network, 2002: fault.Network, 2003: fault.Network, 2005: fault.Network, 2006: fault.Network,
	2013: fault.Network, 2055: fault.Network, 1042: fault.Network, 1043: fault.Network,

	1040: fault.Unavailable, 1203: fault.Unavailable, 1226: fault.Unavailable, 1053: fault.Unavailable,
	1317: fault.Unavailable, 3169: fault.Unavailable, 1927: fault.Unavailable, 1135: fault.Unavailable,
	1037: fault.Unavailable, 1038: fault.Unavailable, 1041: fault.Unavailable, 3032: fault.Unavailable,
	3168: fault.Unavailable, 4052: fault.Unavailable, 1129: fault.Unavailable,

	1045: fault.Login, 1698: fault.Login, 1130: fault.Login, 1251: fault.Login, 1275: fault.Login, 1820: fault.Login,
	1862: fault.Login, 3118: fault.Login, 3159: fault.Login, 4151: fault.Login, 2049: fault.Login, 2054: fault.Login,
	2059: fault.Login, 2061: fault.Login, 3955: fault.Login,

	1021: fault.DiskFull, 1114: fault.DiskFull,

	1836: fault.ReadOnly, 1792: fault.ReadOnly, 1874: fault.ReadOnly, 1036: fault.ReadOnly,

	1044: fault.Privilege, 1142: fault.Privilege, 1143: fault.Privilege, 1227: fault.Privilege, 1370: fault.Privilege,
	1141: fault.Privilege, 1419: fault.Privilege, 6038: fault.Privilege,

	1049: fault.Definition, 1051: fault.Definition, 1054: fault.Definition, 1146: fault.Definition,
	1136: fault.Definition, 1535: fault.Definition, 1677: fault.Definition, 1100: fault.Definition,
	1412: fault.Definition, 1356: fault.Definition, 1072: fault.Definition,

	errDumpFailed: fault.Purged, 1373: fault.Purged, 1789: fault.Purged,

	errPlainRefused: fault.Configuration, 1153: fault.Configuration, 1197: fault.Configuration, 1301: fault.Configuration, 1381: fault.Precondition,
	1785: fault.Precondition,

	1064: fault.Bug, 1065: fault.Bug, 1149: fault.Bug, 1766: fault.Bug, 1782: fault.Bug, 1837: fault.Bug,
	1210: fault.Bug, 1243: fault.Bug, 1609: fault.Bug, 1193: fault.Bug, 1231: fault.Bug, 1229: fault.Bug,
}

// Classify gives the class of an error of a server or of the way to it: the one place that looks at error numbers. A
// *fault.Error keeps its class. An error that is none of these is a Bug. Whether a cancelled context is the caller's own
// wish is for the caller to ask first; an exceeded deadline is Network.
func Classify(err error) fault.Class {
	if f, ok := fault.As(err); ok {
		return f.Class
	}
	if number, text, ok := serverError(err); ok {
		return classOf(number, text)
	}
	if isLogin(err) {
		return fault.Login
	}
	if isNetwork(err) {
		return fault.Network
	}
	if errors.Is(err, mysql.ErrPktTooLarge) {
		return fault.Configuration
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.DiskFull
	}
	return fault.Bug
}

func classOf(number uint16, text string) fault.Class {
	lower := strings.ToLower(text)
	switch {
	case strings.Contains(lower, "no space left on device"), strings.Contains(lower, "got error 28 "),
		strings.Contains(lower, "errno: 28 "), strings.Contains(lower, "disk full"):
		return fault.DiskFull
	case number == 1290 && (strings.Contains(lower, "read-only") || strings.Contains(lower, "read_only")):
		return fault.ReadOnly
	case number == 1290:
		return fault.Configuration
	case number == errDumpFailed && strings.Contains(lower, "more gtids than"):
		return fault.Identity // the source lost transactions that we have
	}
	if class, known := classes[number]; known {
		return class
	}
	return fault.Row
}

// serverError finds what a server answered, through either client library.
func serverError(err error) (number uint16, text string, ok bool) {
	if a, is := errors.AsType[*mysql.MySQLError](err); is {
		return a.Number, a.Message, true
	}
	if b, is := errors.AsType[*gomysql.MyError](err); is {
		return b.Code, b.Message, true
	}
	return 0, "", false
}

func isLogin(err error) bool {
	for _, login := range []error{
		mysql.ErrNoTLS, mysql.ErrCleartextPassword, mysql.ErrNativePassword, mysql.ErrOldPassword, mysql.ErrUnknownPlugin,
	} {
		if errors.Is(err, login) {
			return true
		}
	}
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &host) ||
		errors.As(err, &invalid) || errors.As(err, &alert)
}

func isNetwork(err error) bool {
	for _, broken := range []error{
		driver.ErrBadConn, mysql.ErrInvalidConn, mysql.ErrMalformPkt, mysql.ErrPktSync, mysql.ErrPktSyncMul,
		gomysql.ErrBadConn, gomysql.ErrMalformPacket, sql.ErrConnDone, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		os.ErrDeadlineExceeded, context.DeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNREFUSED,
		syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ECONNABORTED,
	} {
		if errors.Is(err, broken) {
			return true
		}
	}
	// Not any net.Error: system call numbers are that too, those of files as well.
	var operation *net.OpError
	var name *net.DNSError
	var record tls.RecordHeaderError
	return errors.As(err, &operation) || errors.As(err, &name) || errors.As(err, &record)
}

// IsMissingRow reports whether a replayed UPDATE or DELETE did not find its row.
func IsMissingRow(err error) bool { return isNumber(err, errMissingRow) }

// IsWriteRefused reports whether a statement tried to write in a transaction that may only read.
func IsWriteRefused(err error) bool { return isNumber(err, 1792) }

// IsDuplicateKey reports whether a row clashed with a primary or secondary unique key.
func IsDuplicateKey(err error) bool { return isNumber(err, errDuplicateKey) || isNumber(err, 1586) }

// IsLockTimeout reports whether a statement waited for a lock for too long.
func IsLockTimeout(err error) bool { return isNumber(err, 1205) }

// IsStaleView reports whether a snapshot cannot show a table because its definition is newer: it was altered, emptied by
// TRUNCATE, renamed or dropped.
func IsStaleView(err error) bool { return isNumber(err, 1412, 1054, 1146, 1049) }

// IsForeignKey reports whether a row was refused for its parent or its children.
func IsForeignKey(err error) bool { return isNumber(err, 1451, 1452, 1216, 1217) }

// IsMissingParent reports whether a row was refused because the row that it refers to does not exist.
func IsMissingParent(err error) bool { return isNumber(err, 1452, 1216) }

// IsMissingTable reports whether a statement named a table or a database that is not there.
func IsMissingTable(err error) bool { return isNumber(err, 1146, 1049) }

// IsMissingObject reports whether a statement named a view, routine, trigger or event that is not there.
func IsMissingObject(err error) bool { return isNumber(err, 1146, 1049, 1305, 1360, 1539, 1347) }

func isNumber(err error, numbers ...uint16) bool {
	number, _, ok := serverError(err)
	for _, n := range numbers {
		if ok && n == number {
			return true
		}
	}
	return false
}

// Fault makes an operator's error of err: what was being done, the cause, and the remedy of its class. An error that is
// one already is returned as it is. err must not be nil.
func Fault(err error, doing string) *fault.Error {
	if f, ok := fault.As(err); ok {
		return f
	}
	class := Classify(err)
	return fault.Wrap(err, class, remedy(class, err), "%s", doing)
}

func remedy(class fault.Class, err error) string {
	switch class {
	case fault.Network:
		return "check that the server runs and that its address can be reached from here"
	case fault.Login:
		if _, _, answered := serverError(err); !answered {
			return "check the tls section of this server and how its account authenticates"
		}
		return "check user and password (or password_file) of this server in the configuration"
	case fault.Unavailable:
		return "wait until the server is up, or raise its limit of connections"
	case fault.DiskFull:
		return "make room on the disk"
	case fault.ReadOnly:
		return "switch the server's read_only off, or set own: false for it if it is meant to stay so"
	case fault.Busy:
		return "find what holds locks for so long"
	case fault.Privilege:
		return "grant what is missing: replicator init --grants prints it"
	case fault.Definition:
		return "make the table's definition the same on both servers; then: replicator link resume"
	case fault.Purged:
		return "keep binlogs longer; copy the data anew to the target"
	case fault.Identity:
		return "the server lost transactions that others have: copy the data anew from a server that has them"
	case fault.Configuration:
		if isNumber(err, errPlainRefused) {
			return "set compress of this server (servers.NAME.compress) to what its protocol_compression_algorithms lists"
		}
		return packetRemedy(err)
	case fault.Row:
		return "correct the row or the table on the target; then: replicator link resume"
	case fault.Bug:
		return "report it with the log"
	case fault.Precondition, fault.UnknownEvent, fault.DDL, fault.Fenced, fault.ClockSkew, fault.Conflict:
	}
	return "run replicator check"
}

func packetRemedy(err error) string {
	number, _, ok := serverError(err)
	if ok && number == 1197 {
		return "raise max_binlog_cache_size of the server"
	}
	if ok && number == 1290 {
		return "remove the option that the server names"
	}
	return "raise max_allowed_packet of the server"
}
