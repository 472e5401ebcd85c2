# OpenSearch (the Elasticsearch API), one node, started from its Maven artifacts by a small Java main.
VERSION=2.19.4
DIR=$CACHE/opensearch-$VERSION

install() {
  [ -f "$DIR/.done" ] && return
  need javac "apt-get install default-jdk-headless"
  need mvn "apt-get install maven"
  say "downloading OpenSearch $VERSION"
  quietly mvn -q -B -f "$HERE/servers/opensearch/pom.xml" dependency:copy-dependencies -DoutputDirectory="$DIR/libs"
  quietly javac -cp "$DIR/libs/*" -d "$DIR/main" "$HERE/servers/opensearch/Local.java"
  touch "$DIR/.done"
}

start() {
  local p; p=$(port opensearch http)
  mkdir -p "$STATE/opensearch/home/config"
  launch opensearch java -Xms512m -Xmx"${OPENSEARCH_HEAP:-1g}" -Dopensearch.networkaddress.cache.ttl=60 \
    -Dlog4j2.disable.jmx=true -Djava.awt.headless=true -cp "$DIR/main:$DIR/libs/*" Local "$STATE/opensearch/home" "$p"
  wait_for opensearch 60 http_ok "http://127.0.0.1:$p/_cluster/health?wait_for_status=yellow&timeout=1s"
  address OPENSEARCH_URL "http://127.0.0.1:$p"
}
