#!/bin/sh
# Builds the replicator's image from a binary that is built here, so that only a Docker engine is needed and no image.
# IMAGE names it (default replicator:latest).
set -eu
cd "$(dirname "$0")/.."
version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo dev)}
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/out/state"
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$version -X main.commit=$commit" \
	-o "$work/out/replicator" ./cmd/replicator
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
	[ -f "$work/out/ca-certificates.crt" ] || [ ! -f $bundle ] || cp $bundle "$work/out/ca-certificates.crt"
done
[ -f "$work/out/ca-certificates.crt" ] || {
	echo "no CA certificates on this machine: install the package ca-certificates" >&2
	exit 1
}
sed -n '/^FROM scratch/,$p' Dockerfile | sed 's|--from=build ||; s| /out/| out/|' >"$work/Dockerfile"
DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0} docker build -q -t "${IMAGE:-replicator:latest}" "$work"
