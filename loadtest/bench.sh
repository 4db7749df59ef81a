#!/usr/bin/env bash
# The table of targets: builds, starts everything on loopback, runs the plans, prints Markdown.
#
#   loadtest/bench.sh [debug|release|dist] [--only PART] [--rounds N] [--strict]
#
# Reports go to $REPORTS (default: target/bench): bench.md, bench.json, bench.html.
set -euo pipefail
cd "$(dirname -- "$0")/.."
. deploy/test/lib.sh
. loadtest/topology.sh

profile=release
case ${1:-} in debug | release | dist) profile=$1; shift ;; esac
flags=(--quiet --bins -p weir -p control-plane -p data-plane -p weir-loadtest)
[ "$profile" = debug ] || flags+=(--profile "$profile")
[ -n "${NO_BUILD:-}" ] || cargo build "${flags[@]}"
open_run bench
PATH=${BIN:-$(target_dir)/$profile}:$PATH
reports=${REPORTS:-$(target_dir)/bench}
mkdir -p "$reports"
start_topology
weir-loadtest run "${PLAN:-loadtest/plans/targets.toml}" --json "$reports/bench.json" \
  --html "$reports/bench.html" "$@" | tee "$reports/bench.md"
printf '\nReports: %s\n' "$reports" >&2
