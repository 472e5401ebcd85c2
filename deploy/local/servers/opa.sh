# Open Policy Agent. OPA_CONFIG and OPA_POLICIES (files or folders) may name a configuration and
# policies; without them it logs its decisions to its console, under the policies of the tests.
VERSION=v1.22.2
BIN=$CACHE/opa-$VERSION

install() {
  [ -x "$BIN" ] && return
  need go "install Go 1.24 or later"
  say "building OPA $VERSION (about a minute)"
  local bin; bin=$(mktemp -d)
  GOBIN=$bin quietly go install "github.com/open-policy-agent/opa@$VERSION"
  mv "$bin/opa" "$BIN"
}

start() {
  local p; p=$(port opa http)
  local config=${OPA_CONFIG:-$STATE/opa/opa.yaml}
  [ -n "${OPA_CONFIG:-}" ] || printf 'decision_logs: {console: true}\n' >"$config"
  # shellcheck disable=SC2086
  launch opa "$BIN" run --server --addr "127.0.0.1:$p" --skip-version-check --log-format json -c "$config" \
    ${OPA_POLICIES:-$HERE/../../tests/data/policies}
  wait_for opa 20 http_ok "http://127.0.0.1:$p/health"
  address OPA_URL "http://127.0.0.1:$p"
  address OPA_BIN "$BIN"
  address OPA_LOG "$STATE/opa/log"
}
