# Grafana Loki, one that is there already: on the PATH, or LOKI_BIN. Nothing of it is built or fetched here. Data in a folder. Old
# samples are accepted, so that tests may replay the past.
BIN=${LOKI_BIN:-loki}

install() {
  need "$BIN" "install Loki (package loki of Grafana's repository at apt.grafana.com or rpm.grafana.com, brew install loki, or a
binary from the releases of grafana/loki on GitHub), or say where it is: LOKI_BIN=/path/to/loki. victorialogs takes the same protocol."
}

start() {
  local http grpc dir=$STATE/loki
  http=$(port loki http) grpc=$(port loki grpc)
  mkdir -p "$dir/data"
  cat >"$dir/loki.yaml" <<YAML
auth_enabled: false
analytics: {reporting_enabled: false}
server:
  http_listen_address: 127.0.0.1
  http_listen_port: $http
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: $grpc
  log_level: warn
common:
  instance_addr: 127.0.0.1
  path_prefix: $dir/data
  replication_factor: 1
  ring: {kvstore: {store: inmemory}}
  storage: {filesystem: {chunks_directory: $dir/data/chunks, rules_directory: $dir/data/rules}}
schema_config:
  configs:
    - {from: "2024-01-01", store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}
ingester:
  lifecycler: {min_ready_duration: 0s, final_sleep: 0s}
limits_config:
  reject_old_samples: ${LOKI_REJECT_OLD_SAMPLES:-false}
  allow_structured_metadata: true
  max_entries_limit_per_query: 100000
  ingestion_rate_mb: 64
  ingestion_burst_size_mb: 128
  per_stream_rate_limit: 64MB
  per_stream_rate_limit_burst: 128MB
pattern_ingester: {enabled: false}
YAML
  launch loki "$BIN" -config.file="$dir/loki.yaml"
  wait_for loki 60 http_ok "http://127.0.0.1:$http/ready"
  address LOKI_URL "http://127.0.0.1:$http"
}
