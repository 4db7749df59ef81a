#!/usr/bin/env bash
# From one command to two proxies that refuse what it takes back, open streams included: a control
# plane on etcd (WEIR_TEST_ETCD=http://host:port; the embedded store without), two proxies and a fast
# MCP server, processes of their own, joined by mutual TLS. Prints p50, p99 and the longest of each
# kind of revocation. Ends with `N passed, N failed`.
#
#   deploy/test/long/revocation.sh [debug|release] [SAMPLES]
set -euo pipefail
cd "$(dirname -- "$0")/../../.."
. deploy/test/lib.sh

profile=${1:-debug} samples=${2:-20}
flags=(--quiet --bins -p weir -p control-plane -p data-plane -p weir-loadtest)
[ "$profile" = debug ] || flags+=(--release)
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build "${flags[@]}"
open_run revocation
PATH=$(target_dir)/$profile:$PATH

say "control plane, two proxies"
rest=$(free_port) sync=$(free_port) upstream=$(free_port)
spawn upstream weir-loadtest upstream --listen "127.0.0.1:$upstream"
store=(WEIR_CP_STORE__PATH="$RUN/store")
[ -z "${WEIR_TEST_ETCD:-}" ] || store=(
  WEIR_CP_STORE__ETCD__ENDPOINTS="$WEIR_TEST_ETCD" WEIR_CP_STORE__ETCD__PREFIX="/revocation-$$/")
spawn control env WEIR_CP_NAME=measured WEIR_CP_LISTEN__ADDRESS="127.0.0.1:$rest" \
  WEIR_CP_SYNC__ADDRESS="127.0.0.1:$sync" WEIR_CP_ADMIN__ADDRESS=127.0.0.1:0 \
  WEIR_CP_VAULT__KEYS="$(head -c 32 /dev/urandom | base64)" \
  WEIR_CP_BOOTSTRAP__TOKEN_FILE="$RUN/token" WEIR_CP_AUDIT__DIR="$RUN/control-audit" \
  "${store[@]}" weir-control-plane
wait_for 30 "the control plane" test -s "$RUN/token" || { cat "$RUN/control.log"; exit 1; }
WEIR_URL=http://127.0.0.1:$rest WEIR_TOKEN=$(cat "$RUN/token")
export WEIR_URL WEIR_TOKEN
wait_for 30 "REST" port_answers "$rest"

tokens() { # tokens COUNT SUBJECT MEMBERSHIP: of an issuer of their own, whose keys go to SUBJECT.jwks
  weir-loadtest token --issuer "https://$2.example" --audience weir --subject "$2" --count "$1" \
    --group "$3" --sessions --jwks "$RUN/$2.jwks"
}
tokens "$samples" somebody staff >"$RUN/tokens"
tokens 1 visitor visitors >>"$RUN/tokens"
provider() { # provider NAME SUBJECT
  cat <<DOCUMENT
---
apiVersion: weir/v1
kind: IdentityProvider
metadata: {name: $1, group: acme}
spec: {issuer: "https://$2.example", audiences: [weir], keys: {jwks: '$(cat "$RUN/$2.jwks")'}}
DOCUMENT
}
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
kind: Role
metadata: {name: caller, group: acme}
spec: {rules: [{servers: ["*"], tools: ["*"]}]}
---
apiVersion: weir/v1
kind: RoleBinding
metadata: {name: staff, group: acme}
spec: {role: caller, subjects: [{membership: staff}]}
---
apiVersion: weir/v1
kind: Policy
metadata: {name: visitors, group: acme}
spec: {cedar: 'permit (principal, action, resource) when { principal.memberships.contains("visitors") };'}
$(provider corp somebody)
$(provider guests visitor)
DOCUMENTS
weir apply -f "$RUN/documents.yaml" >/dev/null
proxies=()
for at in 1 2; do
  port=$(free_port)
  weir enrol-token --region eu --quiet >"$RUN/join-$at"
  spawn "proxy-$at" env WEIR_DP_NODE="proxy-$at" WEIR_DP_LISTEN__ADDRESS="127.0.0.1:$port" \
    WEIR_DP_ADMIN__ADDRESS=127.0.0.1:0 WEIR_DP_DATA_DIR="$RUN/proxy-$at" \
    WEIR_DP_CONTROL__ADDRESSES="127.0.0.1:$sync" WEIR_DP_CONTROL__TOKEN_FILE="$RUN/join-$at" \
    weir-data-plane
  wait_for 30 "proxy $at" port_answers "$port" || { cat "$RUN/proxy-$at.log"; exit 1; }
  proxies+=("http://127.0.0.1:$port")
done

say "take things back"
python3 deploy/test/long/revocation.py "$WEIR_URL" "$WEIR_TOKEN" "$samples" "$RUN/tokens" \
  "${proxies[@]}"
