#!/usr/bin/env bash
# The public MCP conformance suite against a fixture of ours, without and through the gateway's
# transparent endpoint, compared check by check. Ends with `N passed, N failed`.
#
#   A  2025-11-25 in front and behind       B  2026-07-28 in front and behind, tasks included
#   C  2026-07-28 in front, a server behind that knows 2025-11-25 only
#   D  2025-11-25 in front, a server behind that knows 2026-07-28 only
#   E  2025-06-18 in front, a server behind that knows everything
#   G  2025-11-25 and
#   H  2026-07-28 in front and behind, with a fixture on the Python SDK that has a part of the contract
#   I  2025-11-25 and
#   J  2026-07-28 in front and behind, with one on the TypeScript SDK
#   F  the gateway as the client: the suite's own servers behind, a client of others in front, against
#      the same client without the gateway
#
# Each on `weir dev`, and, with PROXIES=2, over two proxies behind round robin. TOPOLOGIES="A B"
# picks some. What a topology loses against the direct run stands, with a reason, in a file of
# deploy/test/conformance; an entry that no longer applies fails. The figures have to be those of
# docs/reference/conformance.md, which WEIR_BLESS=1 writes anew from a run of all.
set -euo pipefail
cd "$(dirname -- "$0")/../.."
. deploy/test/lib.sh
. deploy/test/software.sh
. deploy/test/gateway.sh

read -r -a topologies <<<"${TOPOLOGIES:-A B C D E G H I J F}"
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

# What the suite has for clients, the scenarios of authorization apart: those check which resource
# a client asks a token for, and that is the gateway here.
client_scenarios() {
  case $1 in
    2025-11-25) echo initialize tools_call elicitation-sep1034-client-defaults sse-retry \
      json-schema-2020-12-preservation ;;
    2026-07-28) echo request-metadata tools_call http-standard-headers http-custom-headers \
      http-invalid-tool-headers sep-2322-client-request-state json-schema-ref-no-deref \
      json-schema-2020-12-preservation ;;
  esac
}

# run_clients RUN REVISION COMMAND: the scenarios one by one; results as from run_suite.
run_clients() {
  local scenario
  mkdir -p "$RUN/$1/$2"
  for scenario in $(client_scenarios "$2"); do
    "$NODE" "$PACKAGES/node_modules/@modelcontextprotocol/conformance/dist/index.js" client \
      --command "$3" --scenario "$scenario" --spec-version "$2" -o "$RUN/$1/$2" \
      >>"$RUN/$1-$2.log" 2>&1 || true
  done
  echo "$1 at $2: $(ls "$RUN/$1/$2" | wc -l) scenarios"
}

# topology LETTER: the revision in front, the server behind, the list of known differences.
topology() {
  case $1 in
    A) revision=2025-11-25 server=both list=same-era about="both eras" ;;
    B) revision=2026-07-28 server=both list=same-era about="both eras, tasks included" ;;
    C) revision=2026-07-28 server=legacy list=modern-to-legacy about="2025-11-25 only" ;;
    D) revision=2025-11-25 server=modern list=legacy-to-modern about="2026-07-28 only" ;;
    E) revision=2025-06-18 server=both list=same-era about="both eras" ;;
    G) revision=2025-11-25 server=python list=python-sdk about="the Python SDK, both eras" ;;
    H) revision=2026-07-28 server=python list=python-sdk about="the Python SDK, both eras" ;;
    I) revision=2025-11-25 server=typescript list=typescript-sdk about="the TypeScript SDK, both eras" ;;
    J) revision=2026-07-28 server=typescript list=typescript-sdk about="the TypeScript SDK, both eras" ;;
    *) die "no topology $1" ;;
  esac
}

say "the suite"
npm_packages conformance @modelcontextprotocol/conformance@0.2.0-alpha.12 \
  @modelcontextprotocol/client@2.4.0 @modelcontextprotocol/server@2.4.0 \
  @modelcontextprotocol/node@2.1.2
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
direct_python='' direct_typescript=''
# other NAME COMMAND...: a fixture of another implementation, on the port that the command is given last;
# its URL in $URL.
other() {
  local name=$1 port
  shift
  port=$(free_port)
  spawn "fixture-$name" "$@" "$port"
  wait_for 30 "the fixture on the SDK of $name" port_answers "$port"
  URL=http://localhost:$port/mcp
  sed -e "s|OTHER_NAME|$name|" -e "s|OTHER_URL|$URL|" deploy/test/conformance/other-server.yaml \
    >"$RUN/config/$name.yaml"
}
if [[ " ${topologies[*]} " == *" "[GH]" "* ]]; then
  python_packages clients mcp==2.3.0 jbt-mcpcheck==0.1.1 mcp-ssrf-check==0.2.1
  other python "$PYTHON_BIN/python" deploy/test/conformance/python_fixture.py
  direct_python=$URL
fi
if [[ " ${topologies[*]} " == *" "[IJ]" "* ]]; then
  other typescript env --chdir="$PACKAGES" "$NODE" "$PWD/deploy/test/conformance/typescript_fixture.mjs"
  direct_typescript=$URL
fi
case $proxies in
  1) start_dev gateway "$RUN/config" ;;
  2) start_planes gateway "$RUN/config" ;;
  *) die "one proxy or two" ;;
esac
pinned conformance both legacy modern ${direct_python:+python} ${direct_typescript:+typescript}

# compared DIRECT THROUGH KNOWN [OPTION...]: counts what ends alike, and what does not.
compared() {
  local lists=(--known "deploy/test/conformance/$3.yaml" "${@:4}") alike wrong known better
  env RUST_BACKTRACE=0 conformance-compare "$RUN/$1" "$RUN/$2" "${lists[@]}" \
    | tee "$RUN/$2.txt" || true
  read -r alike wrong < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$RUN/$2.txt")
  passed=$((passed + ${alike:-0}))
  failed=$((failed + ${wrong:-1}))
  known=$(grep -c '^  known: ' "$RUN/$2.txt" || true)
  printf '| %s | %s | %s | %s | %s |\n' "$2" "$front" "$back" "${alike:-0}" "$known" >>"$RUN/rows"
  better=$(grep -c '^  differs, not for the worse: ' "$RUN/$2.txt" || true)
  printf '| %s | %s | %s | %s | %s |\n' "$2" "$front" "$back" "$((${alike:-0} + better))" "$known" >>"$RUN/rows-better"
}

# The page says what came out; one that says otherwise is wrong.
told() {
  local row better page=docs/reference/conformance.md
  if [ -n "${WEIR_BLESS:-}" ] && [ "$(wc -l <"$RUN/rows")" = 10 ]; then
    cat deploy/test/conformance/page.md "$RUN/rows" >"$page"
  fi
  while IFS=$'\t' read -r row better; do
    if ! grep -qF -- "${row%% | *} |" "$page"; then
      echo "not on the page yet: $row"
    # What a fixture by itself missed once, and not through the gateway, is no news of the gateway.
    elif ! grep -qxF -e "$row" -e "${better:-$row}" "$page"; then
      failed=$((failed + 1))
      echo "$page says otherwise: $row"
    fi
  done < <(paste "$RUN/rows" "$RUN/rows-better")
}

# The client has to find its packages, and the suite starts it with a shell of its own.
clients() {
  export GATEWAY PACKAGES NODE CLIENT=$PWD/deploy/test/clients/scenario.mjs
  printf '#!/bin/sh\ncd "$PACKAGES" && exec "$NODE" "$CLIENT" "$@"\n' >"$RUN/alone.sh"
  chmod +x "$RUN/alone.sh"
  for revision in 2025-11-25 2026-07-28; do
    run_clients client "$revision" "$RUN/alone.sh"
    run_clients F "$revision" "$PWD/deploy/test/conformance/through.sh"
  done
  compared client F gateway-as-client --least 5
}

passed=0
failed=0
for letter in "${topologies[@]}"; do
  if [ "$letter" = F ]; then
    say "F: the gateway as the client, proxies: $proxies"
    front="a client of others" back="the suite's own servers"
    clients
    continue
  fi
  topology "$letter"
  front=$revision back=$about
  say "$letter: $revision in front, $server behind, proxies: $proxies"
  alone=direct url=$direct
  case $server in
    python) alone=direct-python url=$direct_python ;;
    typescript) alone=direct-typescript url=$direct_typescript ;;
  esac
  [ -d "$RUN/$alone/$revision" ] || run_suite "$alone" "$revision" "$url"
  run_suite "$letter" "$revision" "$GATEWAY/conformance/$server/mcp"
  lists=()
  [ "$proxies" = 1 ] || lists+=(--known deploy/test/conformance/two-proxies.yaml)
  compared "$alone" "$letter" "$list" "${lists[@]}"
done
told
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
