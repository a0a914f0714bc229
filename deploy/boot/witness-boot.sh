#!/usr/bin/env bash
# Makes this machine the witness: the third Redis server and its Sentinel, no API. Run by the user data at the first boot;
# run again, it brings the machine to what its secrets and its bundle are now.
set -Eeuo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/boot/lib/machine.sh
. "$here/lib/machine.sh"
# shellcheck source=deploy/boot/lib/redis-server.sh
. "$here/lib/redis-server.sh"
trap 'give_up "line $LINENO of ${BASH_SOURCE[0]##*/} failed: $BASH_COMMAND"' ERR
trap forget_redis_secrets EXIT

install_node
install_redis
make_folders
start_log_agent
fetch_redis_secrets
write_redis
forget_redis_secrets
start_redis
await_redis
tell_stack true 'the witness is ready'
say 'the witness is ready'
