# shellcheck shell=bash
# Sourced by node-boot.sh and witness-boot.sh: what both do to become a machine of Muster. Every step may be done again.
# Reads /etc/muster/machine.env, which the user data wrote. Everything lies below MUSTER_ROOT, which is empty on a real machine.
root=${MUSTER_ROOT:-}
home=$root/opt/muster
etc=$root/etc/muster
state=$root/var/lib/muster
logs=$root/var/log/muster
PATH=$PATH:/opt/aws/bin

# shellcheck source=/dev/null
. "$etc/machine.env"

say() { printf 'muster: %s\n' "$*"; }

# tell_stack <true|false> <reason>. A machine that is no part of a stack's change has nobody to tell, which is no fault.
tell_stack() {
  timeout 60 cfn-signal --success "$1" --reason "$2" --stack "$STACK" --resource "$SIGNAL" --region "$AWS_REGION" ||
    say 'the stack awaits no signal'
}

give_up() {
  trap - ERR
  say "this machine cannot start: $*"
  tell_stack false "$*"
  exit 1
}

# try_often <command…>: six times, with growing pauses and some chance in them.
try_often() {
  local try pause=${MUSTER_BOOT_PAUSE:-3}
  for try in 1 2 3 4 5 6; do
    if "$@"; then return 0; fi
    if [ "$try" -lt 6 ]; then sleep $((try * pause + RANDOM % (pause + 1))); fi
  done
  return 1
}

has_node() { command -v node >/dev/null && [ "$(node -p 'Number(process.versions.node.split(".")[0])')" -ge 20 ]; }

install_node() {
  if has_node; then return 0; fi
  say 'installs Node.js'
  local version
  # A release of Amazon Linux has some of them: one that has ended leaves its list.
  for version in 24 22 20; do
    try_often timeout 300 dnf install -y "nodejs$version" || say "there is no nodejs$version"
    # Where several versions are installed, the plain name may be that of another one.
    if ! has_node && [ -x "/usr/bin/node-$version" ]; then ln -sf "/usr/bin/node-$version" "$root/usr/local/bin/node"; fi
    if has_node; then break; fi
  done
  has_node || give_up 'Node.js 20 or newer cannot be installed: use an image that has it'
}

has_redis() { command -v valkey-server >/dev/null || command -v redis-server >/dev/null; }

install_redis() {
  if has_redis; then return 0; fi
  say 'installs Valkey'
  try_often timeout 300 dnf install -y valkey || try_often timeout 300 dnf install -y redis6 || true
  # Amazon Linux names the programs of this one after its package.
  local program
  for program in redis-server redis-sentinel redis-cli; do
    if ! command -v "$program" >/dev/null && command -v "${program/redis/redis6}" >/dev/null; then
      ln -sf "$(command -v "${program/redis/redis6}")" "$root/usr/local/bin/$program"
    fi
  done
  has_redis || give_up 'neither valkey nor redis6 can be installed: use an image that has one of them'
}

# install_tools <program>…: packages that have the name of their program.
install_tools() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || try_often timeout 300 dnf install -y "$tool" || give_up "$tool cannot be installed"
  done
}

make_folders() {
  if ! getent passwd muster >/dev/null; then
    useradd --system --user-group --home-dir /var/lib/muster --no-create-home --shell /sbin/nologin muster
  fi
  mkdir -p "$etc" "$state" "$logs" "$root/etc/systemd/system" "$root/etc/sysctl.d" "$root/etc/logrotate.d" "$root/usr/local/bin"
  chmod 750 "$etc" "$logs"
  chown root:muster "$etc" "$logs"
  chown muster:muster "$state"
  install -m 755 "$home/deploy/boot/muster" "$root/usr/local/bin/muster"
  install -m 644 "$home/deploy/boot/logrotate.conf" "$root/etc/logrotate.d/muster"
}

# fetch_secret <ARN> <file>: only root may read it, and it is in no argument and no output on its way.
fetch_secret() {
  local secret=$1 file=$2
  rm -f "$file.new"
  (
    umask 077
    try_often aws secretsmanager get-secret-value --secret-id "$secret" --region "$AWS_REGION" --query SecretString --output text \
      --cli-connect-timeout 5 --cli-read-timeout 20 >"$file.new"
  ) || give_up "the secret $secret cannot be read"
  [ -s "$file.new" ] || give_up "the secret $secret is empty"
  mv "$file.new" "$file"
}

# start_unit <name> <file>…: enabled and started, or started anew when one of the files has changed since.
start_unit() {
  local unit=$1 seen now
  shift
  install -m 644 "$home/deploy/systemd/$unit.service" "$root/etc/systemd/system/$unit.service"
  seen=$(cat "$state/$unit.seen" 2>/dev/null || true)
  now=$(cat "$root/etc/systemd/system/$unit.service" "$home/package.json" "$@" | sha256sum)
  systemctl daemon-reload
  systemctl enable "$unit.service"
  if [ -n "$seen" ] && [ "$seen" != "$now" ]; then systemctl restart "$unit.service"; else systemctl start "$unit.service"; fi
  printf '%s\n' "$now" >"$state/$unit.seen"
}

# Ships what the services write to CloudWatch: the last thing that may fail, and no reason to be without a node.
start_log_agent() {
  cat >"$etc/cloudwatch-agent.json" <<JSON
{
  "agent": { "run_as_user": "root" },
  "logs": {
    "logs_collected": {
      "files": {
        "collect_list": [
          { "file_path": "/var/log/muster/node.log", "log_group_name": "$NODE_LOGS", "log_stream_name": "$MACHINE-{instance_id}" },
          { "file_path": "/var/log/muster/redis.log", "log_group_name": "$REDIS_LOGS", "log_stream_name": "$MACHINE-{instance_id}" },
          { "file_path": "/var/log/cloud-init-output.log", "log_group_name": "$BOOT_LOGS", "log_stream_name": "$MACHINE-{instance_id}" }
        ]
      }
    }
  }
}
JSON
  PATH=$PATH:/opt/aws/amazon-cloudwatch-agent/bin
  if ! command -v amazon-cloudwatch-agent-ctl >/dev/null; then try_often timeout 300 dnf install -y amazon-cloudwatch-agent || true; fi
  timeout 60 amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c "file:$etc/cloudwatch-agent.json" >/dev/null ||
    say 'no log reaches CloudWatch: the agent does not start'
}
