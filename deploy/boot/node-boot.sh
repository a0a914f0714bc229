#!/usr/bin/env bash
# Makes this machine a node: the API and the autoscaler, and (unless ElastiCache holds the queue) a Redis server and its
# Sentinel. Run by the user data at the first boot; run again, it brings the machine to what its secrets and its bundle are now.
set -Eeuo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/boot/lib/machine.sh
. "$here/lib/machine.sh"
# shellcheck source=deploy/boot/lib/redis-server.sh
. "$here/lib/redis-server.sh"
# shellcheck source=deploy/boot/lib/certificate.sh
. "$here/lib/certificate.sh"
# shellcheck source=deploy/boot/lib/fleet-settings.sh
. "$here/lib/fleet-settings.sh"
trap 'give_up "line $LINENO of ${BASH_SOURCE[0]##*/} failed: $BASH_COMMAND"' ERR
trap forget_redis_secrets EXIT

# The settings of the stack, and what only this machine knows. Secret is the URL of Redis: it holds a password.
write_node_environment() {
  umask 077
  {
    grep -E '^(MUSTER|AWS)_' "$etc/machine.env"
    printf 'MUSTER_HOST=0.0.0.0\nMUSTER_PORT=%s\nMUSTER_DATA_DIR=/var/lib/muster/node\n' "$API_PORT"
    printf 'MUSTER_TLS_CERT_FILE=/etc/muster/tls/api.crt\nMUSTER_TLS_KEY_FILE=/etc/muster/tls/api.key\n'
    printf 'MUSTER_CA_FILE=/etc/muster/tls/ca.crt\nMUSTER_FLEET_SETTINGS_FILE=/var/lib/muster/fleet/fleet.env\n'
    # Workers read it by way of SSM, under the name of the secret: that of its ARN without the six characters at the end.
    local name=${JOIN_SECRET##*:secret:}
    printf 'MUSTER_WORKER_JOIN_PARAMETER=/aws/reference/secretsmanager/%s\n' "${name%-*}"
    if [ "$REDIS" = nodes ]; then
      cat "$redis_files/node.env"
    else
      printf 'MUSTER_REDIS_URL=rediss://:%s@%s:6379\n' "$(cat "$secrets/cache-token")" "$REDIS_ADDRESS"
    fi
  } >"$etc/node.env.new"
  mv "$etc/node.env.new" "$etc/node.env"
  umask 022
}

# start_timer <name>: from now on, and after each start of this machine.
start_timer() {
  local kind
  for kind in service timer; do
    install -m 644 "$home/deploy/systemd/$1.$kind" "$root/etc/systemd/system/$1.$kind"
  done
  systemctl daemon-reload
  systemctl enable --now "$1.timer"
}

# Both nodes take turns: "muster redis backup" looks whether the other one has just taken one.
schedule_backups() {
  printf 'BACKUP_TO=%s\nAWS_REGION=%s\n' "$BACKUP_TO" "$AWS_REGION" >"$etc/backup.env"
  start_timer muster-backup
}

# Ready means: Redis takes writes, and the API is served.
await_node() {
  local deadline=$((SECONDS + ${MUSTER_BOOT_WAIT:-600}))
  until curl --silent --fail --output /dev/null --connect-timeout 2 --max-time 5 --cacert "$etc/tls/ca.crt" \
    "https://127.0.0.1:$API_PORT/health/ready"; do
    if [ "$SECONDS" -ge "$deadline" ]; then give_up 'the node does not become ready; see node.log'; fi
    sleep "${MUSTER_BOOT_PAUSE:-5}"
  done
}

install_node
if [ "$REDIS" = nodes ]; then install_redis; fi
install_tools openssl
make_folders
start_log_agent
fetch_redis_secrets
fetch_secret "$OPERATOR_SECRET" "$etc/operator-key"
fetch_secret "$JOIN_SECRET" "$etc/join-secret"
mkdir -p "$state/fleet"
fetch_fleet_settings try_often || give_up "$WHY"
chown -R muster:muster "$state/fleet"
chmod 700 "$state/fleet"
issue_certificate "$secrets/redis.json"
if [ "$REDIS" = nodes ]; then
  write_redis
else
  fetch_secret "$CACHE_SECRET" "$secrets/cache-token"
fi
write_node_environment
forget_redis_secrets
if [ "$REDIS" = nodes ]; then start_redis; fi
start_unit muster-node "$etc/node.env" "$etc/operator-key" "$etc/join-secret"
await_node
if [ "$REDIS" = nodes ]; then await_redis; fi
start_timer muster-fleet
if [ -n "${BACKUP_TO:-}" ]; then schedule_backups; fi
tell_stack true 'the node is ready'
say 'the node is ready'
