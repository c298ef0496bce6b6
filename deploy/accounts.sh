# Read by the server images' entrypoints at the first start: makes the replicator's account, with the fewest privileges,
# as `replicator init --grants` prints them.
if command -v mariadbd >/dev/null; then
	global='REPLICATION SLAVE, BINLOG MONITOR, BINLOG REPLAY, BINLOG ADMIN'
	tables='TRIGGER, SELECT, INSERT, UPDATE, DELETE'
else
	global='REPLICATION SLAVE, REPLICATION CLIENT, REPLICATION_APPLIER'
	tables='TRIGGER, SELECT, INSERT, UPDATE, DELETE'
fi
docker_process_sql <<-SQL
	SET SESSION sql_log_bin = 0;
	CREATE USER 'replicator'@'%' IDENTIFIED BY '$(cat /run/replicator/replicator_password)';
	GRANT $global ON *.* TO 'replicator'@'%';
	GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP ON replicator.* TO 'replicator'@'%';
	GRANT $tables ON *.* TO 'replicator'@'%';
SQL
