# moto, which answers as CloudWatch Logs does (in memory; any credentials are good).
VERSION=5.2.5
DIR=$CACHE/moto-$VERSION

install() {
  [ -f "$DIR/.done" ] && return
  need python3 "apt-get install python3-venv"
  say "installing moto $VERSION"
  quietly python3 -m venv "$DIR"
  quietly "$DIR/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$VERSION"
  touch "$DIR/.done"
}

start() {
  local p; p=$(port moto http)
  launch moto "$DIR/bin/moto_server" -H 127.0.0.1 -p "$p"
  wait_for moto 30 http_ok "http://127.0.0.1:$p/moto-api/data.json"
  address CLOUDWATCH_URL "http://127.0.0.1:$p"
}
