# Prometheus, scraping the addresses in PROMETHEUS_TARGETS ("host:port ...") every second.
# Targets can be changed while it runs: edit targets.json in its state folder, or lay targets-ANYTHING.json beside it.
install() {
  need prometheus "apt-get install prometheus"
  need promtool "apt-get install prometheus"
}

start() {
  local dir=$STATE/prometheus p t list=""
  p=$(port prometheus http)
  for t in ${PROMETHEUS_TARGETS:-}; do list+="${list:+,}\"$t\""; done
  printf '[{"targets":[%s]}]\n' "$list" >"$dir/targets.json"
  cat >"$dir/prometheus.yml" <<YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
scrape_configs:
  - job_name: docket
    file_sd_configs: [{files: [$dir/targets*.json], refresh_interval: 1s}]
YAML
  launch prometheus prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/data" \
    --web.listen-address="127.0.0.1:$p" --enable-feature=exemplar-storage --web.enable-remote-write-receiver --log.level=warn
  wait_for prometheus 30 http_ok "http://127.0.0.1:$p/-/ready"
  address PROMETHEUS_URL "http://127.0.0.1:$p"
  address PROMETHEUS_TARGETS_FILE "$dir/targets.json"
}
