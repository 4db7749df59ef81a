#!/usr/bin/env bash
# Where the CPU of the proxy goes: a flame graph, and the functions that most samples went through.
#
#   loadtest/profile.sh [off|on|joined|list|session]
#
# Needs Linux `perf`. Writes target/bench/flame-NAME.svg, and prints the functions.
set -euo pipefail
cd "$(dirname -- "$0")/.."
. deploy/test/lib.sh
. loadtest/topology.sh

what=${1:-on} kind=call prefix=
case $what in
off) path=/off/bench/mcp ;;
on) path=/on/bench/mcp ;;
joined) path=/on/mcp prefix=bench__ ;;
list) path=/many/mcp kind=list ;;
session) path=/on/bench/mcp kind=session ;;
*) die "no such profile: $what" ;;
esac
command -v perf >/dev/null || die "perf is not installed"
[ -n "${NO_BUILD:-}" ] || cargo build --quiet --release --bins -p weir -p control-plane -p data-plane -p weir-loadtest
open_run profile
PATH=${BIN:-$(target_dir)/release}:$PATH
reports=${REPORTS:-$(target_dir)/bench}
mkdir -p "$reports"
start_topology
{
  printf 'name = "profile"\nrounds = 1\n[[targets]]\nname = "weir"\nurl = "%s"\n' "$PROXY$path"
  [ "$what" = off ] || printf 'token = "%s"\n' "$TOKEN"
  printf 'tool_prefix = "%s"\n[[scenarios]]\nname = "load"\nwork = [{ kind = "%s" }]\n' "$prefix" "$kind"
  printf 'pace = { kind = "closed", connections = 16, requests = 5000000, seconds_max = 14 }\n'
} >"$RUN/plan.toml"
weir-loadtest run "$RUN/plan.toml" >/dev/null 2>&1 &
load=$!
sleep 1
perf record -q -F 497 --call-graph dwarf,16384 -p "$PROXY_PID" -o "$RUN/perf.data" -- sleep 10 >/dev/null
wait "$load"
perf script -i "$RUN/perf.data" --no-inline -F comm,ip,sym 2>/dev/null |
  weir-loadtest flame --title "weir-data-plane, $what" --svg "$reports/flame-$what.svg"
printf '\nFlame graph: %s\n' "$reports/flame-$what.svg" >&2
