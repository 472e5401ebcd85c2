# Jaeger all-in-one, traces in memory: OTLP in (gRPC and HTTP), query API out.
VERSION=v1.76.0
BIN=$CACHE/jaeger-$VERSION

install() {
  [ -x "$BIN" ] && return
  say "building Jaeger $VERSION (about two minutes)"
  quietly go_build github.com/jaegertracing/jaeger "$VERSION" github.com/jaegertracing/jaeger/cmd/all-in-one "$BIN"
}

start() {
  local query grpc http
  query=$(port jaeger query) grpc=$(port jaeger otlp-grpc) http=$(port jaeger otlp-http)
  local loopback=() flag
  for flag in query.grpc-server admin.http collector.grpc-server collector.http-server; do
    loopback+=("--$flag.host-port=127.0.0.1:$(port jaeger "$flag")")
  done
  launch jaeger "$BIN" --log-level=warn --memory.max-traces=200000 "${loopback[@]}" \
    --query.http-server.host-port="127.0.0.1:$query" \
    --collector.otlp.enabled=true \
    --collector.otlp.grpc.host-port="127.0.0.1:$grpc" \
    --collector.otlp.http.host-port="127.0.0.1:$http"
  wait_for jaeger 30 http_ok "http://127.0.0.1:$query/api/services"
  address JAEGER_URL "http://127.0.0.1:$query"
  address OTLP_GRPC_URL "http://127.0.0.1:$grpc"
  address OTLP_HTTP_URL "http://127.0.0.1:$http"
}
