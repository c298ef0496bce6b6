package main

import (
	"fmt"
	"io"
	"strings"

	"replicator/config"
	"replicator/server"
)

// printChangeLog prints the SQL of a change_log, which is the same for both flavors.
func (i *initializer) printChangeLog() error {
	name, ok := config.ParseTableName(i.logTable)
	if !ok || config.IsSystem(name.Database) {
		return usageError{fmt.Errorf("--table %q: want database.table of an application, without wildcards", i.logTable)}
	}
	var out strings.Builder
	out.WriteString("-- Run this on every server, MySQL and MariaDB alike, before replicator is started. The log belongs into a database of\n" +
		"-- the application (--table DATABASE.TABLE), which is made here where it is missing. With binary logging on, the\n" +
		"-- trigger asks for an administrator, or for log_bin_trust_function_creators = ON. Change the type of user_id to that of\n" +
		"-- your users if you like. The application then inserts a row in the transaction of its change.\n")
	fmt.Fprintf(&out, "CREATE DATABASE IF NOT EXISTS %s;\n", server.Quote(name.Database))
	for _, statement := range server.ChangeLogTable(name) {
		fmt.Fprintf(&out, "%s;\n", statement)
	}
	fmt.Fprintf(&out, "-- In replicator.yaml:\n-- conflict:\n--   change_log: {table: %s}\n", yamlText(i.logTable))
	_, err := io.WriteString(i.out, out.String())
	return err
}
