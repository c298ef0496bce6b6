#!/bin/bash
# Starts a MySQL or MariaDB server the way the public images do: at the first start it makes the data directory, gives
# root the password of MYSQL_ROOT_PASSWORD or MARIADB_ROOT_PASSWORD, runs /docker-entrypoint-initdb.d/*.sh and *.sql
# without the network, and then runs the server with the arguments given.
set -eu

data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock
if [ -x /usr/sbin/mariadbd ]; then server=mariadbd; client=mariadb; else server=mysqld; client=mysql; fi

case "${1:-}" in
-*) ;;                               # only options: they are the server's
mysqld | mariadbd) shift ;;
'') ;;
*) exec "$@" ;;                      # another program
esac

# file_env NAME: the value of NAME, or what is in the file that NAME_FILE names.
file_env() {
	local file="$1_FILE"
	if [ -n "${!file:-}" ]; then printf '%s' "$(<"${!file}")"; else printf '%s' "${!1:-}"; fi
}

first_start() {
	local password
	password=$(file_env MYSQL_ROOT_PASSWORD)
	[ -n "$password" ] || password=$(file_env MARIADB_ROOT_PASSWORD)
	if [ -z "$password" ]; then
		echo "set MYSQL_ROOT_PASSWORD or MARIADB_ROOT_PASSWORD" >&2
		exit 1
	fi
	if [ $server = mariadbd ]; then
		mariadb-install-db --no-defaults --user=root --datadir=$data --auth-root-authentication-method=normal --skip-test-db >/dev/null
	else
		mysqld --no-defaults --user=root --initialize-insecure --datadir=$data
	fi
	"$server" --no-defaults --user=root --datadir=$data --socket=$socket --skip-networking --skip-log-bin &
	local pid=$!
	until "$client" --no-defaults -uroot -S $socket -e 'SELECT 1' >/dev/null 2>&1; do
		kill -0 $pid || exit 1
		sleep 0.1
	done
	"$client" --no-defaults -uroot -S $socket <<-SQL
		CREATE USER 'root'@'%' IDENTIFIED BY '$password';
		GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
		ALTER USER 'root'@'localhost' IDENTIFIED BY '$password';
	SQL
	export MYSQL_PWD="$password"
	docker_process_sql() { "$client" --no-defaults -uroot -S $socket "$@"; } # the public images' name for it
	local file
	for file in /docker-entrypoint-initdb.d/*; do
		case "$file" in
		*.sh) . "$file" ;;
		*.sql) docker_process_sql <"$file" ;;
		esac
	done
	unset MYSQL_PWD
	kill $pid
	wait $pid || true
}

mkdir -p /run/mysqld
[ -d $data/mysql ] || first_start
exec "$server" --no-defaults --user=root --datadir=$data --socket=$socket --bind-address=0.0.0.0 --port=3306 "$@"
