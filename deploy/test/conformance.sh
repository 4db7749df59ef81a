#!/usr/bin/env bash
# The public MCP conformance suite against a fixture of ours, without and through the gateway's
# transparent endpoint, compared check by check. Ends with `N passed, N failed`.
#
#   A  2025-11-25 in front and behind       B  2026-07-28 in front and behind, tasks included
#   C  2026-07-28 in front, a server behind that knows 2025-11-25 only
#   D  2025-11-25 in front, a server behind that knows 2026-07-28 only
#   E  2025-06-18 in front, a server behind that knows everything
#
# Each on `weir dev`, and, with PROXIES=2, over two proxies behind round robin. TOPOLOGIES="A B"
# picks some. What a topology loses against the direct run stands, with a reason, in a file of
# deploy/test/conformance; an entry that no longer applies fails.
set -euo pipefail
cd "$(dirname -- "$0")/../.."
. deploy/test/lib.sh
. deploy/test/software.sh
. deploy/test/gateway.sh

read -r -a topologies <<<"${TOPOLOGIES:-A B C D E}"
proxies=${PROXIES:-1}

# run_suite RUN REVISION URL: results below $RUN/RUN/REVISION. The exit code of the suite says little
# (see compare.rs); a run that could not start leaves no folder, which the comparison sees.
run_suite() {
  local which=(--requirements "$2")
  # Older revisions have no list of requirements; their scenarios are those that name them.
  [ "$2" \> 2025-06-18 ] || which=(--suite all --spec-version "$2")
  mkdir -p "$RUN/$1/$2"
  "$NODE" "$PACKAGES/node_modules/@modelcontextprotocol/conformance/dist/index.js" \
    server --url "$3" "${which[@]}" -o "$RUN/$1/$2" >"$RUN/$1-$2.log" 2>&1 || true
  echo "$1 at $2: $(sed -n 's/^Total: //p' "$RUN/$1-$2.log")"
}

# topology LETTER: the revision in front, the server behind, the list of known differences.
topology() {
  case $1 in
    A) revision=2025-11-25 server=both known=same-era ;;
    B) revision=2026-07-28 server=both known=same-era ;;
    C) revision=2026-07-28 server=legacy known=modern-to-legacy ;;
    D) revision=2025-11-25 server=modern known=legacy-to-modern ;;
    E) revision=2025-06-18 server=both known=same-era ;;
    *) die "no topology $1" ;;
  esac
}

say "the suite"
npm_packages conformance @modelcontextprotocol/conformance@0.2.0-alpha.12
open_run conformance
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet -p weir -p weir-peers -p control-plane -p data-plane
PATH=$(target_dir)/debug:$PATH
export PATH

say "fixtures and gateway"
mkdir "$RUN/config"
cp deploy/test/conformance/servers.yaml "$RUN/config/all.yaml"
port=7901
for eras in both legacy modern; do
  spawn "fixture-$eras" conformance-server --eras "$eras" --ready-file "$RUN/fixture-$eras.json"
  ready_file_of "fixture-$eras" "$SPAWNED" "$RUN/fixture-$eras.json" 20
  url=$(member url "$RUN/fixture-$eras.json")
  sed -i "s|http://localhost:$port/mcp|$url|" "$RUN/config/all.yaml"
  port=$((port + 1))
done
direct=$(member url "$RUN/fixture-both.json")
case $proxies in
  1) start_dev gateway "$RUN/config" ;;
  2) start_planes gateway "$RUN/config" ;;
  *) die "one proxy or two" ;;
esac
pinned conformance both legacy modern

passed=0
failed=0
for letter in "${topologies[@]}"; do
  topology "$letter"
  say "$letter: $revision in front, $server behind, proxies: $proxies"
  [ -d "$RUN/direct/$revision" ] || run_suite direct "$revision" "$direct"
  run_suite "$letter" "$revision" "$GATEWAY/conformance/$server/mcp"
  lists=(--known "deploy/test/conformance/$known.yaml")
  [ "$proxies" = 1 ] || lists+=(--known deploy/test/conformance/two-proxies.yaml)
  env RUST_BACKTRACE=0 conformance-compare "$RUN/direct" "$RUN/$letter" "${lists[@]}" \
    | tee "$RUN/$letter.txt" || true
  read -r alike wrong < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$RUN/$letter.txt")
  passed=$((passed + ${alike:-0}))
  failed=$((failed + ${wrong:-1}))
done
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
