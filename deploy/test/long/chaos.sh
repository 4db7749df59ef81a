#!/usr/bin/env bash
# Chaos: calls at a fixed rate, in a group of each audit class, while kill -9 meets the proxy, the
# control plane, etcd, a Kafka broker and all of Kafka, the spool runs into its bound and its disk
# runs full. Afterwards what the client was answered and what the verified stream says must agree:
# every answered call has exactly one record, what `counted` lost equals its counter. Then records
# are tampered with, which must be noticed. Ends with `N passed, N failed`.
#
# Real Kafka, once with one broker and once with three (replication 3, min.insync 2) behind TLS and
# SASL/SCRAM. SHORT=1 runs the first alone. ROUNDS=N repeats the faults; CLASSES and RATE (calls a second and
# class) change the load.
set -euo pipefail
cd "$(dirname -- "$0")/../../.."
. deploy/test/lib.sh
. deploy/test/components.sh
. deploy/test/long/cluster.sh

CLASSES=${CLASSES:-strict durable counted}
RATE=${RATE:-25}
ROUNDS=${ROUNDS:-1}
# Small, so that it is full within seconds.
SPOOL_BYTES=2097152
passed=0
failed=0

# check NAME COMMAND...: passes or fails; its last line is shown, everything when it fails.
check() {
  local name=$1
  shift
  if "$@" >"$RUN/check.log" 2>&1; then
    passed=$((passed + 1))
    printf 'ok    %s\n' "$name"
    { grep -m 1 ^WRONG "$RUN/check.log" || tail -n 1 "$RUN/check.log"; } | sed 's/^/      /'
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n' "$name"
    head -n 40 "$RUN/check.log" | sed 's/^/      /'
  fi
}

refuses() { if "$@"; then return 1; else return 0; fi; }
now_ms() { date +%s%3N; }

documents() { # documents FILE UPSTREAM
  printf 'apiVersion: weir/v1\nkind: Region\nmetadata: {name: eu}\nspec: {}\n' >"$1"
  local class
  for class in $CLASSES; do
    cat >>"$1" <<YAML
---
apiVersion: weir/v1
kind: Group
metadata: {name: $class}
spec: {regions: [eu], audit: $class}
---
apiVersion: weir/v1
kind: Server
metadata: {name: bench, group: $class}
spec: {versions: [{name: v1, upstream: {http: {url: '$2', allowPrivate: true}}}]}
---
apiVersion: weir/v1
kind: ServiceAccount
metadata: {name: ci, group: $class}
spec: {}
---
apiVersion: weir/v1
kind: Role
metadata: {name: caller, group: $class}
spec: {rules: [{servers: ['*'], tools: ['*']}]}
---
apiVersion: weir/v1
kind: RoleBinding
metadata: {name: ci, group: $class}
spec: {role: caller, subjects: [{serviceAccount: ci}]}
YAML
  done
}

# A disk of its own, small enough to fill: a mount that only its holder has, reached through it.
# Without the right to make one, a folder, and that fault is left out.
make_disk() {
  mkdir "$HOME_DIR/disk"
  DISK=$HOME_DIR/disk
  SMALL_DISK=
  again disk unshare -rm bash -c "mount -t tmpfs -o size=24m tmpfs '$DISK' && touch '$DISK/there' && exec sleep infinity"
  local through=/proc/$SPAWNED/root$DISK
  if wait_for 5 "a disk of its own" test -e "$through/there" 2>/dev/null; then
    DISK=$through
    SMALL_DISK=1
  fi
}

start_control() {
  again control env "${KAFKA_ENV[@]/#/WEIR_CP_AUDIT__KAFKA__}" \
    WEIR_CP_NAME=control WEIR_CP_LISTEN__ADDRESS="127.0.0.1:$REST" WEIR_CP_SYNC__ADDRESS="127.0.0.1:$SYNC" \
    WEIR_CP_ADMIN__ADDRESS=127.0.0.1:0 WEIR_CP_STORE__ETCD__ENDPOINTS="$STORE_URL" \
    WEIR_CP_STORE__ETCD__PREFIX=/chaos/ WEIR_CP_VAULT__KEYS_FILE="$HOME_DIR/vault-keys" \
    WEIR_CP_BOOTSTRAP__TOKEN_FILE="$HOME_DIR/token" WEIR_CP_AUDIT__DIR="$HOME_DIR/control-audit" \
    weir-control-plane
  CONTROL_PID=$SPAWNED
  wait_for 90 "the control plane" port_answers "$REST"
}

start_proxy() {
  again proxy env "${KAFKA_ENV[@]/#/WEIR_DP_AUDIT__KAFKA__}" \
    WEIR_DP_LISTEN__ADDRESS="127.0.0.1:$TRAFFIC" WEIR_DP_ADMIN__ADDRESS="127.0.0.1:$ADMIN" \
    WEIR_DP_NODE=proxy WEIR_DP_DATA_DIR="$HOME_DIR/proxy" WEIR_DP_CONTROL__ADDRESSES="127.0.0.1:$SYNC" \
    WEIR_DP_CONTROL__TOKEN_FILE="$HOME_DIR/enrol-token" WEIR_DP_AUDIT__DIR="$DISK/audit" \
    WEIR_DP_AUDIT__KEY_FILE="$HOME_DIR/proxy-audit.key" WEIR_DP_AUDIT__SPOOL_BYTES="$SPOOL_BYTES" \
    WEIR_DP_AUDIT__SEGMENT_BYTES=1048576 weir-data-plane
  PROXY_PID=$SPAWNED
  wait_for 90 "the proxy" port_answers "$TRAFFIC"
}

# metric NAME [LABELS]: of the proxy, summed over the lines that have the labels; empty when away.
metric() {
  curl -sf --max-time 5 "http://127.0.0.1:$ADMIN/metrics" |
    awk -v name="$1" -v labels="${2:-}" \
      '($1 == name || index($1, name "{") == 1) && index($1, labels) { sum += $NF; seen = 1 } END { if (seen) printf "%d\n", sum }'
}
at_least() { local value; value=$(metric "$1" "${3:-}"); [ "${value:-0}" -ge "$2" ]; }
at_most() { local value; value=$(metric "$1" "${3:-}"); [ -n "$value" ] && [ "$value" -le "$2" ]; }
sees_tools() {
  local class
  for class in $CLASSES; do
    weir-loadtest wait --url "http://127.0.0.1:$TRAFFIC/$class/bench/mcp" \
      --token "$(cat "$HOME_DIR/$class.token")" --tools 3 >/dev/null 2>&1 || return 1
  done
}
caught_up() { at_most weir_audit_queued_records 0; }

set_up() { # set_up SECURED
  local class
  start_brokers
  wait_for 120 "the topic" make_topic || { cat "$HOME_DIR/topic.log"; return 1; }
  start_store
  head -c 32 /dev/urandom | base64 >"$HOME_DIR/vault-keys"
  start_control
  wait_for 60 "the operator's token" test -s "$HOME_DIR/token"
  export WEIR_URL=http://127.0.0.1:$REST WEIR_TOKEN
  WEIR_TOKEN=$(cat "$HOME_DIR/token")
  again upstream weir-loadtest upstream --listen "127.0.0.1:$UPSTREAM" --tools 3
  documents "$HOME_DIR/documents.yaml" "http://127.0.0.1:$UPSTREAM/mcp"
  weir apply -f "$HOME_DIR/documents.yaml" >/dev/null
  for class in $CLASSES; do
    weir token create ci -g "$class" --quiet >"$HOME_DIR/$class.token"
  done
  weir enrol-token --region eu --node proxy --quiet >"$HOME_DIR/enrol-token"
  start_proxy
  wait_for 120 "the tools of every group" sees_tools
}

start_load() {
  local class
  LOAD_PIDS=()
  for class in $CLASSES; do
    again "load-$class" weir-loadtest chaos drive --url "http://127.0.0.1:$TRAFFIC/$class/bench/mcp" \
      --token "$(cat "$HOME_DIR/$class.token")" --rate "$RATE" --run "$SCENARIO-$class" \
      --out "$HOME_DIR/$class.truth"
    LOAD_PIDS+=("$SPAWNED")
  done
}

stop_load() {
  local pid
  for pid in "${LOAD_PIDS[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${LOAD_PIDS[@]}"; do wait "$pid" || { echo "a load generator failed"; return 1; }; done
}

struck() { printf -- '-- %s: %s\n' "$(date -u +%T)" "$1"; COUNT[$2]=$((${COUNT[$2]:-0} + 1)); }

kill_proxy() {
  struck "kill -9 the proxy" proxy
  crash "$PROXY_PID"
  # Afterwards: it has answered until then.
  KILLS+=(--killed "$(now_ms)")
  sleep 1
  start_proxy
}
kill_control() {
  struck "kill -9 the control plane" control
  crash "$CONTROL_PID"
  sleep 2
  start_control
}
kill_store() {
  struck "kill -9 etcd" etcd
  crash "$STORE_PID"
  sleep 2
  start_store
}
kill_broker() {
  local broker=$((1 + RANDOM % BROKERS))
  struck "kill -9 broker $broker of $BROKERS" broker
  crash "${BROKER_PID[broker]}"
  sleep 5
  start_broker "$broker"
  wait_for 120 "broker $broker" port_answers "${OUTSIDE[broker]}"
}
# And the proxy while its records can only stay in the spool.
kill_kafka() {
  struck "kill -9 all of Kafka" kafka
  crash_brokers
  sleep 2
  kill_proxy
  sleep 1
  start_brokers
}
fill_spool() {
  struck "the spool is full" quota
  crash_brokers
  wait_for 120 "the spool to be full" at_least weir_audit_spool_waiting_bytes "$SPOOL_BYTES"
  sleep 4
  # What is lost in a full spool no record tells: the count must outlive the process.
  kill_proxy
  sleep 2
  start_brokers
  wait_for 120 "the backlog to go out" at_most weir_audit_spool_waiting_bytes $((SPOOL_BYTES / 4))
}
fill_disk() {
  [ -n "$SMALL_DISK" ] || { echo "-- left out: no disk can be made to be filled"; return 0; }
  struck "the disk is full" disk
  dd if=/dev/zero of="$DISK/filler" bs=64k 2>/dev/null || true
  dd if=/dev/zero of="$DISK/filler-2" bs=512 2>/dev/null || true
  sleep 5
  rm -f "$DISK/filler" "$DISK/filler-2"
}

# Every fault once, with a moment of health behind each.
faults() {
  local fault
  for fault in kill_proxy kill_control kill_store kill_broker kill_kafka fill_disk fill_spool; do
    [ "$fault" != kill_broker ] || [ "$BROKERS" -gt 1 ] || continue
    "$fault"
    sleep 2
  done
}

# What the witness says about one node: a folder has the log of one node alone.
witness_of() {
  python3 -c '
import json, sys
all = json.load(open(sys.argv[2]))
all["checkpoints"] = [c for c in all["checkpoints"] if c.startswith("weir.audit/%s/" % sys.argv[1])]
json.dump(all, sys.stdout)' "$1" "$WITNESS"
}

# Takes out the record of a call that was answered, or does something else to it.
tamper() { # tamper HOW GROUP FROM TO
  python3 - "$@" <<'PY'
import json, sys
how, group, source, target = sys.argv[1:]
lines = open(source, "rb").read().split(b"\n")[:-1]
def served(line):
    event = json.loads(line)
    return (event.get("class_uid") == 6003 and event["metadata"].get("tenant_uid") == group
            and event["api"]["operation"] == "tools/call" and event["status_code"] == "success")
found = [at for at, line in enumerate(lines) if served(line)]
at = found[len(found) // 2]
if how == "remove":
    del lines[at]
elif how == "change":
    lines[at] = lines[at].replace(b'"status_code":"success"', b'"status_code":"denied"')
elif how == "double":
    lines.insert(at, lines[at])
open(target, "wb").write(b"\n".join(lines) + b"\n")
PY
}

judge() {
  local class counted export=$HOME_DIR/export.jsonl
  # Once, and a moment before the export: to ask is an operator's action, which has its record.
  WITNESS=$HOME_DIR/witness.json
  weir audit witness >"$WITNESS"
  sleep 3
  weir audit export --kafka "$HOME_DIR/kafka.yaml" >"$export"
  check "$SCENARIO: the topic is complete and unaltered, as the control plane has seen it" \
    weir audit verify --kafka "$HOME_DIR/kafka.yaml" --witness "$WITNESS"
  witness_of proxy >"$HOME_DIR/witness-proxy.json"
  check "$SCENARIO: so are the proxy's files" \
    weir audit verify --dir "$DISK/audit" --witness "$HOME_DIR/witness-proxy.json"
  witness_of control >"$HOME_DIR/witness-control.json"
  check "$SCENARIO: so are the control plane's" \
    weir audit verify --dir "$HOME_DIR/control-audit" --witness "$HOME_DIR/witness-control.json"
  check "$SCENARIO: so is the export" weir audit verify --dir "$export" --witness "$WITNESS"
  for class in $CLASSES; do
    counted=()
    [ "$class" != counted ] || counted=(--counted --counter "proxy=$LOST" "${KILLS[@]}")
    check "$SCENARIO, $class: client and stream agree" weir-loadtest chaos compare \
      --truth "$HOME_DIR/$class.truth" --stream "$export" --group "$class" "${counted[@]}"
  done
  tampered "$export"
}

# The test itself must be able to fail.
tampered() {
  local class=${CLASSES%% *} export=$1 with=$HOME_DIR/tampered.jsonl counted=()
  [ "$class" != counted ] || counted=(--counted "${KILLS[@]}")
  local compare=(weir-loadtest chaos compare --truth "$HOME_DIR/$class.truth" --stream "$with" --group "$class" "${counted[@]}")
  tamper remove "$class" "$export" "$with"
  check "$SCENARIO: a record that is taken out is missed by the client" refuses "${compare[@]}"
  check "$SCENARIO: and by the verifier" refuses weir audit verify --dir "$with" --witness "$WITNESS"
  tamper change "$class" "$export" "$with"
  check "$SCENARIO: a record that is changed is noticed by the client" refuses "${compare[@]}"
  check "$SCENARIO: and by the verifier" refuses weir audit verify --dir "$with" --witness "$WITNESS"
  tamper double "$class" "$export" "$with"
  check "$SCENARIO: a record that comes twice does no harm to the client" "${compare[@]}"
  check "$SCENARIO: nor to the verifier" weir audit verify --dir "$with" --witness "$WITNESS"
}

# scenario NAME BROKERS SECURED
scenario() {
  SCENARIO=$1
  say "$1"
  HOME_DIR=$RUN/$1
  mkdir "$HOME_DIR"
  KILLS=()
  declare -gA COUNT=()
  unset STORE_PORT
  REST=$(free_port) && SYNC=$(free_port) && TRAFFIC=$(free_port) && ADMIN=$(free_port) && UPSTREAM=$(free_port)
  make_brokers "$2" "$3"
  kafka_access "$3"
  make_disk
  set_up
  # Verified as it comes, from before the first call to after the last.
  setsid weir audit tail --kafka "$HOME_DIR/kafka.yaml" -n 1000000 -o json 2>"$HOME_DIR/tail.log" \
    > >(verify_live) &
  local tail=$! begun=$SECONDS round
  echo "$tail" >>"$RUN/groups"
  start_load
  sleep 3
  for round in $(seq "$ROUNDS"); do faults; done
  sleep 3
  check "$SCENARIO: the tail outlived all of it" alive "$tail"
  check "$SCENARIO: the load generators ended well" stop_load
  echo "-- load for $((SECONDS - begun)) s"
  wait_for 120 "the last records to go out" caught_up
  LOST=$(metric weir_audit_lost_records_total)
  kill -TERM "$PROXY_PID"
  wait "$PROXY_PID" || true
  sleep 4
  kill -TERM "$tail" 2>/dev/null || true
  wait_for 60 "the verifier behind the tail" test -s "$HOME_DIR/live.status" || true
  check "$SCENARIO: the tail was verified while calls flowed" live_is_good
  judge
  local what
  for what in "${!COUNT[@]}"; do echo "struck $what: ${COUNT[$what]}"; done
  tear_down
}

verify_live() {
  local status=0
  weir audit verify --dir - --every 5 >"$HOME_DIR/live.log" 2>&1 || status=$?
  echo "$status" >"$HOME_DIR/live.status"
}

live_is_good() {
  cat "$HOME_DIR/live.log"
  [ "$(cat "$HOME_DIR/live.status")" = 0 ] && grep -q "^so far" "$HOME_DIR/live.log"
}

tear_down() {
  local group
  while read -r group; do stop "$group"; done <"$RUN/groups"
  : >"$RUN/groups"
}

./deploy/test/install.sh
open_run chaos
KAFKA_JARS=$(deploy/test/kafka-jars.sh)
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet -p weir -p weir-loadtest -p control-plane -p data-plane
PATH=${BIN:-$(target_dir)/debug}:$PATH
export PATH RUST_BACKTRACE=0
scenario one-broker 1 0
[ -n "${SHORT:-}" ] || scenario three-brokers 3 1
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
