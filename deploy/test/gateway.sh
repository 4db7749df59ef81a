# Starts the gateway as its users run it. Sourced after lib.sh and open_run; the binaries are on the
# PATH. Sets GATEWAY (its URL, by the name localhost), WEIR_URL and WEIR_TOKEN.

# member NAME FILE: one member of a flat JSON file, by the name localhost: some tests of others look
# at names.
member() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" "$2" | head -n 1 | sed 's/127\.0\.0\.1/localhost/'; }

# ready_file_of NAME PID FILE SECONDS: until the process has written it, or has died.
ready_file_of() {
  written_or_dead() { [ -s "$3" ] || ! alive "$2"; }
  wait_for "$4" "$1" written_or_dead "$@" && [ -s "$3" ] || { cat "$RUN/$1.log"; die "$1 did not start"; }
}

# start_dev NAME FOLDER: `weir dev` with the documents of a folder.
start_dev() {
  spawn "$1" weir dev --data-dir "$RUN/$1" --apply "$2" \
    --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --ready-file "$RUN/$1.json"
  ready_file_of "$1" "$SPAWNED" "$RUN/$1.json" 60
  GATEWAY=$(member url "$RUN/$1.json")
  WEIR_URL=$(member admin_url "$RUN/$1.json")
  WEIR_TOKEN=$(member admin_token "$RUN/$1.json")
  export WEIR_URL WEIR_TOKEN
}

# start_planes NAME FOLDER: a control plane and two proxies as processes of their own, behind round
# robin, with the documents of a folder.
start_planes() {
  local name=$1 home=$RUN/$1 rest sync traffic hop proxy targets=()
  mkdir "$home"
  rest=$(free_port) && sync=$(free_port)
  head -c 32 /dev/urandom | base64 >"$home/vault-keys"
  spawn "$name-control" env \
    WEIR_CP_LISTEN__ADDRESS="127.0.0.1:$rest" WEIR_CP_SYNC__ADDRESS="127.0.0.1:$sync" \
    WEIR_CP_ADMIN__ADDRESS=127.0.0.1:0 WEIR_CP_STORE__PATH="$home/store" \
    WEIR_CP_VAULT__KEYS_FILE="$home/vault-keys" WEIR_CP_BOOTSTRAP__TOKEN_FILE="$home/token" \
    WEIR_CP_AUDIT__DIR="$home/audit" weir-control-plane
  ready_file_of "$name-control" "$SPAWNED" "$home/token" 30
  wait_for 30 "the control plane" port_answers "$rest"
  WEIR_URL=http://127.0.0.1:$rest
  WEIR_TOKEN=$(cat "$home/token")
  export WEIR_URL WEIR_TOKEN
  for proxy in one two; do
    traffic=$(free_port) && hop=$(free_port)
    mkdir "$home/$proxy"
    weir enrol-token --region default --node "$proxy" --quiet >"$home/$proxy/token"
    spawn "$name-$proxy" env \
      WEIR_DP_LISTEN__ADDRESS="127.0.0.1:$traffic" WEIR_DP_ADMIN__ADDRESS=127.0.0.1:0 \
      WEIR_DP_HOP__ADDRESS="127.0.0.1:$hop" WEIR_DP_NODE="$proxy" \
      WEIR_DP_UPSTREAM__COMMANDS='*' WEIR_DP_DATA_DIR="$home/$proxy/data" \
      WEIR_DP_CONTROL__ADDRESSES="127.0.0.1:$sync" WEIR_DP_CONTROL__TOKEN_FILE="$home/$proxy/token" \
      weir-data-plane
    wait_for 30 "proxy $proxy" port_answers "$traffic" || { cat "$RUN/$name-$proxy.log"; return 1; }
    targets+=("127.0.0.1:$traffic")
  done
  weir apply --wait -f "$2"
  spawn "$name-balance" round-robin "${targets[@]}" --ready-file "$RUN/$name-balance.json"
  ready_file_of "$name-balance" "$SPAWNED" "$RUN/$name-balance.json" 20
  GATEWAY=$(member url "$RUN/$name-balance.json")
}

# pinned GROUP SERVER...: until the servers' definitions are known.
pinned() {
  local group=$1 server
  shift
  for server in "$@"; do
    wait_for 60 "what $server offers" eval "weir get Catalog $server.v1 -g $group >/dev/null 2>&1"
  done
}
