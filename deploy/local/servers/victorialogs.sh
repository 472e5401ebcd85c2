# VictoriaLogs, one binary, data in a folder. It speaks Loki's push protocol. What it holds in memory it writes to disk every
# second, the least it can be told: that much is lost with SIGKILL.
VERSION=v1.52.1
BIN=$CACHE/victoria-logs-$VERSION

install() {
  [ -x "$BIN" ] && return
  say "building VictoriaLogs $VERSION (about a minute)"
  quietly go_build github.com/VictoriaMetrics/VictoriaLogs "$VERSION" github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs "$BIN"
}

start() {
  local p; p=$(port victorialogs http)
  launch victorialogs "$BIN" -storageDataPath="$STATE/victorialogs/data" -httpListenAddr="127.0.0.1:$p" -retentionPeriod=10y \
    -inmemoryDataFlushInterval=1s -loggerLevel=WARN
  wait_for victorialogs 20 http_ok "http://127.0.0.1:$p/health"
  address VICTORIALOGS_URL "http://127.0.0.1:$p"
}
