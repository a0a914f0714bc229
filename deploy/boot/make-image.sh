#!/usr/bin/env bash
# Makes this machine ready to become an image, for nodes, the witness and workers alike: Node.js, Valkey, the CloudWatch agent,
# and the units, which are not enabled: the user data of a later machine does that, when it knows what the machine is to be.
# Run by the builder of scripts/bake-ami.sh, from the bundle in /opt/muster.
set -Eeuo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
etc=${MUSTER_ROOT:-}/etc/muster
mkdir -p "$etc" "${MUSTER_ROOT:-}/usr/local/bin"
# Nothing is known of the machines to come.
: >"$etc/machine.env"
# shellcheck source=deploy/boot/lib/machine.sh
. "$here/lib/machine.sh"

# No stack waits for this machine; whoever started this one reads what it prints.
tell_stack() { :; }
trap 'give_up "line $LINENO of ${BASH_SOURCE[0]##*/} failed: $BASH_COMMAND"' ERR

install_node
install_redis
install_tools openssl tar
if [ ! -x /opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl ] && ! command -v amazon-cloudwatch-agent-ctl >/dev/null; then
  try_often timeout 300 dnf install -y amazon-cloudwatch-agent || give_up 'amazon-cloudwatch-agent cannot be installed'
fi
make_folders
for unit in "$home"/deploy/systemd/*; do install -m 644 "$unit" "$root/etc/systemd/system/"; done
systemctl daemon-reload

# What belongs to this one machine: a copy of it would pass for it.
rm -f "$etc/machine.env" "$root"/etc/ssh/ssh_host_*
# Amazon Linux 2023 has a cloud-init that cannot do this itself. Empty, not removed: systemd writes a new one at the next boot.
cloud-init clean --logs
: >"$root/etc/machine-id"
sync
say 'the image is ready'
