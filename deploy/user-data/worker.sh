#!/bin/bash
# User data of a Muster worker: finds the worker's code or installs it, and starts it under systemd.
# A node fills in the words between double @ signs and puts the result into the launch template; none of them is a secret.
# Which queue this instance serves stands in its tags. What it shows to the nodes, in this order:
#   the join secret, from /etc/muster/join-secret of the image, or from the SSM parameter that is named below
#   a key in /etc/muster/token.env of the image (MUSTER_WORKER_TOKEN=…)
# The authority that signed the certificates of the nodes, if it is none of the well-known: /etc/muster/ca.pem of the image,
# or the one below.
# Whatever fails here is written to the console, and powers the instance off.
# Everything is written below MUSTER_ROOT, which is empty on a real machine.
set -Eeuo pipefail
umask 022

root=${MUSTER_ROOT:-}
home=$root/opt/muster
imds=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
imds=${imds%/}
node_urls=@@NODE_URLS@@
join_parameter=@@JOIN_PARAMETER@@
bundle_url=@@BUNDLE_URL@@
bundle_sha256=@@BUNDLE_SHA256@@
authority=@@AUTHORITY@@
closed='IPAddressDeny=169.254.169.254 fd00:ec2::254'

say() { echo "muster: $*"; }

# Noted for those who wonder what a boot spends its time on: the worker tells the nodes.
now_ms() { date +%s%3N; }
boot_stages=userData=$(now_ms)

# The reason goes to the console, which EC2 keeps for those who wonder why this instance ended.
give_up() {
  trap - ERR
  say "this instance cannot become a worker: $*"
  if [ -z "$root" ] && [ -w /dev/console ]; then echo "muster: this instance cannot become a worker: $*" >/dev/console; fi
  sync
  shutdown -h now || poweroff
  exit 1
}
trap 'give_up "line $LINENO failed: $BASH_COMMAND"' ERR

# fetch <curl options…>: with limits on everything.
fetch() { curl --silent --show-error --fail --location --connect-timeout 5 --max-time 120 "$@"; }

# metadata <path>: from the instance metadata service, version 2.
metadata() {
  curl --silent --fail --connect-timeout 2 --max-time 5 --header "X-aws-ec2-metadata-token: $imds_token" "$imds/latest/$1"
}

read_identity() {
  local try
  for try in 1 2 3 4 5 6 7 8 9 10; do
    if imds_token=$(curl --silent --fail --connect-timeout 2 --max-time 5 --request PUT \
      --header 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$imds/latest/api/token") &&
      instance_id=$(metadata meta-data/instance-id) &&
      queue=$(metadata meta-data/tags/instance/muster:pool) &&
      slots=$(metadata meta-data/tags/instance/muster:slots) &&
      region=$(metadata meta-data/placement/region); then
      # Handlers reach the metadata service, and by it the role of this instance, only where their pool asks for that.
      if [ "$(metadata meta-data/tags/instance/muster:metadata || true)" = yes ]; then closed=''; fi
      return 0
    fi
    sleep "$try"
  done
  give_up "the metadata service at $imds does not tell the instance's id and its tags muster:pool and muster:slots"
}

has_node() { command -v node >/dev/null && [ "$(node -p 'Number(process.versions.node.split(".")[0])')" -ge 20 ]; }

install_node() {
  if has_node; then return 0; fi
  say 'installs Node.js'
  if command -v dnf >/dev/null; then
    # A release of Amazon Linux has some of them: one that has ended leaves its list.
    local version
    for version in 24 22 20; do
      timeout 300 dnf install -y "nodejs$version" || say "there is no nodejs$version"
      # Where several versions are installed, the plain name may be that of another one.
      if ! has_node && [ -x "/usr/bin/node-$version" ]; then ln -sf "/usr/bin/node-$version" /usr/local/bin/node; fi
      if has_node; then break; fi
    done
  elif command -v apt-get >/dev/null; then
    timeout 120 apt-get update || say 'apt-get update failed'
    DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y --no-install-recommends nodejs || say 'apt-get failed'
  fi
  if ! has_node; then give_up 'Node.js 20 or newer is needed and could not be installed: use an image that has it'; fi
}

# unpack_bundle <file> <where it is from>. A bundle is a tar.gz of the folders dist and node_modules and the file package.json.
unpack_bundle() {
  if [ -n "$bundle_sha256" ] && ! sha256sum --check --status <<<"$bundle_sha256  $1"; then
    say "$2 gives another bundle than that of the SHA-256 $bundle_sha256: is it of another version?"
    return 1
  fi
  rm -rf "$home.new"
  mkdir -p "$home.new"
  tar -xzf "$1" -C "$home.new" --no-same-owner && [ -f "$home.new/dist/cli.js" ] || return 1
  chmod -R a+rX "$home.new"
  rm -rf "$home"
  mv "$home.new" "$home"
}

install_bundle() {
  if [ -f "$home/dist/cli.js" ]; then return 0; fi
  mkdir -p "$root/opt"
  local file headers try url
  file=$(mktemp)
  headers=$(mktemp) # Not an argument of curl: those can be seen by every process.
  if [ -f "$root/etc/muster/token.env" ]; then
    sed -n 's/^MUSTER_WORKER_TOKEN=/Authorization: Bearer /p' "$root/etc/muster/token.env" >"$headers"
  fi
  for try in 1 2 3 4 5 6; do
    if [ -n "$bundle_url" ]; then
      if fetch --output "$file" "$bundle_url" && unpack_bundle "$file" "$bundle_url"; then break; fi
    else
      for url in $node_urls; do
        if fetch "${ca[@]}" --header "@$headers" --output "$file" "$url/workers/bundle.tgz" && unpack_bundle "$file" "$url"; then break 2; fi
      done
    fi
    if [ "$try" -eq 6 ]; then give_up "no worker bundle to be had from ${bundle_url:-$node_urls}"; fi
    sleep $((try * 2 + RANDOM % 3))
  done
  rm -f "$file" "$headers"
}

# A token is good for an hour or so: whenever the worker is started, it gets a new one first. The first join binds this instance to a
# word that only root can read here; beside it goes what AWS signs of this instance.
write_join() {
  mkdir -p "$root/usr/local/lib/muster" "$root/etc/muster"
  {
    printf '#!/bin/bash\n'
    printf '%s=%q\n' etc "$root/etc/muster" node_urls "$node_urls" parameter "$join_parameter" region "$region" \
      instance_id "$instance_id" queue "$queue" imds "$imds" ready "$root/run/muster-metadata/env"
    cat <<'JOIN'
set -euo pipefail
umask 077
# As a unit it comes before the worker, and after what tells the worker of the end of its instance.
if [ "${1:-}" = as-unit ]; then
  for try in {1..50}; do
    if [ -s "$ready" ]; then break; fi
    sleep 0.2
  done
fi
if [ -f "$etc/join-secret" ]; then
  secret=$(cat "$etc/join-secret")
elif [ -n "$parameter" ]; then
  secret=$(timeout 60 aws --region "$region" --cli-connect-timeout 5 --cli-read-timeout 10 ssm get-parameter \
    --name "$parameter" --with-decryption --query Parameter.Value --output text)
else
  exit 0 # The nodes ask for none, or the image has a key.
fi
if [ ! -s "$etc/join-nonce" ]; then
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$etc/join-nonce.new"
  mv "$etc/join-nonce.new" "$etc/join-nonce"
fi
imds_curl=(curl --silent --fail --connect-timeout 2 --max-time 5)
document=''
if imds_token=$("${imds_curl[@]}" --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token"); then
  document=$("${imds_curl[@]}" --header "X-aws-ec2-metadata-token: $imds_token" \
    "$imds/latest/dynamic/instance-identity/rsa2048" | tr -d '\n') || document=''
fi
headers=$(mktemp)
trap 'rm -f "$headers" "$headers.body"' EXIT
# In a file: what is an argument can be seen.
printf '{"instanceId":"%s","queue":"%s","nonce":"%s"%s}' "$instance_id" "$queue" "$(cat "$etc/join-nonce")" \
  "${document:+,\"document\":\"$document\"}" >"$headers.body"
printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "$secret" >"$headers"
ca=()
if [ -f "$etc/ca.pem" ]; then ca=(--cacert "$etc/ca.pem"); fi
for try in 1 2 3 4 5 6 7 8; do
  for url in $node_urls; do
    reply=$(curl --silent --show-error --fail --connect-timeout 5 --max-time 30 "${ca[@]}" --header "@$headers" \
      --data "@$headers.body" "$url/workers/join") || continue
    token=$(sed -n 's/.*"token":"\([A-Za-z0-9._-]*\)".*/\1/p' <<<"$reply")
    [ -n "$token" ] || continue
    printf 'MUSTER_WORKER_TOKEN=%s\n' "$token" >"$etc/token.env.new"
    mv "$etc/token.env.new" "$etc/token.env"
    exit 0
  done
  sleep $((try + RANDOM % 2))
done
echo 'muster: no node gives this instance a token' >&2
exit 1
JOIN
  } >"$root/usr/local/lib/muster/join"
  chmod 755 "$root/usr/local/lib/muster/join"
}

join_nodes() {
  write_join
  if ! "$root/usr/local/lib/muster/join"; then
    give_up "no token to be had from $node_urls for the join secret in ${join_parameter:-the image}"
  fi
}

write_environment() {
  mkdir -p "$root/etc/muster"
  (
    umask 077
    {
      printf '%s\n' @@ENVIRONMENT@@
      printf 'MUSTER_QUEUE=%s\nMUSTER_WORKER_SLOTS=%s\nMUSTER_INSTANCE_ID=%s\n' "$queue" "$slots" "$instance_id"
      printf 'MUSTER_BOOT_STAGES=%s\n' "$boot_stages,installed=$(now_ms)"
      # Handlers of your own: in the image or in the bundle.
      for file in "$home/handlers.mjs" "$home/handlers.js"; do
        if [ -f "$file" ]; then
          printf 'MUSTER_HANDLERS=%s\n' "$file"
          break
        fi
      done
      if [ -f "$root/etc/muster/ca.pem" ]; then printf 'MUSTER_CA_FILE=%s\n' "$root/etc/muster/ca.pem"; fi
      if [ -n "${AWS_EC2_METADATA_SERVICE_ENDPOINT:-}" ]; then
        printf 'AWS_EC2_METADATA_SERVICE_ENDPOINT=%s\n' "$AWS_EC2_METADATA_SERVICE_ENDPOINT"
      fi
    } >"$root/etc/muster/worker.env"
  )
  chmod 600 "$root/etc/muster/worker.env"
}

# The worker hears from here that its instance is to end, and nothing else of what the metadata service knows.
write_metadata_proxy() {
  mkdir -p "$root/run/muster-metadata"
  cat >"$root/usr/local/lib/muster/metadata.mjs" <<'PROXY'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
const [imds, file] = process.argv.slice(2)
const known = { GET: /^\/latest\/meta-data\/(spot\/instance-action|events\/recommendations\/rebalance)$/, PUT: /^\/latest\/api\/token$/ }
const server = createServer(async ({ method, url, headers }, reply) => {
  if (!known[method]?.test(url)) return reply.writeHead(404).end()
  try {
    const passed = Object.entries(headers).filter(([name]) => name.startsWith('x-aws-ec2-metadata-token'))
    const answer = await fetch(imds + url, { method, headers: passed, signal: AbortSignal.timeout(5000) })
    reply.writeHead(answer.status).end(await answer.text())
  } catch {
    reply.writeHead(502).end()
  }
})
// The worker was told the port of the first start.
const port = existsSync(file) ? Number(/:(\d+)\n/.exec(readFileSync(file, 'utf8'))?.[1]) : 0
server.listen(port, '127.0.0.1', () =>
  writeFileSync(file, `AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:${server.address().port}\n`))
PROXY
}

# A worker that ended well was told to go, or reaches no node any more: the machine goes, too. One that fails is started
# again, five times in ten minutes, before the machine goes. What it may do is what deploy/systemd/muster-worker.service allows.
write_units() {
  local units=$root/etc/systemd/system
  mkdir -p "$units"
  cat >"$units/muster-metadata.service" <<UNIT
[Unit]
Description=Tells the Muster worker of the end of its instance

[Service]
ExecStart=$(command -v node) $root/usr/local/lib/muster/metadata.mjs $imds $root/run/muster-metadata/env
DynamicUser=yes
RuntimeDirectory=muster-metadata
RuntimeDirectoryPreserve=yes
Restart=always
RestartSec=1
UNIT
  cat >"$units/muster-join.service" <<UNIT
[Unit]
Description=Token of the Muster worker
Wants=network-online.target
After=network-online.target muster-metadata.service

[Service]
Type=oneshot
ExecStart=$root/usr/local/lib/muster/join as-unit
UNIT
  cat >"$units/muster-worker.service" <<UNIT
[Unit]
Description=Muster worker
Wants=network-online.target muster-metadata.service
Requires=muster-join.service
After=network-online.target muster-metadata.service muster-join.service
StartLimitIntervalSec=600
StartLimitBurst=5
SuccessAction=poweroff
FailureAction=poweroff

[Service]
EnvironmentFile=$root/etc/muster/worker.env
EnvironmentFile=-$root/etc/muster/token.env
EnvironmentFile=-$root/run/muster-metadata/env
ExecStart=$(command -v node) $home/dist/cli.js worker
DynamicUser=yes
Restart=on-failure
RestartSec=5
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=@@STOP_SECONDS@@
StandardOutput=journal+console
StandardError=journal+console
$closed
@@HARDENING@@

[Install]
WantedBy=multi-user.target
UNIT
}

read_identity
say "instance $instance_id becomes a worker of queue $queue with $slots slots"
if [ -n "$authority" ] && [ ! -f "$root/etc/muster/ca.pem" ]; then
  mkdir -p "$root/etc/muster"
  printf '%s' "$authority" >"$root/etc/muster/ca.pem"
fi
ca=()
if [ -f "$root/etc/muster/ca.pem" ]; then ca=(--cacert "$root/etc/muster/ca.pem"); fi
join_nodes
install_node
install_bundle
write_environment
write_metadata_proxy
write_units
systemctl daemon-reload
systemctl enable muster-worker.service
systemctl start muster-worker.service
say 'the worker is started'
