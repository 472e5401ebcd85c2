# Apache Kafka, one KRaft node, or with --brokers N so many (`down --keep kafka-2` stops the second of them; topics have up to three replicas then, of
# which two must be in sync). Who comes in by KAFKA_BOOTSTRAP may do everything; by KAFKA_SASL_BOOTSTRAP, with SASL/PLAIN as user docket and
# password docket-password, what its ACLs allow; by KAFKA_SASL_SSL_BOOTSTRAP the same with TLS, where the user recorder (recorder-password; PLAIN,
# SCRAM or OAUTHBEARER with unsigned tokens) may do everything; by KAFKA_SSL_BOOTSTRAP only with a client certificate, and may do everything if its
# name is recorder. KAFKA_TLS is where the certificates are. KAFKA_PROPERTIES may hold extra broker settings, one a line.
VERSION=4.1.1
DIR=$CACHE/kafka-$VERSION

install() {
  [ -f "$DIR/.done" ] && return
  need java "apt-get install default-jre-headless"
  need mvn "apt-get install maven"
  say "downloading Kafka $VERSION"
  quietly mvn -q -B -f "$HERE/servers/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$DIR/libs"
  touch "$DIR/.done"
}

kafka_topic() { java -cp "$DIR/libs/*" org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$1" --list; }

# The brokers of a cluster, by the names that `down` knows.
brokers() {
  echo kafka
  local n
  for n in $(seq 2 "$BROKERS"); do echo "kafka-$n"; done
}
all_running() {
  local one
  for one in $(brokers); do running "$one" || return 1; done
}

start() {
  local one n=0 voters=''
  for one in $(brokers); do
    n=$((n + 1))
    mkdir -p "$STATE/$one"
    voters+=${voters:+,}$n@127.0.0.1:$(port "$one" controller)
  done
  certificates
  local replicas=$((BROKERS < 3 ? BROKERS : 3))
  n=0
  for one in $(brokers); do
    n=$((n + 1))
    running "$one" || broker "$one" "$n" "$voters" "$replicas" $((replicas > 2 ? 2 : 1))
  done
  local p='' s='' t='' m=''
  for one in $(brokers); do
    wait_for "$one" 180 kafka_topic "$(port "$one" broker)"
    p+=${p:+,}127.0.0.1:$(port "$one" broker)
    s+=${s:+,}127.0.0.1:$(port "$one" sasl)
    t+=${t:+,}127.0.0.1:$(port "$one" sasl_ssl)
    m+=${m:+,}127.0.0.1:$(port "$one" ssl)
  done
  address KAFKA_BOOTSTRAP "$p"
  address KAFKA_SASL_BOOTSTRAP "$s"
  address KAFKA_SASL_SSL_BOOTSTRAP "$t"
  address KAFKA_SSL_BOOTSTRAP "$m"
  address KAFKA_TLS "$STATE/tls"
  address KAFKA_CLASSPATH "$DIR/libs/*"
}

broker() { # broker NAME ID VOTERS REPLICAS IN_SYNC
  local dir=$STATE/$1 tls=$STATE/tls p c s t m
  p=$(port "$1" broker) c=$(port "$1" controller) s=$(port "$1" sasl) t=$(port "$1" sasl_ssl) m=$(port "$1" ssl)
  cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$2
controller.quorum.voters=$3
listeners=PLAINTEXT://127.0.0.1:$p,SASL://127.0.0.1:$s,SASLSSL://127.0.0.1:$t,SSL://127.0.0.1:$m,CONTROLLER://127.0.0.1:$c
advertised.listeners=PLAINTEXT://127.0.0.1:$p,SASL://127.0.0.1:$s,SASLSSL://127.0.0.1:$t,SSL://127.0.0.1:$m
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,SASLSSL:SASL_SSL,SSL:SSL
listener.name.sasl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_docket="docket-password";
listener.name.saslssl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.saslssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_recorder="recorder-password";
listener.name.saslssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.saslssl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.ssl.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location=$tls/server.both.pem
ssl.truststore.type=PEM
ssl.truststore.location=$tls/ca.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:recorder;User:CN=recorder
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
num.partitions=4
default.replication.factor=$4
min.insync.replicas=$5
offsets.topic.replication.factor=$4
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$4
transaction.state.log.min.isr=$5
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
share.coordinator.state.topic.replication.factor=$4
share.coordinator.state.topic.min.isr=$5
${KAFKA_PROPERTIES:-}
PROPERTIES
  if [ ! -d "$dir/data" ]; then
    quietly java -cp "$DIR/libs/*" kafka.tools.StorageTool format -t 4L6g3nShT-eMCtK--X86sw -c "$dir/server.properties" --add-scram 'SCRAM-SHA-512=[name=recorder,password=recorder-password]'
  fi
  launch "$1" java -Xms256m -Xmx"${KAFKA_HEAP:-1g}" -XX:+UseG1GC -cp "$DIR/libs/*" \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.Kafka "$dir/server.properties"
}
