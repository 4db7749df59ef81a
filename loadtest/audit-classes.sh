#!/usr/bin/env bash
# What a call costs under each audit class, end to end: the same call through the same proxy in three
# groups that differ in nothing else. Prints Markdown.
#
#   loadtest/audit-classes.sh [debug|release] [--rounds N]
#
# BIN=FOLDER takes binaries that are built already.
set -euo pipefail
cd "$(dirname -- "$0")/.."
. deploy/test/lib.sh
. loadtest/topology.sh

profile=release
case ${1:-} in debug | release) profile=$1; shift ;; esac
flags=(--quiet --bins -p weir -p control-plane -p data-plane -p weir-loadtest)
[ "$profile" = debug ] || flags+=(--release)
[ -n "${BIN:-}" ] || cargo build "${flags[@]}"
open_run audit-classes
PATH=${BIN:-$(target_dir)/$profile}:$PATH
start_topology
for class in strict durable counted; do
  cat <<YAML
---
apiVersion: weir/v1
kind: Group
metadata: {name: $class}
spec: {anonymous: true, audit: $class}
---
apiVersion: weir/v1
kind: Role
metadata: {name: caller, group: $class}
spec: {rules: [{servers: ["*"], tools: ["*"]}]}
---
apiVersion: weir/v1
kind: RoleBinding
metadata: {name: agents, group: $class}
spec: {role: caller, subjects: [{anonymous: true}]}
YAML
  server "$class" bench "$UPSTREAM/mcp"
done >"$RUN/classes.yaml"
weir apply -f "$RUN/classes.yaml" >/dev/null
known() {
  local class
  for class in strict durable counted; do
    weir-loadtest wait --url "$PROXY/$class/bench/mcp" --tools 10 || return 1
  done
}
wait_for 60 "the groups" known
weir-loadtest run loadtest/plans/audit-classes.toml "$@"
