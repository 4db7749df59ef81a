#!/usr/bin/env bash
# A quota over three proxies and two replicas of the control plane on etcd, while a proxy and a replica
# are killed (-9) and the proxy starts anew: never more calls than the quota and the stated head starts,
# and in the end every proxy says when it renews. Ends with `N passed, N failed`.
set -euo pipefail
cd "$(dirname -- "$0")/../../.."
. deploy/test/lib.sh
. deploy/test/components.sh

[ -n "${WEIR_DEMO_BUILT:-}" ] ||
  cargo build --quiet --bins -p weir -p control-plane -p data-plane -p weir-loadtest
open_run quota
PATH=$(target_dir)/debug:$PATH
export PATH

say "etcd, two replicas of the control plane"
[ -n "${WEIR_TEST_ETCD:-}" ] || start_with_retries etcd start_etcd
upstream=$(free_port)
spawn upstream weir-loadtest upstream --listen "127.0.0.1:$upstream"
keys=$(head -c 32 /dev/urandom | base64)
rests=() syncs=() planes=()
for at in 1 2; do
  rest=$(free_port) sync=$(free_port)
  spawn "control-$at" env WEIR_CP_NAME="cp-$at" WEIR_CP_LISTEN__ADDRESS="127.0.0.1:$rest" \
    WEIR_CP_SYNC__ADDRESS="127.0.0.1:$sync" WEIR_CP_ADMIN__ADDRESS=127.0.0.1:0 \
    WEIR_CP_VAULT__KEYS="$keys" WEIR_CP_BOOTSTRAP__TOKEN_FILE="$RUN/token-$at" \
    WEIR_CP_AUDIT__DIR="$RUN/control-audit-$at" WEIR_CP_STORE__ETCD__ENDPOINTS="$WEIR_TEST_ETCD" \
    WEIR_CP_STORE__ETCD__PREFIX="/quota-$$/" weir-control-plane
  planes+=("$SPAWNED")
  wait_for 30 "replica $at" port_answers "$rest" || { cat "$RUN/control-$at.log"; exit 1; }
  [ "$at" = 2 ] || wait_for 30 "the first operator" test -s "$RUN/token-1"
  rests+=("$rest") syncs+=("127.0.0.1:$sync")
done
WEIR_URL=http://127.0.0.1:${rests[1]} WEIR_TOKEN=$(cat "$RUN/token-1")
export WEIR_URL WEIR_TOKEN

cat >"$RUN/documents.yaml" <<DOCUMENTS
apiVersion: weir/v1
kind: Group
metadata: {name: acme}
spec: {pin: always}
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
---
apiVersion: weir/v1
kind: RoleBinding
metadata: {name: ci, group: acme}
spec: {role: caller, subjects: [{serviceAccount: ci}]}
---
apiVersion: weir/v1
kind: Limit
metadata: {name: monthly, group: acme}
spec: {per: principal, tools: [echo], quota: {calls: 2000, per: month}}
DOCUMENTS
weir apply -f "$RUN/documents.yaml" >/dev/null
agent=$(weir token create ci -g acme --quiet)
start_proxy() { # start_proxy NUMBER PORT
  spawn "proxy-$1" env WEIR_DP_NODE="proxy-$1" WEIR_DP_LISTEN__ADDRESS="127.0.0.1:$2" \
    WEIR_DP_ADMIN__ADDRESS=127.0.0.1:0 WEIR_DP_DATA_DIR="$RUN/proxy-$1" \
    WEIR_DP_CONTROL__ADDRESSES="${syncs[0]},${syncs[1]}" \
    WEIR_DP_CONTROL__TOKEN_FILE="$RUN/join-$1" weir-data-plane
  wait_for 30 "proxy $1" port_answers "$2" || { cat "$RUN/proxy-$1.log"; exit 1; }
}
ports=() proxies=()
for at in 1 2 3; do
  port=$(free_port)
  weir enrol-token --region eu --quiet >"$RUN/join-$at"
  start_proxy "$at" "$port"
  ports+=("$port") proxies+=("$SPAWNED")
done

say "spend it"
python3 deploy/test/long/quota.py spend "$RUN/spent" "$agent" "${ports[@]}" &
spender=$!
enough() { [ "$(cat "$RUN/spent" 2>/dev/null || echo 0)" -ge "$1" ]; }
wait_for 60 "the first calls" enough 200
kill -KILL -- "-${proxies[0]}"
echo "proxy 1 is killed after $(cat "$RUN/spent") calls"
start_proxy 1 "${ports[0]}"
wait_for 60 "more calls" enough 700
kill -KILL -- "-${planes[0]}"
echo "replica 1 of the control plane is killed after $(cat "$RUN/spent") calls"
status=0
wait "$spender" || status=$?
weir limits -g acme
exit "$status"
