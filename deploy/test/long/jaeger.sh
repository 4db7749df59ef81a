#!/usr/bin/env bash
# Traces into a real Jaeger: one from the agent's span through the gateway's to the server's, read back
# through its query API; sampling by rule; and collectors that are dead, hang or come back, which no
# call may notice. Ends with `N passed, N failed`.
set -euo pipefail
cd "$(dirname -- "$0")/../../.."
. deploy/test/lib.sh

./deploy/test/install.sh
say "Jaeger"
JAEGER=$(deploy/test/jaeger-bin.sh)
open_run jaeger
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet -p weir -p control-plane -p data-plane
PATH=${BIN:-$(target_dir)/debug}:$PATH
export PATH

otlp=$(free_port) && otlp_http=$(free_port) && query=$(free_port)
others=()
for flag in admin.http collector.grpc-server collector.http-server http-server query.grpc-server; do
  others+=("--$flag.host-port=127.0.0.1:$(free_port)")
done
for flag in jaeger-binary jaeger-compact zipkin-compact; do
  others+=("--processor.$flag.server-host-port=127.0.0.1:$(free_port)")
done

start_jaeger() {
  COLLECTOR_OTLP_ENABLED=true spawn jaeger "$JAEGER" --collector.otlp.grpc.host-port="127.0.0.1:$otlp" \
    --collector.otlp.http.host-port="127.0.0.1:$otlp_http" \
    --query.http-server.host-port="127.0.0.1:$query" --memory.max-traces=100000 "${others[@]}"
  COLLECTOR=$SPAWNED
  wait_for 60 "Jaeger" port_answers "$query" || { cat "$RUN/jaeger.log"; exit 1; }
  wait_for 60 "Jaeger's collector" port_answers "$otlp"
}

say "gateway"
rest=$(free_port) && sync=$(free_port) && traffic=$(free_port) && admin=$(free_port) && server=$(free_port)
export WEIR_URL=http://127.0.0.1:$rest WEIR_TOKEN
head -c 32 /dev/urandom | base64 >"$RUN/vault-keys"
spawn control env WEIR_CP_LISTEN__ADDRESS="127.0.0.1:$rest" WEIR_CP_SYNC__ADDRESS="127.0.0.1:$sync" \
  WEIR_CP_ADMIN__ADDRESS=127.0.0.1:0 WEIR_CP_STORE__PATH="$RUN/store" \
  WEIR_CP_VAULT__KEYS_FILE="$RUN/vault-keys" WEIR_CP_BOOTSTRAP__TOKEN_FILE="$RUN/token" \
  WEIR_CP_AUDIT__DIR="$RUN/control-audit" weir-control-plane
wait_for 60 "the control plane" test -s "$RUN/token" || { cat "$RUN/control.log"; exit 1; }
wait_for 60 "its API" port_answers "$rest"
WEIR_TOKEN=$(cat "$RUN/token")
sed -e "s|SERVER|http://127.0.0.1:$server/mcp|" deploy/test/long/jaeger.yaml >"$RUN/documents.yaml"
weir apply -f "$RUN/documents.yaml" >/dev/null
for group in shop bank; do weir token create agent -g "$group" --quiet >"$RUN/$group.token"; done
weir enrol-token --region default --node proxy --quiet >"$RUN/enrol-token"
cat >"$RUN/proxy.yaml" <<YAML
telemetry:
  traces:
    share: 0
    rules:
      - {method: tools/list, share: 0}
      - {group: bank, share: 1}
      - {outcome: refused, share: 1}
      - {slower_than_ms: 300, share: 1}
YAML

# start_proxy ENDPOINT [QUEUE]: one collector at a time.
start_proxy() {
  spawn proxy env WEIR_DP_LISTEN__ADDRESS="127.0.0.1:$traffic" WEIR_DP_ADMIN__ADDRESS="127.0.0.1:$admin" \
    WEIR_DP_NODE=proxy WEIR_DP_DATA_DIR="$RUN/proxy" WEIR_DP_CONTROL__ADDRESSES="127.0.0.1:$sync" \
    WEIR_DP_CONTROL__TOKEN_FILE="$RUN/enrol-token" WEIR_DP_TELEMETRY__OTLP__ENDPOINT="$1" \
    WEIR_DP_TELEMETRY__OTLP__QUEUE="${2:-16384}" weir-data-plane --config "$RUN/proxy.yaml"
  PROXY=$SPAWNED
  wait_for 60 "the proxy" port_answers "$traffic" || { tail -n 20 "$RUN/proxy.log"; exit 1; }
}
stop_proxy() { kill -KILL -- "-$PROXY"; wait "$PROXY" 2>/dev/null || true; }

passed=0
failed=0
# part WHAT...: a part of jaeger.py, which ends with `N passed, N failed`.
part() {
  local ok bad
  python3 deploy/test/long/jaeger.py "$@" --gateway "http://127.0.0.1:$traffic" \
    --query "http://127.0.0.1:$query" --otlp "http://127.0.0.1:$otlp_http" \
    --metrics "http://127.0.0.1:$admin/metrics" --tokens "$RUN" 2>&1 | tee "$RUN/part.log" || true
  read -r ok bad < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$RUN/part.log") || true
  passed=$((passed + ${ok:-0}))
  failed=$((failed + ${bad:-1}))
}

start_jaeger
spawn server python3 deploy/test/long/jaeger.py serve --listen "$server" --otlp "http://127.0.0.1:$otlp_http"
start_proxy "http://127.0.0.1:$otlp"
say "one trace, and sampling"
part traces
say "a collector that is killed and comes back"
kill -KILL -- "-$COLLECTOR"
wait "$COLLECTOR" 2>/dev/null || true
part away
start_jaeger
part back
stop_proxy
say "a collector that never was"
start_proxy "http://127.0.0.1:$(free_port)" 64
part away
stop_proxy
say "a collector that takes everything and says nothing"
hanging=$(free_port)
spawn hanging python3 deploy/test/long/jaeger.py hang --listen "$hanging"
wait_for 20 "it" port_answers "$hanging"
start_proxy "http://127.0.0.1:$hanging" 64
part hanging
stop_proxy
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
