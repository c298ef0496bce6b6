#!/bin/bash
# Generates the mesh's passwords at the first start: per server one for root, which only that server can read, and one for
# the replicator's account, which the server and the replicator can read. 999 is the user of the public server images,
# 65532 that of the replicator's.
set -eu
umask 077

generate() { # file owner mode
	[ -s "$1" ] && return
	head -c 24 /dev/urandom | base64 | tr '+/' 'xy' | tr -d '\n' >"$1.new"
	chown "$2" "$1.new"
	chmod "$3" "$1.new"
	mv "$1.new" "$1"
}

for server in east west north; do
	chmod 0755 "/secrets/$server"
	generate "/secrets/$server/root_password" 999:999 0400
	generate "/secrets/$server/replicator_password" 65532:999 0440
done
