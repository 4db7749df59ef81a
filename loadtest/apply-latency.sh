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
. deploy/test/planes.sh

profile=${1:-release} proxies=${2:-1} changes=${3:-50}
flags=(--quiet --bins -p weir -p control-plane -p data-plane -p weir-loadtest)
[ "$profile" = debug ] || flags+=(--release)
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build "${flags[@]}"
open_run apply
PATH=$(target_dir)/$profile:$PATH

upstream=$(free_port)
spawn upstream weir-loadtest upstream --listen "127.0.0.1:$upstream"
start_control apply-latency

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
  start_proxy "proxy-$at"
  endpoints+=(--mcp "$STARTED/acme/bench/mcp")
done
weir-loadtest apply --rest "$WEIR_URL" --operator-token "$WEIR_TOKEN" --group acme --role caller \
  --account ci --agent-token "$agent" --samples "$changes" "${endpoints[@]}"
