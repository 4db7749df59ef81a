#!/usr/bin/env bash
# Where the CPU of the proxy goes, or its allocations: a flame graph, and the functions that most
# of it went through.
#
#   loadtest/profile.sh [off|on|joined|list|session] [time|allocations|instructions]
#
# Needs Linux `perf`, for allocations `heaptrack`, for instructions `valgrind`. Writes
# target/bench/flame-NAME-KIND.svg, and prints the functions; for allocations also how many a
# request takes. Instructions are those of the program itself, whatever else the machine does: a
# table by function and what a request takes, written to target/bench/callgrind-NAME.txt, no graph.
set -euo pipefail
cd "$(dirname -- "$0")/.."
. deploy/test/lib.sh
. loadtest/topology.sh

gone() { ! alive "$1"; }

what=${1:-on} of=${2:-time} kind=call prefix= requests=5000000 tool=perf
case $what in
off) path=/off/bench/mcp ;;
on) path=/on/bench/mcp ;;
joined) path=/on/mcp prefix=bench__ ;;
list) path=/many/mcp kind=list ;;
session) path=/on/bench/mcp kind=session ;;
*) die "no such profile: $what" ;;
esac
case $of in
time) features= ;;
allocations) features=data-plane/system-allocator requests=20000 tool=heaptrack ;;
instructions) features= requests=1500 tool=valgrind ;;
*) die "time, allocations or instructions, not $of" ;;
esac
command -v $tool >/dev/null || die "$tool is not installed"
[ -n "${NO_BUILD:-}" ] || cargo build --quiet --release --features "$features" --bins \
  -p weir -p control-plane -p data-plane -p weir-loadtest
open_run profile
PATH=${BIN:-$(target_dir)/release}:$PATH
reports=${REPORTS:-$(target_dir)/bench}
mkdir -p "$reports" "$RUN/bin"
if [ "$of" = allocations ]; then
  printf '#!/bin/sh\nexec heaptrack -o %s/heap %s\n' \
    "$RUN" "$(command -v weir-data-plane)" >"$RUN/bin/weir-data-plane"
elif [ "$of" = instructions ]; then
  printf '#!/bin/sh\nexec valgrind -q --tool=callgrind --instr-atstart=no --callgrind-out-file=%s/counted %s\n' \
    "$RUN" "$(command -v weir-data-plane)" >"$RUN/bin/weir-data-plane"
fi
if [ -e "$RUN/bin/weir-data-plane" ]; then
  chmod +x "$RUN/bin/weir-data-plane"
  PATH=$RUN/bin:$PATH
fi
start_topology
plan() {
  printf 'name = "profile"\nrounds = 1\n[[targets]]\nname = "weir"\nurl = "%s"\n' "$PROXY$path"
  [ "$what" = off ] || printf 'token = "%s"\n' "$TOKEN"
  printf 'tool_prefix = "%s"\n[[scenarios]]\nname = "load"\nwork = [{ kind = "%s" }]\n' "$prefix" "$kind"
  printf 'pace = { kind = "closed", connections = 16, requests = %s, seconds_max = %s }\n' "$1" "$2"
}
plan "$requests" 14 >"$RUN/plan.toml"
svg=$reports/flame-$what-$of.svg title="weir-data-plane, $what, $of"
if [ "$of" = allocations ]; then
  weir-loadtest run "$RUN/plan.toml" >/dev/null 2>&1
  # The proxy alone: heaptrack has to see its end.
  kill -TERM "$(pgrep -P "$PROXY_PID" -x weir-data-plane)"
  wait_for 60 heaptrack gone "$PROXY_PID"
  heaptrack_print -f "$RUN"/heap.* -F "$RUN/stacks" --flamegraph-cost-type allocations \
    --print-peaks 0 --print-allocators 0 --print-temporary 0 >/dev/null
  weir-loadtest flame --collapsed --title "$title" --svg "$svg" <"$RUN/stacks"
  awk -v n="$requests" '{ sum += $NF } END { printf "\nAllocations a request, start included: %.0f\n", sum / n }' "$RUN/stacks"
elif [ "$of" = instructions ]; then
  plan 200 60 >"$RUN/warm.toml"
  plan "$requests" 300 >"$RUN/plan.toml"
  weir-loadtest run "$RUN/warm.toml" >/dev/null 2>&1
  callgrind_control -i on "$PROXY_PID" >/dev/null
  weir-loadtest run "$RUN/plan.toml" >/dev/null 2>&1
  callgrind_control -d "$PROXY_PID" >/dev/null
  counted=$reports/callgrind-$what.txt
  callgrind_annotate --inclusive=yes --threshold=100 "$RUN/counted.1" >"$counted" 2>/dev/null
  grep -v -e '^--' -e '^$' "$counted" | sed -n 1,40p
  awk -v n="$requests" '/PROGRAM TOTALS/ { gsub(",", "", $1); printf "\nInstructions a request, what else ran meanwhile included: %.0f\n", $1 / n }' "$counted"
  printf '\nTable: %s\n' "$counted" >&2
  exit 0
else
  weir-loadtest run "$RUN/plan.toml" >/dev/null 2>&1 &
  load=$!
  sleep 1
  perf record -q -F 497 --call-graph dwarf,16384 -p "$PROXY_PID" -o "$RUN/perf.data" -- sleep 10 >/dev/null
  wait "$load"
  perf script -i "$RUN/perf.data" --no-inline -F comm,ip,sym 2>/dev/null |
    weir-loadtest flame --title "$title" --svg "$svg"
fi
printf '\nFlame graph: %s\n' "$svg" >&2
