# etcd and Kafka that are killed and started again on the same ports and folders. Sourced after
# lib.sh and open_run; a scenario has its folder in $HOME_DIR.

# crash PID: as a power cut would: no drain, no last word. Its whole group.
crash() {
  kill -KILL -- "-$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

# again NAME COMMAND...: as spawn, with a log of its own for each start.
declare -A STARTS=()
again() {
  local name=$1
  shift
  STARTS[$name]=$((${STARTS[$name]:-0} + 1))
  spawn "$SCENARIO-$name-${STARTS[$name]}" "$@"
}

start_store() { # the first time it finds its ports
  if [ -z "${STORE_PORT:-}" ]; then
    STORE_PORT=$(free_port) && STORE_PEER=$(free_port)
    STORE_URL=http://127.0.0.1:$STORE_PORT
  fi
  again etcd etcd --name chaos --data-dir "$HOME_DIR/etcd" \
    --listen-client-urls "$STORE_URL" --advertise-client-urls "$STORE_URL" \
    --listen-peer-urls "http://127.0.0.1:$STORE_PEER" \
    --initial-advertise-peer-urls "http://127.0.0.1:$STORE_PEER" \
    --initial-cluster "chaos=http://127.0.0.1:$STORE_PEER"
  STORE_PID=$SPAWNED
  wait_for 60 "etcd" port_answers "$STORE_PORT"
}

kafka_java() { java "-Xmx${1}m" "-Dlog4j2.configurationFile=$HOME_DIR/log4j2.properties" -cp "$KAFKA_JARS/*" "${@:2}"; }

# make_brokers NUMBER SECURED: folders of brokers that form one cluster, with replication over all of
# them. SECURED: clients come in by TLS and SASL/SCRAM alone.
make_brokers() {
  local number=$1 secured=$2 i voters="" id client protocol
  BROKERS=$number
  INSIDE=() OUTSIDE=() CONTROL=() BROKER_PID=()
  for i in $(seq "$number"); do
    INSIDE[i]=$(free_port) && OUTSIDE[i]=$(free_port) && CONTROL[i]=$(free_port)
    voters+="${voters:+,}$i@127.0.0.1:${CONTROL[i]}"
  done
  protocol=$([ "$secured" = 1 ] && echo SASL_SSL || echo PLAINTEXT)
  kafka_certificate "$HOME_DIR"
  cat >"$HOME_DIR/log4j2.properties" <<LOGGING
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1} %m%n
LOGGING
  id=$(kafka_java 128 kafka.tools.StorageTool random-uuid 2>/dev/null | tail -n 1)
  for i in $(seq "$number"); do
    mkdir "$HOME_DIR/broker-$i"
    cat >"$HOME_DIR/broker-$i/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$i
controller.quorum.voters=$voters
listeners=INSIDE://127.0.0.1:${INSIDE[i]},OUTSIDE://127.0.0.1:${OUTSIDE[i]},CONTROLLER://127.0.0.1:${CONTROL[i]}
advertised.listeners=INSIDE://127.0.0.1:${INSIDE[i]},OUTSIDE://127.0.0.1:${OUTSIDE[i]}
controller.listener.names=CONTROLLER
inter.broker.listener.name=INSIDE
listener.security.protocol.map=CONTROLLER:PLAINTEXT,INSIDE:PLAINTEXT,OUTSIDE:$protocol
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.outside.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$HOME_DIR/broker.pem
log.dirs=$HOME_DIR/broker-$i/data
default.replication.factor=$number
min.insync.replicas=$([ "$number" -gt 1 ] && echo 2 || echo 1)
offsets.topic.replication.factor=$number
transaction.state.log.replication.factor=$number
transaction.state.log.min.isr=1
auto.create.topics.enable=false
broker.session.timeout.ms=6000
PROPERTIES
    kafka_java 128 kafka.tools.StorageTool format -t "$id" -c "$HOME_DIR/broker-$i/server.properties" \
      --add-scram 'SCRAM-SHA-512=[name=weir,password=a-password-for-tests]' \
      >"$HOME_DIR/broker-$i/format.log" 2>&1 || { cat "$HOME_DIR/broker-$i/format.log"; return 1; }
  done
}

start_broker() {
  again "broker-$1" java -Xmx384m "-Dlog4j2.configurationFile=$HOME_DIR/log4j2.properties" \
    -cp "$KAFKA_JARS/*" kafka.Kafka "$HOME_DIR/broker-$1/server.properties"
  BROKER_PID[$1]=$SPAWNED
}

start_brokers() {
  local i
  for i in $(seq "$BROKERS"); do start_broker "$i"; done
  for i in $(seq "$BROKERS"); do wait_for 120 "broker $i" port_answers "${OUTSIDE[i]}"; done
}

crash_brokers() {
  local i
  for i in $(seq "$BROKERS"); do crash "${BROKER_PID[i]}"; done
}

make_topic() {
  kafka_java 128 org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:${INSIDE[1]}" \
    --create --topic weir.audit --partitions 6 --replication-factor "$BROKERS" \
    >"$HOME_DIR/topic.log" 2>&1
}

# What lets clients in: a file for the command line, variables for the planes.
kafka_access() { # kafka_access SECURED
  local i brokers=""
  for i in $(seq "$BROKERS"); do brokers+="${brokers:+,}127.0.0.1:${OUTSIDE[i]}"; done
  printf 'brokers: [%s]\n' "${brokers//,/, }" >"$HOME_DIR/kafka.yaml"
  KAFKA_ENV=("BROKERS=$brokers")
  [ "$1" = 1 ] || return 0
  cat >>"$HOME_DIR/kafka.yaml" <<ACCESS
tls: { ca: $HOME_DIR/ca.pem }
sasl: { mechanism: SCRAM-SHA-512, username: weir, password: a-password-for-tests }
ACCESS
  KAFKA_ENV+=("TLS__CA=$HOME_DIR/ca.pem" SASL__MECHANISM=SCRAM-SHA-512 SASL__USERNAME=weir
    SASL__PASSWORD=a-password-for-tests)
}
