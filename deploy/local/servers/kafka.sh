# Apache Kafka, one KRaft node. Who comes in by KAFKA_BOOTSTRAP may do everything; by KAFKA_SASL_BOOTSTRAP, with SASL/PLAIN as user docket and
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

start() {
  local dir=$STATE/kafka tls=$STATE/tls p c s t m
  p=$(port kafka broker) c=$(port kafka controller) s=$(port kafka sasl) t=$(port kafka sasl_ssl) m=$(port kafka ssl)
  certificates
  cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$c
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
    quietly java -cp "$DIR/libs/*" kafka.tools.StorageTool format -t 4L6g3nShT-eMCtK--X86sw -c "$dir/server.properties" --add-scram 'SCRAM-SHA-512=[name=recorder,password=recorder-password]'
  fi
  launch kafka java -Xms512m -Xmx"${KAFKA_HEAP:-1g}" -XX:+UseG1GC -cp "$DIR/libs/*" \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.Kafka "$dir/server.properties"
  wait_for kafka 180 kafka_topic "$p"
  address KAFKA_BOOTSTRAP "127.0.0.1:$p"
  address KAFKA_SASL_BOOTSTRAP "127.0.0.1:$s"
  address KAFKA_SASL_SSL_BOOTSTRAP "127.0.0.1:$t"
  address KAFKA_SSL_BOOTSTRAP "127.0.0.1:$m"
  address KAFKA_TLS "$tls"
  address KAFKA_CLASSPATH "$DIR/libs/*"
}
