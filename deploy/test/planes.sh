# A control plane and proxies as processes of their own, to measure. Sourced after lib.sh and
# open_run, with the binaries in PATH. Bash.

# State is in etcd where WEIR_TEST_ETCD names one (`http://host:port`), else in the embedded store.
# Exports WEIR_URL and WEIR_TOKEN; sets SYNC.
start_control() { # start_control PREFIX
  local rest store=(WEIR_CP_STORE__PATH="$RUN/store")
  rest=$(free_port) SYNC=127.0.0.1:$(free_port)
  [ -z "${WEIR_TEST_ETCD:-}" ] || store=(
    WEIR_CP_STORE__ETCD__ENDPOINTS="$WEIR_TEST_ETCD" WEIR_CP_STORE__ETCD__PREFIX="/$1-$$/")
  spawn control env WEIR_CP_NAME=measured WEIR_CP_LISTEN__ADDRESS="127.0.0.1:$rest" \
    WEIR_CP_SYNC__ADDRESS="$SYNC" WEIR_CP_ADMIN__ADDRESS=127.0.0.1:0 \
    WEIR_CP_VAULT__KEYS="$(head -c 32 /dev/urandom | base64)" \
    WEIR_CP_BOOTSTRAP__TOKEN_FILE="$RUN/token" WEIR_CP_AUDIT__DIR="$RUN/control-audit" \
    "${store[@]}" weir-control-plane
  wait_for 30 "the control plane" test -s "$RUN/token" || { cat "$RUN/control.log"; exit 1; }
  WEIR_URL=http://127.0.0.1:$rest WEIR_TOKEN=$(cat "$RUN/token")
  export WEIR_URL WEIR_TOKEN
  wait_for 30 "REST" port_answers "$rest"
}

# Sets STARTED to the proxy's URL.
start_proxy() { # start_proxy NAME
  local port
  port=$(free_port)
  weir enrol-token --region eu --quiet >"$RUN/join-$1"
  spawn "$1" env WEIR_DP_NODE="$1" WEIR_DP_LISTEN__ADDRESS="127.0.0.1:$port" \
    WEIR_DP_ADMIN__ADDRESS=127.0.0.1:0 WEIR_DP_DATA_DIR="$RUN/$1" \
    WEIR_DP_CONTROL__ADDRESSES="$SYNC" WEIR_DP_CONTROL__TOKEN_FILE="$RUN/join-$1" \
    weir-data-plane
  wait_for 30 "$1" port_answers "$port" || { cat "$RUN/$1.log"; exit 1; }
  STARTED=http://127.0.0.1:$port
}
