#!/usr/bin/env bash
# Prints the path of Jaeger's all-in-one binary; builds it from its Go module first when the cache has
# none (four minutes on two cores, once). The binary appears under its name only when it is complete.
set -euo pipefail
. "$(dirname -- "$0")/lib.sh"

version=1.62.0
binary=$CACHE/jaeger-$version
mkdir -p "$CACHE"
exec 9>"$CACHE/jaeger.lock"
flock 9
if [ ! -x "$binary" ]; then
  command -v go >/dev/null || die "Go is needed to build Jaeger"
  partial=$(mktemp -d "$CACHE/jaeger.XXXXXX")
  trap 'rm -rf "$partial"' EXIT
  # A module of our own that imports the program: `go install` refuses modules with `replace`.
  (
    cd "$partial"
    printf 'module weirtest\n\ngo 1.22\n' >go.mod
    printf '//go:build tools\n\npackage weirtest\n\nimport _ "github.com/jaegertracing/jaeger/cmd/all-in-one"\n' >tools.go
    go get "github.com/jaegertracing/jaeger/cmd/all-in-one@v$version"
    go mod tidy
    go build -o jaeger github.com/jaegertracing/jaeger/cmd/all-in-one
  ) >"$partial/log" 2>&1 || { tail -n 20 "$partial/log" >&2; die "Jaeger cannot be built"; }
  mv "$partial/jaeger" "$binary"
fi
echo "$binary"
