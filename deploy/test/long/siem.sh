#!/usr/bin/env bash
# Consumers of the audit topic as the docs tell them, on a real Kafka with TLS and SASL/SCRAM: the topic
# made by the guide's own command, tail, search, export and verify, Kafka's console consumer piped into
# the verifier, a SIEM's forwarder (rsyslog) with the sample configuration, each event against the
# published schemas, and an outside witness that cosigns. Ends with `N passed, N failed`.
set -euo pipefail
cd "$(dirname -- "$0")/../../.."
. deploy/test/lib.sh
. deploy/test/components.sh
. deploy/test/planes.sh

GUIDE=docs/reference/audit-consumers.md
passed=0
failed=0
check() { # check NAME COMMAND...: passes or fails; its last line is shown, everything when it fails
  local name=$1
  shift
  if "$@" >"$RUN/check.log" 2>&1; then
    passed=$((passed + 1))
    printf 'ok    %s\n' "$name"
    tail -n 1 "$RUN/check.log" | cut -c 1-160 | sed 's/^/      /'
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n' "$name"
    head -n 30 "$RUN/check.log" | sed 's/^/      /'
  fi
}
refuses() { if "$@"; then return 1; else return 0; fi; }

./deploy/test/install.sh
open_run siem
KAFKA_JARS=$(deploy/test/kafka-jars.sh)
[ -n "${WEIR_DEMO_BUILT:-}" ] || cargo build --quiet -p weir -p weir-loadtest -p control-plane -p data-plane
PATH=${BIN:-$(target_dir)/debug}:$PATH
export PATH RUST_BACKTRACE=0
PYTHON=python3
python3 -c 'import jsonschema' 2>/dev/null || {
  PYTHON=$CACHE/siem/bin/python
  [ -x "$PYTHON" ] && "$PYTHON" -c 'import jsonschema' 2>/dev/null ||
    { python3 -m venv "$CACHE/siem" && "$CACHE/siem/bin/pip" install -q jsonschema; }
}
judge() { "$PYTHON" deploy/test/long/siem.py "$@"; }

say "Kafka, and the topic as the guide makes it"
start_with_retries kafka start_kafka
kafka_java() { java -Xmx128m "-Dlog4j2.configurationFile=$RUN/kafka/log4j2.properties" -cp "$KAFKA_JARS/*" "$@"; }
# The command of the guide, on one broker.
make_topic() {
  local words
  words=$(awk '/^kafka-topics /{on=1} on{print} on && !/\\$/{exit}' "$GUIDE" | tr -d '\\\n' |
    sed -e 's/^kafka-topics//' -e 's/--replication-factor 3/--replication-factor 1/' -e 's/insync.replicas=2/insync.replicas=1/')
  # shellcheck disable=SC2086
  kafka_java org.apache.kafka.tools.TopicCommand --bootstrap-server "$WEIR_TEST_KAFKA" $words
}
check "the guide's command makes the topic" make_topic
cat >"$RUN/kafka.yaml" <<YAML
brokers: ["$WEIR_TEST_KAFKA_SECURED"]
tls: { ca: $WEIR_TEST_KAFKA_CA }
sasl: { mechanism: SCRAM-SHA-512, username: weir }
YAML
export WEIR_KAFKA_SASL__PASSWORD=a-password-for-tests
for plane in CP DP; do
  export "WEIR_${plane}_AUDIT__KAFKA__BROKERS=$WEIR_TEST_KAFKA_SECURED" \
    "WEIR_${plane}_AUDIT__KAFKA__TLS__CA=$WEIR_TEST_KAFKA_CA" \
    "WEIR_${plane}_AUDIT__KAFKA__SASL__MECHANISM=SCRAM-SHA-512" \
    "WEIR_${plane}_AUDIT__KAFKA__SASL__USERNAME=weir" \
    "WEIR_${plane}_AUDIT__KAFKA__SASL__PASSWORD=a-password-for-tests"
done

say "a gateway, and calls"
start_control siem
upstream=$(free_port)
spawn upstream weir-loadtest upstream --listen "127.0.0.1:$upstream" --tools 3
{
  printf 'apiVersion: weir/v1\nkind: Region\nmetadata: {name: eu}\nspec: {}\n'
  for group in shop bank; do
    cat <<YAML
---
apiVersion: weir/v1
kind: Group
metadata: {name: $group}
spec: {regions: [eu]}
---
apiVersion: weir/v1
kind: Server
metadata: {name: bench, group: $group}
spec: {versions: [{name: v1, upstream: {http: {url: 'http://127.0.0.1:$upstream/mcp', allowPrivate: true}}}]}
---
apiVersion: weir/v1
kind: ServiceAccount
metadata: {name: ci, group: $group}
spec: {}
---
apiVersion: weir/v1
kind: Policy
metadata: {name: caller, group: $group}
spec:
  cedar: |
    @audit("full result")
    permit (principal == ServiceAccount::"ci", action, resource);
YAML
  done
} >"$RUN/documents.yaml"
weir apply -f "$RUN/documents.yaml" >/dev/null
for group in shop bank; do weir token create ci -g "$group" --quiet >"$RUN/$group.token"; done
start_proxy proxy
begun=$(date -u +%FT%TZ)
sees_tools() {
  weir-loadtest wait --url "$STARTED/$1/bench/mcp" --token "$(cat "$RUN/$1.token")" --tools 3 >/dev/null 2>&1
}
loads=()
# Of ten calls one names a tool that is not there.
for group in shop bank; do
  wait_for 60 "the tools of $group" sees_tools "$group" || { tail -n 20 "$RUN/proxy.log"; exit 1; }
  spawn "load-$group" weir-loadtest chaos drive --url "$STARTED/$group/bench/mcp" \
    --token "$(cat "$RUN/$group.token")" --rate 20 --run "$group" --out "$RUN/$group.truth"
  loads+=("$SPAWNED")
done
tail_for() { # tail_for SECONDS: the newest and what comes, into the verifier, as the guide pipes it
  { timeout "$1" weir audit tail --kafka "$RUN/kafka.yaml" -n 100000 -o json || [ $? = 124 ]; } |
    weir audit verify --dir - --every 3
}
check "a tail is verified while calls flow" tail_for 15
grep -q '^so far' "$RUN/check.log" || { echo "it never said \`so far\`"; failed=$((failed + 1)); }
for load in "${loads[@]}"; do kill -TERM "$load"; wait "$load" || true; done
# Until the last checkpoint is out.
sleep 8

say "what people type"
check "weir audit tail" weir audit tail --kafka "$RUN/kafka.yaml" --no-follow -n 20
check "weir audit search finds what was refused" bash -c \
  "weir audit search --kafka '$RUN/kafka.yaml' --since $begun --group shop --status unknown_target | tee '$RUN/refused' | grep -c unknown_target"
export_now() { weir audit export --kafka "$RUN/kafka.yaml" >"$RUN/export.jsonl" && wc -l <"$RUN/export.jsonl"; }
weir audit witness >"$RUN/seen.json"
sleep 6
check "weir audit export" export_now
check "an export is verified by itself, as the control plane has seen it" \
  weir audit verify --dir "$RUN/export.jsonl" --witness "$RUN/seen.json"
check "so is the topic" weir audit verify --kafka "$RUN/kafka.yaml" --ask
check "an export of a time alone has that time alone" bash -c \
  "weir audit export --kafka '$RUN/kafka.yaml' --since 2038-01-01T00:00:00Z | grep -c class_uid.:6003 | grep -qx 0"
wrong_password() {
  local said
  said=$(WEIR_KAFKA_SASL__PASSWORD=wrong timeout 90 weir audit tail --kafka "$RUN/kafka.yaml" --no-follow 2>&1) && return 1
  printf '%s\n' "$said"
  [[ $said == *"Authentication failed"* ]]
}
check "a wrong password is told as that" wrong_password
say "other software"
console() { # console SECONDS PROPERTY...: everything in the topic
  local seconds=$1
  shift
  timeout $((seconds * 4)) java -Xmx128m "-Dlog4j2.configurationFile=$RUN/kafka/log4j2.properties" -cp "$KAFKA_JARS/*" \
    org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$WEIR_TEST_KAFKA" --topic weir.audit \
    --from-beginning --timeout-ms $((seconds * 1000)) "$@" 2>/dev/null
}
by_console() { console 8 | weir audit verify --dir -; }
check "Kafka's console consumer, into the verifier" by_console
console 8 --property print.key=true --property print.headers=true --property print.partition=true \
  --property headers.separator='|' --property key.separator=$'\t' >"$RUN/messages" || true
check "keys, headers and partitions are as the guide says" judge messages "$RUN/messages"
check "every event fits its schema" judge schemas "$RUN/export.jsonl"
check "what rules want kept is kept, and no secret" judge kept "$RUN/export.jsonl"
rsyslog() {
  # By the listener without TLS: the librdkafka 2.0 of Debian 12 fails SCRAM with Kafka 4.1.
  sed -e "s|/var/log/weir/archive.jsonl|$RUN/archive.jsonl|" -e "s|kafka-1.corp:9093|$WEIR_TEST_KAFKA|" \
    -e 's|"auto.offset.reset=earliest",|"auto.offset.reset=earliest"])|' \
    -e '/"security.protocol/d' -e '/"sasl.mechanism/d' -e "s|siem.corp|127.0.0.1|" -e "s|6514|$siem|" \
    deploy/siem/rsyslog.conf >"$RUN/rsyslog.conf"
  spawn rsyslogd rsyslogd -n -f "$RUN/rsyslog.conf" -i "$RUN/rsyslogd.pid"
  wait_for 60 "what the SIEM gets" judge arrived "$RUN/export.jsonl" "$RUN/siem.jsonl" "$RUN/archive.jsonl"
  weir audit verify --dir "$RUN/archive.jsonl"
}
if command -v rsyslogd >/dev/null && ls /usr/lib/*/rsyslog/imkafka.so >/dev/null 2>&1; then
  siem=$(free_port)
  spawn siem "$PYTHON" deploy/test/long/siem.py listen "$siem" "$RUN/siem.jsonl"
  wait_for 10 "the SIEM" port_answers "$siem"
  check "rsyslog with the sample configuration: records to the SIEM, every byte to the archive" rsyslog
  [ "$failed" -eq 0 ] || tail -n 5 "$RUN/rsyslogd.log"
else
  echo "-- left out: rsyslog with its Kafka module is not here (packages rsyslog, rsyslog-kafka)"
fi

say "an outside witness"
export COSIGN_KAFKA="$RUN/kafka.yaml" COSIGN_DIR="$RUN/cosign" COSIGN_AS=auditor.example
check "a turn of somebody else, who cosigns what holds" deploy/cosign/cosign.sh
check "and the next, held to what was cosigned" deploy/cosign/cosign.sh
auditor=$(cat "$RUN/cosign/cosigner")
check "the cosignature is demanded, and there" \
  weir audit verify --kafka "$RUN/kafka.yaml" --witness "$RUN/cosign/newest.json" --cosigner "$auditor"
check "what nobody cosigned is not enough" \
  refuses weir audit verify --kafka "$RUN/kafka.yaml" --witness "$RUN/seen.json" --cosigner "$auditor"
sed '0,/"status_code":"success"/s//"status_code":"denied"/' "$RUN/export.jsonl" >"$RUN/altered.jsonl"
check "what was altered is not cosigned" refuses weir audit verify --dir "$RUN/altered.jsonl" --witness "$RUN/seen.json" \
  --cosign-key "$RUN/other.key" --cosign-as auditor.example --cosigned "$RUN/never.json"
check "and leaves no file" refuses test -e "$RUN/never.json"

echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
