# What the examples' scripts share; they `source` it. It starts programs and ends them with the script.
#
#   TAILCAST     a tailcast that is built already; without it, one is built
#   REDIS_PORT   the Redis there is taken if one answers, else one is started that ends with the script; 6379
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# shellcheck source=scripts/environment
source "$root/scripts/environment"

fail() {
  echo "$*" >&2
  exit 1
}

# Fails unless these programs are there, before anything is built or started: needs PROGRAM…
needs() {
  local program package
  for program in "$@"; do
    command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] && continue
    case "$program" in
      nginx) package=nginx-light ;;
      *) package="$program" ;;
    esac
    fail "this example needs $program: apt-get install $package"
  done
}

# Puts a file of a package from npm somewhere: library PACKAGE@VERSION PATH DESTINATION
library() {
  local modules="${NODE_MODULES-}"
  if [ -z "$modules" ]; then
    npm install --silent --no-audit --no-fund --no-save --prefix "$dir/npm" "$1" ||
      fail "npm does not get $1; if you have it, set NODE_MODULES to the folder that it is in"
    modules="$dir/npm/node_modules"
  fi
  cp "$modules/${1%@*}/$2" "$3"
}

# Builds tailcast, unless TAILCAST names one.
build() {
  built="${CARGO_TARGET_DIR:-target}"
  if [[ "$built" != /* ]]; then
    built="$root/$built"
  fi
  built="$built/release"
  if [ -z "${TAILCAST-}" ]; then
    "$root/scripts/setup"
    (cd "$root" && cargo build --release --bin tailcast)
    TAILCAST="$built/tailcast"
  fi
}

# What the programs write, until the script ends.
dir="$(mktemp -d)"
# Started by root, nginx reads it as nobody.
chmod 755 "$dir"
started=()
names=()
finish() {
  local i
  trap - EXIT INT TERM
  # The last one started goes first: nobody is sent to a node that is gone, nor loses its Redis.
  for ((i = ${#started[@]} - 1; i >= 0; i--)); do
    if [ -n "${started[i]}" ]; then
      kill "${started[i]}" 2>/dev/null || true
      while kill -0 "${started[i]}" 2>/dev/null; do
        sleep 0.05
      done
    fi
  done
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME PROGRAM ARGUMENT…
start() {
  names+=("$1")
  shift
  "$@" &
  started+=($!)
  # How it ends is for `attend` to say, not for the shell.
  disown $!
}

# Whether something listens on a port.
answers() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Fails if a port is somebody else's: free PORT VARIABLE, which is the one to set then.
free() {
  if answers "$1"; then
    fail "port $1 is taken; set $2 to use another one"
  fi
}

# What a server says to GET /health/ready.
health() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /health/ready HTTP/1.0\r\n\r\n' >&3 && cat <&3) 2>/dev/null
}

# Waits until all is ready that is behind a port, whose program was started as number INDEX: until_ready PORT INDEX
until_ready() {
  local said=""
  for _ in $(seq 150); do
    if ! kill -0 "${started[$2]}" 2>/dev/null; then
      fail "${names[$2]} has ended; what it said is above"
    fi
    said="$(health "$1" || true)"
    if [[ "$said" == HTTP/*" 200 "* ]]; then
      return
    fi
    sleep 0.1
  done
  fail "${names[$2]} is not ready after 15 s; http://127.0.0.1:$1/health/ready says: ${said##*$'\n'}"
}

# Takes the Redis there is, or starts one.
redis() {
  REDIS_PORT="${REDIS_PORT:-6379}"
  if [[ "$(redis-cli -p "$REDIS_PORT" ping 2>/dev/null)" == PONG ]]; then
    return
  fi
  free "$REDIS_PORT" REDIS_PORT
  mkdir "$dir/redis"
  start Redis redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --dir "$dir/redis" --appendonly yes --loglevel warning \
    >"$dir/redis.log"
  until [[ "$(redis-cli -p "$REDIS_PORT" ping 2>/dev/null)" == PONG ]]; do
    kill -0 "${started[-1]}" 2>/dev/null || fail "Redis does not start: $(tail -n 1 "$dir/redis.log")"
    sleep 0.1
  done
}

# Starts a node on each of these ports, with the flags behind `--`: nodes PORT… -- FLAG…
nodes() {
  local ports=() first port
  while [ "$1" != -- ]; do
    free "$1" NODE_PORTS
    ports+=("$1")
    shift
  done
  shift
  first="${#started[@]}"
  for port in "${ports[@]}"; do
    start "the node on port $port" "$TAILCAST" --listen "127.0.0.1:$port" --redis "redis://127.0.0.1:$REDIS_PORT" \
      --log warn "$@"
  done
  for port in "${ports[@]}"; do
    until_ready "$port" "$first"
    first=$((first + 1))
  done
}

# Starts nginx with a configuration, and waits until nodes can be reached through it: front PORT CONF
front() {
  local nginx
  nginx="$(command -v nginx || echo /usr/sbin/nginx)"
  free "$1" PORT
  start nginx "$nginx" -p "$dir/nginx" -c "$2" -e error.log
  until_ready "$1" $((${#started[@]} - 1))
}

# Goes on until Ctrl-C. A node may end, as long as there is another one; nothing else may.
attend() {
  local alive gone i name
  while true; do
    alive=0
    gone=()
    for i in "${!started[@]}"; do
      [ -n "${started[i]}" ] || continue
      if ! kill -0 "${started[i]}" 2>/dev/null; then
        gone+=("${names[i]}")
        started[i]=""
      elif [[ "${names[i]}" == "the node on port "* ]]; then
        alive=$((alive + 1))
      fi
    done
    for name in "${gone[@]}"; do
      if [[ "$name" != "the node on port "* ]] || [ "$alive" = 0 ]; then
        fail "$name has ended, and all else with it"
      fi
      echo "$name has ended; what is left goes on" >&2
    done
    # In the background, so that signals are heard at once.
    sleep 0.5 &
    wait $! || true
  done
}
