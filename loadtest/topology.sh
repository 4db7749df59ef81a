# What is measured, started for a script of this folder; sourced after deploy/test/lib.sh. Bash.
#
# One control plane, one proxy, the fast upstream and the floor, each a process of its own, and
# three groups: `off` (anonymous callers, no rule but a role, records of class `counted`), `on`
# (JWT, a role, a rule over arguments, schemas both ways, a limit, records of class `durable`) and
# `many` (five servers of 200 tools each, a rule that hides some). `start_topology` sets the
# variables that the plans name.

start_topology() {
  local rest sync upstream floor traffic admin
  rest=$(free_port) sync=$(free_port) upstream=$(free_port) floor=$(free_port)
  spawn upstream weir-loadtest upstream --listen "127.0.0.1:$upstream"
  UPSTREAM_PID=$SPAWNED
  spawn floor weir-loadtest floor --listen "127.0.0.1:$floor" --to "http://127.0.0.1:$upstream/mcp"
  FLOOR_PID=$SPAWNED
  spawn control env WEIR_CP_NAME=measured-control WEIR_CP_LISTEN__ADDRESS="127.0.0.1:$rest" \
    WEIR_CP_SYNC__ADDRESS="127.0.0.1:$sync" WEIR_CP_ADMIN__ADDRESS=127.0.0.1:0 \
    WEIR_CP_VAULT__KEYS="$(head -c 32 /dev/urandom | base64)" WEIR_CP_STORE__PATH="$RUN/store" \
    WEIR_CP_BOOTSTRAP__TOKEN_FILE="$RUN/token" WEIR_CP_AUDIT__DIR="$RUN/control-audit" \
    WEIR_CP_LOG__FILTER=warn weir-control-plane
  CONTROL_PID=$SPAWNED
  wait_for 30 "the control plane" test -s "$RUN/token" || { cat "$RUN/control.log"; exit 1; }
  WEIR_URL=http://127.0.0.1:$rest WEIR_TOKEN=$(cat "$RUN/token")
  export WEIR_URL WEIR_TOKEN
  wait_for 30 "REST" port_answers "$rest"

  # Many callers: a caller may keep so many streams open.
  CALLERS=
  local caller
  weir-loadtest token --jwks "$RUN/jwks" --issuer https://issuer.test --audience weir \
    --subject caller --group agents --count 160 >"$RUN/tokens"
  while read -r caller; do CALLERS=${CALLERS:+$CALLERS,}$caller; done <"$RUN/tokens"
  TOKEN=$(head -n 1 "$RUN/tokens")
  documents "http://127.0.0.1:$upstream" >"$RUN/documents.yaml"
  weir apply -f "$RUN/documents.yaml" >/dev/null

  traffic=$(free_port) admin=$(free_port)
  weir enrol-token --region eu --quiet >"$RUN/join"
  spawn proxy env WEIR_DP_NODE=measured WEIR_DP_LISTEN__ADDRESS="127.0.0.1:$traffic" \
    WEIR_DP_ADMIN__ADDRESS="127.0.0.1:$admin" WEIR_DP_DATA_DIR="$RUN/proxy" \
    WEIR_DP_CONTROL__ADDRESSES="127.0.0.1:$sync" WEIR_DP_CONTROL__TOKEN_FILE="$RUN/join" \
    WEIR_DP_LOG__FILTER=warn weir-data-plane
  PROXY_PID=$SPAWNED
  wait_for 30 "the proxy" port_answers "$traffic" || { cat "$RUN/proxy.log"; exit 1; }
  PROXY=http://127.0.0.1:$traffic UPSTREAM=http://127.0.0.1:$upstream FLOOR=http://127.0.0.1:$floor
  PROXY_ADMIN=http://127.0.0.1:$admin
  export PROXY PROXY_PID PROXY_ADMIN UPSTREAM UPSTREAM_PID FLOOR FLOOR_PID CONTROL_PID TOKEN CALLERS
  wait_for 60 "the catalogs" catalogs_are_pinned
}

# Every server's tools were seen, pinned, and have reached the proxy.
catalogs_are_pinned() {
  weir-loadtest wait --url "$PROXY/many/mcp" --token "$TOKEN" --tools 900 &&
    weir-loadtest wait --url "$PROXY/on/mcp" --token "$TOKEN" --tools 20 &&
    weir-loadtest wait --url "$PROXY/off/bench/mcp" --tools 10
}

documents() {
  local at group
  for group in off on many; do
    printf -- '---\napiVersion: weir/v1\nkind: Group\nmetadata: {name: %s}\nspec: {%s}\n' "$group" \
      "$([ $group = off ] && echo 'anonymous: true, audit: counted' || echo 'audit: durable')"
    printf -- '---\napiVersion: weir/v1\nkind: Role\nmetadata: {name: caller, group: %s}\nspec: {rules: [{servers: ["*"], tools: ["*"]}]}\n' "$group"
    printf -- '---\napiVersion: weir/v1\nkind: RoleBinding\nmetadata: {name: agents, group: %s}\nspec: {role: caller, subjects: [{%s}]}\n' "$group" \
      "$([ $group = off ] && echo 'anonymous: true' || echo 'membership: agents')"
    [ $group = off ] || printf -- "---\napiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {name: issuer, group: %s}\nspec: {issuer: 'https://issuer.test', audiences: [weir], keys: {jwks: '%s'}}\n" "$group" "$(cat "$RUN/jwks")"
  done
  server off bench "$1/mcp"
  server on bench "$1/typed"
  server on legacy "$1/legacy"
  for at in 1 2 3 4 5; do server many "s$at" "$1/tools/200"; done
  cat <<'DOCUMENTS'
---
apiVersion: weir/v1
kind: Policy
metadata: {name: arguments, group: on}
spec:
  cedar: |
    @id("short")
    forbid (principal, action == Action::"CallTool", resource in Server::"bench")
    when { context.arguments.text.hasTag("text") && context.arguments.text.getTag("text") like "*forbidden*" };
---
apiVersion: weir/v1
kind: Policy
metadata: {name: nines, group: many}
spec:
  cedar: |
    @id("nines")
    forbid (principal, action == Action::"CallTool", resource is Tool)
    when { resource.name like "tool_*9" };
---
apiVersion: weir/v1
kind: Limit
metadata: {name: calls, group: on}
spec: {per: principal, rate: {calls: 1000000, per: second}, concurrency: 100000}
DOCUMENTS
}

server() {
  printf -- '---\napiVersion: weir/v1\nkind: Server\nmetadata: {name: %s, group: %s}\nspec: {versions: [{name: v1, upstream: {http: {url: "%s", allowPrivate: true}}}]}\n' "$2" "$1" "$3"
}
