# shellcheck shell=bash
# Sourced by start.sh and test.sh, from the root of the repository: installs what is missing, and says so only when it
# has something to do. Defines install_all.

say() { printf '%s\n' "$*" >&2; }

fail() {
  say ''
  say "$@"
  exit 1
}

need_node() {
  command -v node >/dev/null 2>&1 ||
    fail 'Node.js is missing. Install version 20.19 or newer from https://nodejs.org/ and try again.'
  # 20.19 is the first of its line that gives a CommonJS module an ES module.
  node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || (major == 20 && minor >= 19) ? 0 : 1)' || fail "Node.js $(node -v) is too old. Install version 20.19 or newer from https://nodejs.org/ and try again."
  command -v npm >/dev/null 2>&1 || fail 'npm is missing; it comes with Node.js. Install it and try again.'
}

# Runs a command quietly; its output is shown only when it fails.
quietly() {
  local log status
  log=$(mktemp)
  if "$@" </dev/null >"$log" 2>&1; then
    rm -f "$log"
    return 0
  else
    status=$?
    LAST_OUTPUT=$(awk 'NR <= 15 { print; next } { last[NR % 15] = $0 } END { if (NR > 30) print "…"; for (i = NR > 30 ? NR - 14 : 16; i <= NR; i++) print last[i % 15] }' "$log")
    rm -f "$log"
    return "$status"
  fi
}

# Explains a download that failed: the two usual causes, then what the program itself said.
explain() {
  say ''
  say "$1 failed. It said:"
  say "$LAST_OUTPUT"
  if printf '%s' "$LAST_OUTPUT" | grep -Eqi 'ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNRE|ENETUNREACH|network|resolv|timed? ?out|unable to connect|failed to fetch|cannot download'; then
    fail 'This looks like the network: is this machine online, and does it need a proxy (https_proxy)? Then try again.'
  fi
  fail "$2"
}

# Runs a command as root; sudo asks on the terminal itself, so its question is seen though the output is not.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then quietly "$@"; else quietly sudo "$@"; fi
}

explain_root() {
  [ "$(id -u)" -eq 0 ] && return 0
  command -v sudo >/dev/null 2>&1 ||
    fail "redis-server is missing and installing it needs root, but there is no sudo here. As root: $1" \
      '(or set MUSTER_REDIS_URL to a Redis that runs elsewhere)'
  sudo -n true 2>/dev/null || [ -t 0 ] ||
    fail "redis-server is missing and installing it needs root. Run this once by hand: sudo $1" \
      '(or set MUSTER_REDIS_URL to a Redis that runs elsewhere)'
  say 'The packages of the system can be changed by root only, so sudo may ask for your password. Nothing else is done as root.'
}

apt_install_redis() {
  # Installing starts no system service: policy-rc.d answers 101 for the time of the installation, unless one is there
  # already. Muster starts a redis-server of its own, in its data directory.
  local policy=/usr/sbin/policy-rc.d
  # shellcheck disable=SC2016 # the inner shell expands it
  as_root sh -c '
    set -e
    if [ ! -e "$0" ]; then
      trap "rm -f \"$0\"" EXIT
      printf "#!/bin/sh\nexit 101\n" >"$0"
      chmod 755 "$0"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server
    # Nor does it start one at the next boot.
    if command -v systemctl >/dev/null 2>&1; then systemctl disable redis-server >/dev/null 2>&1 || true; fi
  ' "$policy"
}

has_redis() { command -v redis-server >/dev/null 2>&1 || command -v valkey-server >/dev/null 2>&1; }

install_redis() {
  has_redis && return 0
  local by_hand='Install redis-server 6.2 or newer by hand, or set MUSTER_REDIS_URL to a Redis that runs elsewhere.'
  if command -v apt-get >/dev/null 2>&1; then
    say 'Installing redis-server with apt: it keeps the jobs. No system service is started.'
    explain_root 'apt-get install -y redis-server'
    # The lists of packages are fetched only when those at hand do not do.
    if ! apt_install_redis; then
      as_root apt-get update || explain 'apt-get update' "$by_hand"
      apt_install_redis || explain 'apt-get install redis-server' "$by_hand"
    fi
  elif command -v dnf >/dev/null 2>&1; then
    say 'Installing Redis with dnf: it keeps the jobs. No system service is started.'
    explain_root 'dnf install -y redis (Amazon Linux: redis6)'
    as_root dnf install -y redis || as_root dnf install -y valkey || as_root dnf install -y redis6 ||
      explain 'dnf install' "$by_hand"
    # Amazon Linux names the program after its package.
    if ! command -v redis-server >/dev/null 2>&1 && command -v redis6-server >/dev/null 2>&1; then
      as_root ln -s "$(command -v redis6-server)" /usr/local/bin/redis-server || explain 'Linking redis6-server' "$by_hand"
    fi
  elif command -v brew >/dev/null 2>&1; then
    say 'Installing Redis with brew: it keeps the jobs. No service is started.'
    quietly brew install redis || explain 'brew install redis' "$by_hand"
  else
    fail "redis-server is missing, and there is neither apt, dnf nor brew here. $by_hand"
  fi
}

# The packages of Ubuntu 22.04, Debian 11 and older ones hold a Redis that is too old.
need_recent_redis() {
  local version
  version=$({ redis-server --version || valkey-server --version; } 2>/dev/null | sed -n 's/.*v=\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
  # shellcheck disable=SC2086 # two words on purpose
  set -- ${version:-0 0}
  [ "$1" -gt 6 ] || { [ "$1" -eq 6 ] && [ "$2" -ge 2 ]; } && return 0
  say ''
  say "The redis-server of this system is version $1.$2, and Muster needs 6.2 or newer. On Ubuntu and Debian, the makers of Redis"
  say 'have a newer one:'
  say '  curl -fsSL https://packages.redis.io/gpg | sudo gpg --dearmor -o /usr/share/keyrings/redis-archive-keyring.gpg'
  # shellcheck disable=SC2016 # to be copied as it is
  say '  echo "deb [signed-by=/usr/share/keyrings/redis-archive-keyring.gpg] https://packages.redis.io/deb $(lsb_release -cs) main" | sudo tee /etc/apt/sources.list.d/redis.list'
  say '  sudo apt-get update && sudo apt-get install -y redis-server'
  fail 'Or set MUSTER_REDIS_URL to a Redis that runs elsewhere.'
}

# npm ci, when package-lock.json is not the one that node_modules was made from.
install_packages() {
  local stamp=node_modules/.muster-installed
  if [ -f "$stamp" ] && cmp -s package-lock.json "$stamp"; then return 0; fi
  say 'Installing the npm packages…'
  quietly npm ci --no-audit --no-fund --loglevel=error || explain 'npm ci' 'Remove the folder node_modules and try again.'
  cp package-lock.json "$stamp"
}

install_all() {
  need_node
  if [ -z "${MUSTER_REDIS_URL:-}" ]; then
    install_redis
    need_recent_redis
  fi
  install_packages
}

# Builds dist/ when a source is newer than the last build that passed, or one of them is gone.
build() {
  local stamp=dist/.muster-built now
  now=$(find src -type f | LC_ALL=C sort)
  if [ -f "$stamp" ] && [ -f dist/cli.js ] && [ "$(cat "$stamp")" = "$now" ] &&
    [ -z "$(find src package.json package-lock.json tsconfig.json tsconfig.build.json -newer "$stamp" -print | head -n 1)" ]; then
    return 0
  fi
  say 'Building…'
  # What was built from a source that is gone must go too.
  if [ -d dist ] && [ "$(cat "$stamp" 2>/dev/null)" != "$now" ]; then rm -rf dist; fi
  quietly npm run --silent build || {
    say "$LAST_OUTPUT"
    fail 'The build failed.'
  }
  printf '%s\n' "$now" >"$stamp"
}
