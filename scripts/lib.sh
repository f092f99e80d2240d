# shellcheck shell=bash
# Shared by the scripts beside it; sourced, never run. Everything here works on bash 3.2 (macOS).

# Prints a line for the person at the terminal. Standard output belongs to the command that is run.
say() { printf '%s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" = 0 ]; }

# Runs a command as an unprivileged user: as the user named first when we are root, else as ourselves.
as_user() {
  local user=$1
  shift
  if is_root; then
    setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
  else
    "$@"
  fi
}

# Takes herald's configuration out of the environment: it may be somebody's production, and no test or demo may see it.
forget_configuration() {
  local variable
  for variable in AMQP_URL DATABASE_URL ABLY_API_KEY EXPO_ACCESS_TOKEN OTEL_EXPORTER_OTLP_ENDPOINT HERALD_CONFIG; do
    unset "$variable" "${variable}_FILE"
  done
  for variable in $(env | sed -n 's/^\(HERALD_[A-Z0-9_]*__[A-Z0-9_]*\)=.*/\1/p'); do unset "$variable"; done
}

# Succeeds when something listens on a loopback port.
port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints a port nobody listens on, below the range the system gives to outgoing connections.
free_port() {
  local port
  while :; do
    port=$((15000 + RANDOM % 17000))
    port_answers "$port" || break
  done
  printf '%s\n' "$port"
}

# Prints N random bytes in hexadecimal.
random_hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

# Waits until a process of anybody's is gone; the second argument is a number of seconds.
wait_gone() {
  local left=$(($2 * 10))
  while kill -0 "$1" 2>/dev/null; do
    [ "$left" -gt 0 ] || return 1
    left=$((left - 1))
    sleep 0.1
  done
}

# Prints the command line of a process; a bare Debian has no ps, and macOS no /proc.
command_of() {
  if [ -d /proc/self ]; then
    tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" || true
  else
    ps -o command= -p "$1" 2>/dev/null || true
  fi
}

# Prints the value of a key in a file of key=value lines.
value_of() { sed -n "s/^$1=//p" "$2"; }

# Succeeds when dotted version $1 is at least $2.
version_at_least() {
  local have_major have_minor want_major want_minor rest
  IFS=. read -r have_major have_minor rest <<<"$1"
  IFS=. read -r want_major want_minor rest <<<"$2"
  : "$rest"
  [ "$have_major" -gt "$want_major" ] || { [ "$have_major" -eq "$want_major" ] && [ "$have_minor" -ge "$want_minor" ]; }
}

# Installs Debian packages as root without starting the services they bring; otherwise says the line to run.
apt_install() {
  if ! have apt-get; then
    say "missing: $*. These are the names of Debian's packages, and this is not a Debian."
    return 1
  fi
  if ! is_root; then
    say "missing: $*. Install with:"
    say "  sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
    return 1
  fi
  say "installing: $*"
  (
    policy=/usr/sbin/policy-rc.d
    kept=
    # shellcheck disable=SC2317,SC2329 # called by the trap
    restore() {
      rm -f "$policy"
      if [ -n "$kept" ]; then mv "$kept" "$policy"; fi
    }
    if [ -e "$policy" ]; then
      kept=$policy.herald
      mv "$policy" "$kept"
    fi
    trap restore EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -q update && apt-get -q install -y --no-install-recommends "$@"; } </dev/null >/tmp/herald-apt.$$ 2>&1 || {
      tail -n 20 "/tmp/herald-apt.$$" >&2
      rm -f "/tmp/herald-apt.$$"
      exit 1
    }
    rm -f "/tmp/herald-apt.$$"
  )
}

# Runs whichever Compose there is.
compose() {
  if docker compose version >/dev/null 2>&1; then
    docker compose "$@"
  else
    docker-compose "$@"
  fi
}

# Prints where private servers come from: compose (a Docker that answers) or packages (Debian's).
# HERALD_TEST_BACKEND decides when set.
backend() {
  if [ -n "${HERALD_TEST_BACKEND:-}" ]; then
    printf '%s\n' "$HERALD_TEST_BACKEND"
  elif have docker && docker info >/dev/null 2>&1 && { docker compose version >/dev/null 2>&1 || have docker-compose; }; then
    printf 'compose\n'
  else
    printf 'packages\n'
  fi
}

# Prints the folder with RabbitMQ's own scripts; the rabbitmq-server on Debian's PATH is a wrapper that wants root.
rabbitmq_bin() {
  local dir
  for dir in "${HERALD_TEST_RABBITMQ_BIN:-}" /usr/lib/rabbitmq/bin; do
    if [ -n "$dir" ] && [ -x "$dir/rabbitmq-server" ]; then
      printf '%s\n' "$dir"
      return
    fi
  done
  return 1
}

# Prints the folder with PostgreSQL's server programs, the newest one.
postgres_bin() {
  local dir
  if [ -n "${HERALD_TEST_POSTGRES_BIN:-}" ]; then
    printf '%s\n' "$HERALD_TEST_POSTGRES_BIN"
    return
  fi
  dir=$(find /usr/lib/postgresql -maxdepth 3 -path '*/bin/initdb' 2>/dev/null | sort -t / -k 5 -n | tail -n 1)
  [ -n "$dir" ] && dirname "$dir"
}

# Prints the content of a file made once per folder, whoever comes first: $1 the file, $2 what to write into it.
once() {
  if [ ! -e "$1" ]; then
    printf '%s\n' "$2" >"$1.$$"
    ln "$1.$$" "$1" 2>/dev/null || true
    rm -f "$1.$$"
  fi
  cat "$1"
}

# The rows of one herald that delivers for a week: columns and texts as the worker writes them. $1: its number n, $2: a hash of that,
# $3: now in milliseconds, $4: how many rows there are.
# shellcheck disable=SC2034 # for whoever sources this
ledger_columns='identity, event_id, session_id, partner_id, event, fingerprint, state, reason, via, route, attempt, first_seen, updated_at, next_at, expires_at, version, evidence, targets, attempts'
ledger_row() {
  cat <<SQL
  $2, 'event-' || n, 's' || (n % ($4 / 20)), 'u' || (n % ($4 / 100)), 'partner.advanced', substr($2, 1, 16),
  CASE WHEN n % 100 = 0 THEN 'dead' WHEN n % 50 = 1 THEN 'skipped' WHEN n % 1000 = 2 THEN 'waiting' ELSE 'done' END,
  CASE WHEN n % 100 = 0 THEN 'exhausted' WHEN n % 50 = 1 THEN 'no_token' WHEN n % 1000 = 2 THEN 'retry' END,
  CASE WHEN n % 100 = 0 OR n % 50 = 1 OR n % 1000 = 2 THEN NULL WHEN n % 3 = 0 THEN 'push' ELSE 'realtime' END,
  CASE WHEN n % 3 = 0 THEN 'push' ELSE 'realtime' END, 1,
  $3 - 604800000 * n / $4, $3 - 604800000 * n / $4 + 90, CASE WHEN n % 1000 = 2 THEN $3 + 60000 END, $3 + 86400000, 2,
  '{"presence":"absent","presence_at":1777629600000,"members":0,"tokens":["k9Zq"],"invalid_tokens":0,"rule":"route presence: the recipient is not present","by":"presence"}',
  '{"expo:0123456789ab":{"accepted":true,"closed":false,"unknown":0,"token":"k9Zq","provider_id":"0197a3e2-0000-7000-8000-00000000"}}',
  '[{"at":1777629600000,"attempt":0,"target":"expo:0123456789ab","provider":"expo","duration_ms":41,"outcome":"accepted","provider_id":"0197a3e2-0000-7000-8000-00000000"}]'
SQL
}
