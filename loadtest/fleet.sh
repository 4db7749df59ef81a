#!/usr/bin/env bash
# One control plane with many proxies: builds, runs `weir-loadtest fleet`, prints Markdown.
#
#   loadtest/fleet.sh [debug|release] [--proxies N] [--servers N] [--edits N] ...
#
# The configuration is in etcd where WEIR_TEST_ETCD names one (`http://host:port`), else in the
# embedded store. The report goes to $REPORTS (default: target/bench) as fleet-STORE.json too.
set -euo pipefail
cd "$(dirname -- "$0")/.."
. deploy/test/lib.sh

profile=release
case ${1:-} in debug | release) profile=$1; shift ;; esac
flags=(--quiet --bins -p control-plane -p weir-loadtest)
[ "$profile" = debug ] || flags+=(--release)
[ -n "${NO_BUILD:-}" ] || cargo build "${flags[@]}"
PATH=${BIN:-$(target_dir)/$profile}:$PATH
reports=${REPORTS:-$(target_dir)/bench}
mkdir -p "$reports"
store=embedded
[ -z "${WEIR_TEST_ETCD:-}" ] || store=etcd
# Two sockets for each proxy, in two processes.
ulimit -n "$(ulimit -Hn)"
weir-loadtest fleet --json "$reports/fleet-$store.json" "$@"
