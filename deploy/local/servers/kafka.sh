# Apache Kafka, one KRaft node. Who comes in by KAFKA_BOOTSTRAP may do everything; by KAFKA_SASL_BOOTSTRAP, with SASL/PLAIN as user docket and
# password docket-password, what its ACLs allow. KAFKA_PROPERTIES may hold extra broker settings, one a line.
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

start() {
  local dir=$STATE/kafka p c s
  p=$(port kafka broker) c=$(port kafka controller) s=$(port kafka sasl)
  cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$c
listeners=PLAINTEXT://127.0.0.1:$p,SASL://127.0.0.1:$s,CONTROLLER://127.0.0.1:$c
advertised.listeners=PLAINTEXT://127.0.0.1:$p,SASL://127.0.0.1:$s
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT
listener.name.sasl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_docket="docket-password";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
${KAFKA_PROPERTIES:-}
PROPERTIES
  if [ ! -d "$dir/data" ]; then
    quietly java -cp "$DIR/libs/*" kafka.tools.StorageTool format -t 4L6g3nShT-eMCtK--X86sw -c "$dir/server.properties"
  fi
  launch kafka java -Xms512m -Xmx"${KAFKA_HEAP:-1g}" -XX:+UseG1GC -cp "$DIR/libs/*" \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.Kafka "$dir/server.properties"
  wait_for kafka 60 kafka_topic "$p"
  address KAFKA_BOOTSTRAP "127.0.0.1:$p"
  address KAFKA_SASL_BOOTSTRAP "127.0.0.1:$s"
  address KAFKA_CLASSPATH "$DIR/libs/*"
}
