# Prometheus Alertmanager, one node, with a receiver that sends nowhere.
install() {
  need prometheus-alertmanager "apt-get install prometheus-alertmanager"
}

start() {
  local dir=$STATE/alertmanager p
  p=$(port alertmanager http)
  printf 'route: {receiver: none}\nreceivers: [{name: none}]\n' >"$dir/alertmanager.yml"
  launch alertmanager prometheus-alertmanager --config.file="$dir/alertmanager.yml" --storage.path="$dir/data" \
    --web.listen-address="127.0.0.1:$p" --cluster.listen-address= --log.level=warn
  wait_for alertmanager 30 http_ok "http://127.0.0.1:$p/-/ready"
  address ALERTMANAGER_URL "http://127.0.0.1:$p"
}
