package sandbox

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"replicator/sandbox/debian"
)

// Flavor names a server's family and release series: "mysql-9.7", "mariadb-11.8". Those below can be fetched; a server that
// is installed on the machine can be of any other series.
type Flavor string

// The flavors that tests run on.
const (
	MySQL97     Flavor = "mysql-9.7"
	MariaDB118  Flavor = "mariadb-11.8"
	MariaDB1011 Flavor = "mariadb-10.11"
)

// Flavors lists those that tests run on.
var Flavors = []Flavor{MySQL97, MariaDB118, MariaDB1011}

// MariaDB reports the family: MariaDB or MySQL.
func (f Flavor) MariaDB() bool { return strings.HasPrefix(string(f), "mariadb-") }

var selections = map[Flavor]debian.Selection{
	MySQL97:     {Suite: "sid", Packages: []string{"mysql-server-core"}},
	MariaDB118:  {Suite: "trixie", Packages: []string{"mariadb-server-core"}},
	MariaDB1011: {Suite: "bookworm", Packages: []string{"mariadb-server-core"}},
}

var versionPattern = regexp.MustCompile(`Ver (\d+\.\d+)\.\d+(-MariaDB)?`)

// flavorOf reads what a server program prints when asked for its version.
func flavorOf(version string) (Flavor, error) {
	m := versionPattern.FindStringSubmatch(version)
	if m == nil {
		return "", fmt.Errorf("read version %q: not that of a MySQL or MariaDB server", strings.TrimSpace(version))
	}
	if m[2] != "" {
		return Flavor("mariadb-" + m[1]), nil
	}
	return Flavor("mysql-" + m[1]), nil
}

// serverArgs are the options of a running server, the same for processes and containers. id serves as server id and, on
// MariaDB, as GTID domain, so that no two servers of a mesh share either.
func serverArgs(f Flavor, o Options, id uint32) []string {
	args := []string{
		fmt.Sprintf("--server-id=%d", id),
		"--log-bin=binlog",
		"--binlog-format=ROW",
		"--binlog-row-image=FULL",
		"--binlog-row-metadata=FULL",
		"--character-set-server=utf8mb4",
		"--max-connections=500",
		"--max-allowed-packet=64M",
		"--innodb-buffer-pool-size=" + o.BufferPool,
	}
	if !o.Durable {
		args = append(args, "--sync-binlog=0", "--innodb-flush-log-at-trx-commit=2")
	} else {
		args = append(args, "--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1")
	}
	if f.MariaDB() {
		args = append(args, "--log-slave-updates", "--gtid-strict-mode=ON", fmt.Sprintf("--gtid-domain-id=%d", id),
			"--innodb-log-file-size=96M")
	} else {
		// The performance schema doubles the time that a start takes and the memory that a server needs.
		args = append(args, "--log-replica-updates=ON", "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--mysqlx=OFF",
			"--innodb-redo-log-capacity=256M", "--performance-schema=OFF")
	}
	return append(args, o.Args...)
}

// bootstrapScripts are the files, in order, that make a MariaDB server's system tables; share is the folder they are in.
func bootstrapScripts(share string) []string {
	prefix := "mariadb_"
	if filepath.Base(share) == "mysql" {
		prefix = "mysql_"
	}
	names := []string{
		prefix + "system_tables.sql", prefix + "performance_tables.sql", prefix + "system_tables_data.sql",
		"fill_help_tables.sql", "maria_add_gis_sp_bootstrap.sql", prefix + "sys_schema.sql",
	}
	for i, n := range names {
		names[i] = filepath.Join(share, n)
	}
	return names
}
