# Prometheus 3 as a receiver: remote write 1.0 and 2.0, and OTLP. Scrapes nothing. (Debian's, in prometheus.sh, takes 1.0 only.)
VERSION=v0.316.0
BIN=$CACHE/prometheus-$VERSION

install() {
  [ -x "$BIN" ] && return
  say "building Prometheus $VERSION (about four minutes)"
  quietly go_build github.com/prometheus/prometheus "$VERSION" github.com/prometheus/prometheus/cmd/prometheus "$BIN" -tags=remove_all_sd
}

start() {
  local dir=$STATE/receiver p
  p=$(port receiver http)
  printf 'global: {evaluation_interval: 1s}\notlp: {keep_identifying_resource_attributes: true}\n' >"$dir/prometheus.yml"
  launch receiver "$BIN" --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/data" --web.listen-address="127.0.0.1:$p" \
    --web.enable-remote-write-receiver --web.enable-otlp-receiver --enable-feature=exemplar-storage --log.level=warn
  wait_for receiver 30 http_ok "http://127.0.0.1:$p/-/ready"
  address RECEIVER_URL "http://127.0.0.1:$p"
}
