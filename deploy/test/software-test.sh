#!/usr/bin/env bash
# Other people's servers behind the gateway and other people's clients in front of it, in every mode
# that they have, on the real planes. Ends with `N passed, N failed`.
#
# What a client cannot do through the gateway stands, with a reason, in software-known.txt: one line
# `CLIENT: CHECK # why` each. An entry that passes fails. ONLY=REGEX picks clients.
set -euo pipefail
cd "$(dirname -- "$0")/../.."
. deploy/test/lib.sh
. deploy/test/software.sh
. deploy/test/gateway.sh

passed=0
failed=0

# client NAME COMMAND...: a script that prints its checks; a line per check counts.
client() {
  local name=$1 line check known status=0
  shift
  [[ $name =~ ${ONLY:-.} ]] || return 0
  say "$name"
  timeout 180 "$@" >"$RUN/client.log" 2>"$RUN/client.err" || status=$?
  while read -r line; do
    check=${line#not }
    check=${check#ok }
    known=$(grep -F "$name: ${check%%: *} #" deploy/test/software-known.txt || true)
    case "$line,${known:+known}" in
      "ok "*,) passed=$((passed + 1)) ;;
      "ok "*,known) failed=$((failed + 1)); echo "STALE in software-known.txt: $known" ;;
      "not ok "*,known) echo "known: $known" ;;
      "not ok "*,) failed=$((failed + 1)); echo "$line" ;;
    esac
  done < <(grep -E '^(not )?ok ' "$RUN/client.log" || true)
  if ! grep -qE '^(not )?ok ' "$RUN/client.log"; then
    failed=$((failed + 1))
    echo "it did not get to its checks (exit $status):"
    tail -n 15 "$RUN/client.err" "$RUN/client.log"
  fi
  echo "$(grep -c '^ok ' "$RUN/client.log" || true) ok, $(grep -c '^not ok ' "$RUN/client.log" || true) not ok"
}

# says NAME PATTERN COMMAND...: prints one check: the command succeeds and says the pattern.
says() {
  local name=$1 pattern=$2 out
  shift 2
  if out=$(timeout 60 "$@" 2>&1 </dev/null) && grep -qE "$pattern" <<<"$out"; then
    echo "ok $name"
  else
    echo "not ok $name: $(tr '\n' ' ' <<<"$out" | head -c 1500)"
  fi
}

# The Inspector's command line, in one era, over HTTP or over stdio through `weir connect`.
inspector() {
  local era=$1 transport=$2 target
  local run=("$NODE" "$PACKAGES/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js" --cli)
  case $transport in
    http) target=("$GATEWAY/zoo/mcp" --transport http) ;;
    stdio) target=(weir connect "$GATEWAY/zoo/mcp" --transport stdio) ;;
  esac
  local all=("${run[@]}" "${target[@]}" --protocol-era "$era" --format json -q)
  says "lists tools" '"git__git_log"' "${all[@]}" --method tools/list
  says "calls a tool" 'over the inspector' "${all[@]}" --method tools/call \
    --tool-name everything__echo --tool-arg "message=over the inspector"
  says "lists prompts" 'everything__simple-prompt' "${all[@]}" --method prompts/list
  says "lists resources" '"uri"' "${all[@]}" --method resources/list
}

# Scanners have exit codes of their own. Schemas come through as their servers wrote them, some in an
# older dialect, which a strict scanner warns of: there only what is wrong counts.
scan() {
  says "mcpcheck finds nothing" '.' "$PYTHON_BIN/mcpcheck" "$GATEWAY/zoo/mcp" --strict --skip schemas
  says "mcpcheck finds no wrong schema" '.' "$PYTHON_BIN/mcpcheck" "$GATEWAY/zoo/mcp" --check schemas
  says "mcp-ssrf-check finds nothing" '.' "$PYTHON_BIN/mcp-ssrf-check" --url "$GATEWAY/zoo/mcp"
}

say "software of others"
m=@modelcontextprotocol
npm_packages software "$m/server-everything@2026.8.31" "$m/server-filesystem@2026.8.31" \
  "$m/server-memory@2026.8.31" "$m/inspector@2.12.0" "$m/sdk@1.32.2" "$m/client@2.4.0"
python_packages servers mcp-server-time==2026.10.19 mcp-server-git==2026.10.19
servers=$PYTHON_BIN
python_packages clients mcp==2.3.0 jbt-mcpcheck==0.1.1 mcp-ssrf-check==0.2.1
open_run software
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet -p weir -p weir-peers -p control-plane -p data-plane
PATH=$(target_dir)/debug:$(dirname "$NODE"):$PATH
export PATH
# Whatever they write, they write here.
export HOME=$RUN XDG_CONFIG_HOME=$RUN/xdg NODE_NO_WARNINGS=1

say "servers and gateway"
folder=$RUN/folder
mkdir "$folder" "$RUN/config"
echo "hello" >"$folder/hello.txt"
git -C "$folder" init --quiet
git -C "$folder" add hello.txt
git -C "$folder" -c user.name=test -c user.email=test@example.com commit --quiet -m "first commit"
everything=$PACKAGES/node_modules/@modelcontextprotocol/server-everything/dist/index.js
http_port=$(free_port)
spawn everything env PORT="$http_port" "$NODE" "$everything" streamableHttp
sse_port=$(free_port)
spawn everything-sse env PORT="$sse_port" "$NODE" "$everything" sse
wait_for 20 "server-everything" port_answers "$http_port"
wait_for 20 "server-everything over HTTP+SSE" port_answers "$sse_port"
sed -e "s|EVERYTHING_URL|http://127.0.0.1:$http_port/mcp|" -e "s|EVERYTHING_SSE_URL|http://127.0.0.1:$sse_port/sse|" \
  -e "s|NODE|$NODE|" -e "s|MODULES|$PACKAGES/node_modules/@modelcontextprotocol|" \
  -e "s|PYTHON_BIN|$servers|" -e "s|FOLDER|$folder|" deploy/test/software.yaml >"$RUN/config/all.yaml"
sed "s|FOLDER|$folder|" deploy/test/clients/calls.json >"$RUN/calls.json"
case ${PROXIES:-1} in
  1) start_dev gateway "$RUN/config" ;;
  2) start_planes gateway "$RUN/config" ;;
  *) die "one proxy or two" ;;
esac
pinned zoo everything everything-sse everything-stdio filesystem memory time git
url=$GATEWAY/zoo/mcp

# Modules are found from the folder that they are in.
typescript() { (cd "$PACKAGES" && "$NODE" "$clients/typescript.mjs" "$@" "$url" "$RUN/calls.json"); }
clients=$PWD/deploy/test/clients
export -f typescript inspector says scan
export PACKAGES NODE PYTHON_BIN GATEWAY RUN clients url

client "TypeScript v1" bash -c 'typescript v1 legacy'
client "TypeScript v1 over HTTP+SSE" bash -c 'typescript v1 sse'
for mode in legacy auto modern; do
  client "TypeScript v2, $mode" bash -c "typescript v2 $mode"
  client "Python, $mode" "$PYTHON_BIN/python" "$clients/python_client.py" "$mode" "$url" "$RUN/calls.json"
  client "Python over weir connect, $mode" \
    "$PYTHON_BIN/python" "$clients/python_client.py" "$mode" "stdio:weir connect $url" "$RUN/calls.json"
  client "rmcp, $mode" peer-agent --mode "$mode" --url "$url" --calls "$RUN/calls.json"
  client "Inspector, $mode" bash -c "inspector $mode http"
done
client "Inspector over weir connect, legacy" bash -c "inspector legacy stdio"
client "scanners" bash -c scan

echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
