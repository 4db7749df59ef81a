# Starts etcd and Kafka on free loopback ports with throw-away data. Sourced after lib.sh and
# open_run; exports WEIR_TEST_ETCD and WEIR_TEST_KAFKA.

# Another process may take a port between the look and the bind: three attempts, new ports each.
start_with_retries() { # start_with_retries NAME FUNCTION
  local attempt
  for attempt in 1 2 3; do
    "$2" && return 0
    printf '%s did not start (attempt %s); its log ends with:\n' "$1" "$attempt" >&2
    tail -n 15 "$RUN/$1.log" >&2 || true
  done
  die "$1 did not start"
}

etcd_healthy() { ETCDCTL_API=3 etcdctl --endpoints "$1" --command-timeout 1s endpoint health >/dev/null 2>&1; }

start_etcd() {
  local client peer url
  client=$(free_port) && peer=$(free_port)
  url=http://127.0.0.1:$client
  rm -rf "$RUN/etcd"
  spawn etcd etcd --name weir-test --data-dir "$RUN/etcd" \
    --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "http://127.0.0.1:$peer" \
    --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "weir-test=http://127.0.0.1:$peer"
  wait_for 20 "etcd at $url" etcd_healthy "$url" || { stop "$SPAWNED"; return 1; }
  export WEIR_TEST_ETCD=$url
  ETCD_PID=$SPAWNED
}

# An authority (ca.pem), and key and certificate of the broker in one file (broker.pem).
kafka_certificate() { # kafka_certificate FOLDER
  (
    cd "$1"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=weir-test-ca \
      -keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign
    openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout broker.key -out broker.csr
    printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >broker.ext
    openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
      -extfile broker.ext -out broker.crt
    cat broker.key broker.crt >broker.pem
  ) >"$RUN/kafka.log" 2>&1
}

start_kafka() {
  local port secured controller home=$RUN/kafka run_class=(java -Xmx384m -cp "$KAFKA_JARS/*")
  port=$(free_port) && controller=$(free_port) && secured=$(free_port)
  rm -rf "$home" && mkdir -p "$home"
  kafka_certificate "$home" || return 1
  cat >"$home/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,SASL_SSL://127.0.0.1:$secured,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,SASL_SSL://127.0.0.1:$secured
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$home/broker.pem
log.dirs=$home/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
  cat >"$home/log4j2.properties" <<LOGGING
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1} %m%n
LOGGING
  local id
  id=$("${run_class[@]}" kafka.tools.StorageTool random-uuid 2>/dev/null | tail -n 1)
  "${run_class[@]}" kafka.tools.StorageTool format -t "$id" -c "$home/server.properties" \
    --add-scram 'SCRAM-SHA-512=[name=weir,password=a-password-for-tests]' \
    >"$RUN/kafka.log" 2>&1 || return 1
  spawn kafka java -Xmx384m "-Dlog4j2.configurationFile=$home/log4j2.properties" \
    -cp "$KAFKA_JARS/*" kafka.Kafka "$home/server.properties"
  wait_for 60 "Kafka at 127.0.0.1:$port" port_answers "$port" || { stop "$SPAWNED"; return 1; }
  alive "$SPAWNED" || return 1
  export WEIR_TEST_KAFKA=127.0.0.1:$port
  # User `weir`, password `a-password-for-tests`, SCRAM-SHA-512 over TLS.
  export WEIR_TEST_KAFKA_SECURED=127.0.0.1:$secured WEIR_TEST_KAFKA_CA=$home/ca.pem
  KAFKA_PID=$SPAWNED
}

start_components() {
  KAFKA_JARS=$("$(dirname -- "${BASH_SOURCE[0]}")/kafka-jars.sh")
  start_with_retries etcd start_etcd
  start_with_retries kafka start_kafka
  echo "etcd at $WEIR_TEST_ETCD, Kafka at $WEIR_TEST_KAFKA"
}

# Whether they still run; when not, what they said last.
components_alive() {
  local status=0
  alive "$ETCD_PID" || { echo "etcd has ended; its log ends with:"; tail -n 20 "$RUN/etcd.log"; status=1; }
  alive "$KAFKA_PID" || { echo "Kafka has ended; its log ends with:"; tail -n 20 "$RUN/kafka.log"; status=1; }
  return $status
}
