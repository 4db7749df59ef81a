#!/usr/bin/env bash
# The suite's client mode with the gateway as the client: `through.sh URL` makes the suite's server an
# upstream of the gateway that runs, and lets a client of others work with it through the gateway.
# GATEWAY, WEIR_URL, WEIR_TOKEN, PACKAGES, NODE and CLIENT come from conformance.sh.
set -euo pipefail

name=mock-$$
document=$(mktemp "${TMPDIR:-/tmp}/weir-mock.XXXXXX.yaml")
trap 'rm -f "$document"; weir delete Server "$name" -g conformance >/dev/null 2>&1 || true' EXIT
cat >"$document" <<DOCUMENT
apiVersion: weir/v1
kind: Server
metadata: { group: conformance, name: $name }
spec:
  versions: [{ name: v1, upstream: { http: { url: "$1", allowPrivate: true } } }]
DOCUMENT
weir apply --wait -f "$document" >/dev/null
seen() { weir get Catalog "$name.v1" -g conformance >/dev/null 2>&1; }
for _ in $(seq 1 100); do
  seen && break
  sleep 0.1
done
cd "$PACKAGES"
"$NODE" "$CLIENT" "$GATEWAY/conformance/$name/mcp"
