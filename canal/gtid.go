package canal

import (
	"fmt"

	"github.com/go-mysql-org/go-mysql/mysql"

	"replicator/change"
)

// dumpPosition converts a position to the form in which the dump is asked for. The result is the caller's own: the
// library keeps and changes what it is given.
func dumpPosition(p change.GTIDSet) (mysql.GTIDSet, error) {
	set, err := mysql.ParseGTIDSet(flavorName(p.Flavor()), p.String())
	if err != nil {
		return nil, fmt.Errorf("ask for position %s: %w", p, err)
	}
	return set, nil
}

// flavorName is what the binlog library calls a flavor.
func flavorName(f change.Flavor) string {
	if f == change.MariaDB {
		return mysql.MariaDBFlavor
	}
	return mysql.MySQLFlavor
}
