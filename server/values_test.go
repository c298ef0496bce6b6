package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"replicator/change"
	"replicator/fault"
)

func TestParseGrants(t *testing.T) {
	g := parseGrants([]string{
		"GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*667F'",
		"GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `a`@`%` WITH GRANT OPTION",
		"GRANT REPLICATION_APPLIER ON *.* TO `a`@`%`",
		"GRANT SELECT, INSERT (`x`, `y`), UPDATE ON `app\\_1`.* TO `a`@`%`",
		"GRANT DELETE ON `b%`.* TO `a`@`%`",
		"GRANT ALL PRIVILEGES ON `we``ird`.`ta.ble` TO `a`@`%`",
		"GRANT `role`@`%` TO `a`@`%`",
		"GRANT SELECT ON *.* TO PUBLIC",
		"REVOKE SELECT ON `secret`.* FROM `a`@`%`",
		"GRANT EXECUTE ON PROCEDURE `app`.`p` TO `a`@`%`",
		"GRANT PROXY ON ''@'' TO `a`@`%`",
	})
	table := func(d, n string) change.TableName { return change.TableName{Database: d, Table: n} }
	for _, c := range []struct {
		privilege string
		object    change.TableName
		want      bool
	}{
		{"REPLICATION SLAVE", change.TableName{}, true},
		{"BINLOG MONITOR", change.TableName{}, true},
		{"REPLICATION_APPLIER", change.TableName{}, true},
		{"BINLOG REPLAY", change.TableName{}, false},
		{"UPDATE", change.TableName{}, false},
		{"UPDATE", table("app_1", "t"), true},
		{"UPDATE", table("appx1", "t"), false},
		{"INSERT", table("app_1", "t"), false}, // some columns only
		{"DELETE", table("bank", "t"), true},
		{"DELETE", table("app_1", "t"), false},
		{"TRIGGER", table("we`ird", "ta.ble"), true},
		{"TRIGGER", table("we`ird", "other"), false},
		{"SELECT", table("any", "t"), true},
		{"SELECT", table("secret", "t"), false},
	} {
		require.Equal(t, c.want, g.has(c.privilege, c.object), "%s on %s", c.privilege, c.object)
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Release{
		"9.7.4-2": {9, 7, 4}, "8.0.36-28.1": {8, 0, 36}, "5.5.5-10.11.19-MariaDB-0+deb12u1-log": {10, 11, 19},
		"11.8.6-MariaDB-0+deb13u1 from Debian-log": {11, 8, 6},
	} {
		_, got, err := parseVersion(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, _, err := parseVersion("PostgreSQL")
	require.Error(t, err)
	require.True(t, Release{8, 4, 0}.AtLeast(8, 2, 9))
	require.False(t, Release{8, 1, 9}.AtLeast(8, 2, 0))
}

// TestOldStatements keeps to what the manuals of the releases say that the tests do not run on.
func TestOldStatements(t *testing.T) {
	for text, want := range map[string]string{
		"8.0.36": "SHOW MASTER STATUS", "8.1.0": "SHOW MASTER STATUS", "8.2.0": "SHOW BINARY LOG STATUS", "8.4.3": "SHOW BINARY LOG STATUS",
	} {
		_, release, err := parseVersion(text)
		require.NoError(t, err)
		require.Equal(t, want, mysqlDialect{Info{Release: release}}.statusStatement())
	}
}

func TestClassify(t *testing.T) {
	my := func(number uint16, text string) error {
		return fmt.Errorf("apply: %w", &mysql.MySQLError{Number: number, Message: text})
	}
	for _, c := range []struct {
		err  error
		want fault.Class
	}{
		{my(1213, "Deadlock found"), fault.Busy},
		{my(1020, "Record has changed since last read"), fault.Busy},
		{my(1290, "The MySQL server is running with the --super-read-only option"), fault.ReadOnly},
		{my(1290, "The MySQL server is running with the --secure-file-priv option"), fault.Configuration},
		{my(1030, "Got error 28 \"No space left on device\" from storage engine InnoDB"), fault.DiskFull},
		{my(1026, "Error writing file './binlog.000001' (errno: 28 \"No space left on device\")"), fault.DiskFull},
		{my(1114, "The table 't' is full"), fault.DiskFull},
		{my(1040, "Too many connections"), fault.Unavailable},
		{my(1045, "Access denied"), fault.Login},
		{my(1062, "Duplicate entry '28 ' for key"), fault.Row},
		{my(65000, "of a later server"), fault.Row},
		{&gomysql.MyError{Code: 1236, Message: "Cannot replicate because the source purged required binary logs"}, fault.Purged},
		{&gomysql.MyError{Code: 1236, Message: "Replica has more GTIDs than the source has"}, fault.Identity},
		{io.ErrUnexpectedEOF, fault.Network},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, fault.Network},
		{&net.DNSError{Err: "no such host"}, fault.Network},
		{context.DeadlineExceeded, fault.Network},
		{mysql.ErrUnknownPlugin, fault.Login},
		{fmt.Errorf("spool: %w", syscall.ENOSPC), fault.DiskFull},
		{fmt.Errorf("x: %w", fault.New(fault.DDL, "", "y")), fault.DDL},
		{errors.New("anything else"), fault.Bug},
	} {
		require.Equal(t, c.want, Classify(c.err), c.err)
		require.NotEmpty(t, remedy(Classify(c.err), c.err))
	}
	for number, class := range classes {
		require.NotEmpty(t, remedy(class, my(number, "")), number)
	}
	f := Fault(my(1205, "Lock wait timeout"), "apply to east")
	require.Equal(t, "apply to east: apply: Error 1205: Lock wait timeout", f.Text())
	require.Same(t, f, Fault(fmt.Errorf("again: %w", f), "something else"))
}

func TestDisjoint(t *testing.T) {
	server := func(increment, offset string) Info {
		return Info{Variables: map[string]string{"auto_increment_increment": increment, "auto_increment_offset": offset}}
	}
	require.False(t, disjoint(server("1", "1"), server("1", "1")))
	require.False(t, disjoint(server("1", "1"), server("1", "2")))
	require.True(t, disjoint(server("2", "1"), server("2", "2")))
	require.False(t, disjoint(server("2", "1"), server("3", "2")))
	require.True(t, disjoint(server("2", "1"), server("4", "2")))
}

func TestNormalType(t *testing.T) {
	for _, c := range [][3]string{
		{"int(11)", "int", "int"},
		{"int(10) unsigned", "int", "int unsigned"},
		{"year(4)", "year", "year"},
		{"varchar(20)", "varchar", "varchar(20)"},
		{"enum('A','int(11)')", "enum", "enum('A','int(11)')"},
		{"int(5) unsigned zerofill", "int", "int unsigned"},
		{"decimal(10,2)", "decimal", "decimal(10,2)"},
	} {
		require.Equal(t, c[2], normalType(Column{Type: c[0], DataType: c[1]}))
	}
}
