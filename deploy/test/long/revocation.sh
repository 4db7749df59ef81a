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
. deploy/test/planes.sh

profile=${1:-debug} samples=${2:-20}
flags=(--quiet --bins -p weir -p control-plane -p data-plane -p weir-loadtest)
[ "$profile" = debug ] || flags+=(--release)
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build "${flags[@]}"
open_run revocation
PATH=$(target_dir)/$profile:$PATH

say "control plane, two proxies"
upstream=$(free_port)
spawn upstream weir-loadtest upstream --listen "127.0.0.1:$upstream"
start_control revocation

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
spec: {versions: [{name: v1, upstream: {http: {url: "http://127.0.0.1:$upstream/legacy", allowPrivate: true}}}]}
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
  start_proxy "proxy-$at"
  proxies+=("$STARTED")
done

say "take things back"
python3 deploy/test/long/revocation.py "$WEIR_URL" "$WEIR_TOKEN" "$samples" "$RUN/tokens" \
  "${proxies[@]}"
