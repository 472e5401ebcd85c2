# Shared by up, down and the recipes in servers/. Sourced, never run.
#
# A recipe is one file, servers/NAME.sh, that defines two functions:
#   install   put the server under $CACHE/NAME-VERSION, once; must be safe to call again
#   start     run it in the background on loopback with `launch`, wait until it is ready, and
#             print its addresses with `address NAME value`
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${DOCKET_LOCAL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docket}
STATE=${DOCKET_LOCAL_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/docket/local}

say() { printf '%s\n' "deploy/local: $*" >&2; }
die() { say "$*"; exit 1; }

need() { # need COMMAND HINT
  command -v "$1" >/dev/null 2>&1 || die "$1 is needed: $2"
}

# A port nobody listens on, below the range the kernel hands to outgoing connections, so that it
# can't be taken between now and the server's bind.
free_port() {
  local port
  for _ in $(seq 200); do
    port=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
  done
  die "no free port found between 10000 and 32000"
}

# The port called $2 of server $1: the one it had before, so that a restarted server is found again.
port() {
  local file=$STATE/$1/port.$2
  [ -s "$file" ] || free_port >"$file"
  cat "$file"
}

running() { # running NAME
  [ -s "$STATE/$1/pid" ] && kill -0 "$(cat "$STATE/$1/pid")" 2>/dev/null
}

launch() { # launch NAME COMMAND...: in the background, its output in $STATE/NAME/log
  local name=$1; shift
  setsid "$@" >>"$STATE/$name/log" 2>&1 </dev/null &
  echo $! >"$STATE/$name/pid"
}

wait_for() { # wait_for NAME SECONDS COMMAND...: until COMMAND succeeds
  local name=$1 seconds=$2 i; shift 2
  for ((i = 0; i < seconds * 5; i++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    running "$name" || { tail -n 20 "$STATE/$name/log" >&2; die "$name stopped while starting; its log is $STATE/$name/log"; }
    sleep 0.2
  done
  tail -n 20 "$STATE/$name/log" >&2
  die "$name was not ready after $seconds s; its log is $STATE/$name/log"
}

http_ok() { curl -fsS -o /dev/null --max-time 2 "$1"; }

address() { # address NAME VALUE: one env line, kept for later calls of up
  printf '%s=%s\n' "$1" "$2" >>"$STATE/$SERVER/env"
}

# Runs COMMAND with its output in a log; shows the end of the log only if it fails.
quietly() {
  local log; log=$(mktemp)
  if "$@" >"$log" 2>&1; then rm -f "$log"; else tail -n 30 "$log" >&2; die "failed: $*"; fi
}

# Builds one Go program from a module whose go.mod has `replace` lines (which `go install` refuses):
# a module of our own repeats its requirements and replacements.
#   go_build MODULE VERSION PACKAGE OUTPUT [-FLAG of go build | SUB-MODULE that is replaced by a local folder: the released one is taken]...
go_build() ( # in a subshell of its own: `set -e` does not reach a function that is called in a condition
  need go "install Go 1.24 or later"
  module=$1 version=$2 package=$3 output=$4; shift 4
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  cd "$work" || exit 1
  mod=$(go mod download -json "$module@$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  [ -n "$mod" ] || die "$module@$version could not be downloaded"
  sed -e 's#^module .*#module local/build#' "$mod" >go.mod || exit 1
  flags=()
  for more in "$@"; do
    case $more in
      -*) flags+=("$more") ;;
      *) go mod edit -dropreplace "$more" || exit 1 ;;
    esac
  done
  go mod edit -require "$module@$version" &&
    go build -mod=mod -trimpath -ldflags '-s -w' "${flags[@]}" -o "$output.part" "$package" &&
    mv "$output.part" "$output"
)

# An authority of our own, and from it a server's certificate for this machine and a client's, in $STATE/tls: ca.pem, server.pem and
# server.key, client.pem and client.key (its name is recorder), and each pair in one file, server.both.pem and client.both.pem.
certificates() {
  local dir=$STATE/tls
  [ -f "$dir/.done" ] && return
  need openssl "apt-get install openssl"
  mkdir -p "$dir"
  quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=docket local authority" -keyout "$dir/ca.key" -out "$dir/ca.pem"
  local one
  for one in server client; do
    local subject=/CN=recorder
    [ $one = client ] || subject=/CN=localhost
    quietly openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj $subject -keyout "$dir/$one.key" -out "$dir/$one.csr"
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n' >"$dir/$one.ext"
    quietly openssl x509 -req -in "$dir/$one.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 3650 -extfile "$dir/$one.ext" -out "$dir/$one.pem"
    cat "$dir/$one.key" "$dir/$one.pem" >"$dir/$one.both.pem"
  done
  touch "$dir/.done"
}
