#!/usr/bin/env bash
# How long from an apply to its being in force: one control plane, one or more proxies, each a
# process of its own, and a fast MCP server behind. Prints one line.
#
#   loadtest/apply-latency.sh [debug|release] [PROXIES] [CHANGES]
#
# State is in etcd where WEIR_TEST_ETCD names one (`http://host:port`), else in the embedded store.
set -euo pipefail
cd "$(dirname -- "$0")/.."
. deploy/test/lib.sh

profile=${1:-release} proxies=${2:-1} changes=${3:-50}
flags=(--quiet --bins -p weir -p control-plane -p data-plane -p weir-loadtest)
[ "$profile" = debug ] || flags+=(--release)
cargo build "${flags[@]}"
open_run apply
PATH=$(target_dir)/$profile:$PATH

rest=$(free_port) sync=$(free_port) upstream=$(free_port)
spawn upstream weir-loadtest upstream --listen "127.0.0.1:$upstream"
store=(WEIR_CP_STORE__PATH="$RUN/store")
[ -z "${WEIR_TEST_ETCD:-}" ] || store=(
  WEIR_CP_STORE__ETCD__ENDPOINTS="$WEIR_TEST_ETCD" WEIR_CP_STORE__ETCD__PREFIX="/apply-latency-$$/")
spawn control env WEIR_CP_NAME=measured WEIR_CP_LISTEN__ADDRESS="127.0.0.1:$rest" \
  WEIR_CP_SYNC__ADDRESS="127.0.0.1:$sync" WEIR_CP_ADMIN__ADDRESS=127.0.0.1:0 \
  WEIR_CP_VAULT__KEYS="$(head -c 32 /dev/urandom | base64)" \
  WEIR_CP_BOOTSTRAP__TOKEN_FILE="$RUN/token" WEIR_CP_AUDIT__DIR="$RUN/control-audit" \
  "${store[@]}" weir-control-plane
wait_for 30 "the control plane" test -s "$RUN/token" || { cat "$RUN/control.log"; exit 1; }
WEIR_URL=http://127.0.0.1:$rest WEIR_TOKEN=$(cat "$RUN/token")
export WEIR_URL WEIR_TOKEN
wait_for 30 "REST" port_answers "$rest"

cat >"$RUN/documents.yaml" <<DOCUMENTS
apiVersion: weir/v1
kind: Group
metadata: {name: acme}
spec: {}
---
apiVersion: weir/v1
kind: Server
metadata: {name: bench, group: acme}
spec: {versions: [{name: v1, upstream: {http: {url: "http://127.0.0.1:$upstream/mcp", allowPrivate: true}}}]}
---
apiVersion: weir/v1
kind: ServiceAccount
metadata: {name: ci, group: acme}
spec: {}
---
apiVersion: weir/v1
kind: Role
metadata: {name: caller, group: acme}
spec: {rules: [{servers: ["*"], tools: ["*"]}]}
DOCUMENTS
weir apply -f "$RUN/documents.yaml" >/dev/null
agent=$(weir token create ci -g acme --quiet)
endpoints=()
for at in $(seq 1 "$proxies"); do
  port=$(free_port)
  weir enrol-token --region eu --quiet >"$RUN/join-$at"
  spawn "proxy-$at" env WEIR_DP_NODE="proxy-$at" WEIR_DP_LISTEN__ADDRESS="127.0.0.1:$port" \
    WEIR_DP_ADMIN__ADDRESS=127.0.0.1:0 WEIR_DP_DATA_DIR="$RUN/proxy-$at" \
    WEIR_DP_CONTROL__ADDRESSES="127.0.0.1:$sync" WEIR_DP_CONTROL__TOKEN_FILE="$RUN/join-$at" \
    weir-data-plane
  wait_for 30 "proxy $at" port_answers "$port" || { cat "$RUN/proxy-$at.log"; exit 1; }
  endpoints+=(--mcp "http://127.0.0.1:$port/acme/bench/mcp")
done
weir-loadtest apply --rest "$WEIR_URL" --operator-token "$WEIR_TOKEN" --group acme --role caller \
  --account ci --agent-token "$agent" --samples "$changes" "${endpoints[@]}"
