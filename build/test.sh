#!/bin/sh
# Runs every test and ends with the line "N passed, F failed, S skipped".
# Packages whose tests start servers run after the others. The meshes of integration mostly wait, so that three of them run
# at the same time, beside the other packages with servers, one after the other.
set -eu
cd "$(dirname "$0")/.."

imports='{{.ImportPath}}{{range .TestImports}} {{.}}{{end}}{{range .XTestImports}} {{.}}{{end}}'
list=$(go list -f "$imports" ./...)
unit=$(echo "$list" | awk '$1 !~ /\/(sandbox|integration|conflict)(\/|$)/ && $0 !~ / replicator\/sandbox/ {print $1}')
server=$(echo "$list" | awk '$1 !~ /\/integration(\/|$)|\/sandbox$/ && ($1 ~ /\/sandbox\// || / replicator\/sandbox/) {print $1}')

race=-race
if ! command -v "${CC:-gcc}" >/dev/null; then
	echo "no C compiler: the tests run without the race detector"
	race=
fi
[ -z "${FAIL_ON_SKIP:-}" ] || flag=-fail-on-skip

mkdir -p bin
go build -o bin/testsum ./build/testsum
go build -o bin/fetch ./build/fetch
# Servers are fetched while the first tests run, which need none. Who needs one before it is there waits for it.
bin/fetch &

# Conflict is pure and its property tests are long: under the race detector, which makes them ten times longer, only its
# tests of concurrency run again. The limits are for tests that hang.
# shellcheck disable=SC2086 # lists of packages
exec bin/testsum ${flag:-} \
	$race -count=1 -timeout 10m -p 2 $unit -- \
	-count=1 -timeout 10m -p 2 ./conflict/... -- \
	${race:+$race -count=1 -timeout 10m -p 2 -run Concurrency ./conflict/...} -- \
	-count=1 -timeout 40m -p 2 -parallel 2 ./integration/... ./sandbox $server
