#!/usr/bin/env bash
# How long small calls take by themselves, and while large ones are worked on. Prints Markdown.
#
#   loadtest/large-payloads.sh [debug|release|dist]
#
# BIN=FOLDER takes binaries that are built already. `WEIR_DP_THREADS` sets the proxy's threads.
set -euo pipefail
cd "$(dirname -- "$0")/.."
. deploy/test/lib.sh
. loadtest/topology.sh

profile=release
case ${1:-} in debug | release | dist) profile=$1; shift ;; esac
flags=(--quiet --bins -p weir -p control-plane -p data-plane -p weir-loadtest)
[ "$profile" = debug ] || flags+=(--profile "$profile")
[ -n "${BIN:-}" ] || cargo build "${flags[@]}"
open_run large-payloads
PATH=${BIN:-$(target_dir)/$profile}:$PATH
start_topology
small() { weir-loadtest run loadtest/plans/small.toml; }
printf '# Small calls by themselves\n\n'
small
for round in 1 2 3; do
  weir-loadtest run loadtest/plans/large.toml >"$RUN/large.md" 2>&1 &
  large=$!
  printf '\n# Small calls beside large ones, round %s\n\n' "$round"
  small
  wait "$large"
  cat "$RUN/large.md"
done
