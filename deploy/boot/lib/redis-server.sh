# shellcheck shell=bash disable=SC2154
# Sourced by node-boot.sh and witness-boot.sh, after machine.sh: this machine's Redis server, configured by `muster redis init`.
redis_files=$state/redis
server=$redis_files/$MACHINE
# Gone at the next boot: a folder in memory.
secrets=$root/run/muster

muster() { node "$home/dist/cli.js" "$@"; }

fetch_redis_secrets() {
  mkdir -p "$secrets"
  chmod 700 "$secrets"
  fetch_secret "$REDIS_SECRET" "$secrets/redis.json"
}

forget_redis_secrets() { rm -rf "$secrets"; }

write_redis() {
  muster redis init --hosts "$HOSTS" --only "$MACHINE" --primary a --secrets "$secrets/redis.json" --out "$redis_files" \
    --max-memory-mb "$REDIS_MEMORY_MB" || give_up 'the configuration of Redis cannot be written'
  chown -R muster:muster "$redis_files"
  # The units of 0.1.0 read REDIS_COPY, and stand until the end of this boot.
  printf 'REDIS_FOLDER=%s\nREDIS_COPY=%s\n' "$server" "$server" >"$etc/redis.env"
  # Redis forks to rewrite its append-only file: without this, the kernel may refuse a fork that would fit.
  printf 'vm.overcommit_memory = 1\n' >"$root/etc/sysctl.d/90-muster.conf"
  sysctl --quiet --load="$root/etc/sysctl.d/90-muster.conf" || say 'vm.overcommit_memory cannot be set'
}

start_redis() { start_unit muster-redis "$etc/redis.env" "$server/redis.conf" "$server/users.acl" "$server/sentinel-users.acl"; }

# Whether the Sentinel of another machine takes connections: when a deployment is new, its first machine is alone.
others_answer() {
  local host address
  for host in ${HOSTS//,/ }; do
    address=${host#*=}
    if [ "${host%%=*}" != "$MACHINE" ] && timeout 2 bash -c ": </dev/tcp/$address/26379" 2>/dev/null; then return 0; fi
  done
  return 1
}

is_in_sync() {
  local status
  # It ends with 1 when no failover could happen, and says why all the same.
  status=$(muster redis status --dir "$server" --json 2>/dev/null || true)
  node "$here/lib/in-sync.mjs" "$MACHINE" <<<"$status" 2>/dev/null
}

# The stack replaces the next machine once this one has signalled. Were this server not in sync by then, two of three servers
# would be away at once. On the first machine of a new deployment there is nobody to be in sync with.
await_redis() {
  local deadline=$((SECONDS + ${MUSTER_BOOT_WAIT:-600})) alone=0
  while ! is_in_sync; do
    if others_answer; then alone=0; else alone=$((alone + 1)); fi
    if [ "$alone" -ge 6 ] && systemctl is-active --quiet muster-redis.service; then
      say 'no other machine answers yet: this server is the first'
      return 0
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then give_up 'this Redis server is not in sync with the others; see redis.log'; fi
    sleep "${MUSTER_BOOT_PAUSE:-5}"
  done
}
