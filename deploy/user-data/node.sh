#!/bin/bash
# User data of a node and of the witness: fetches the bundle, checks it, and hands over to deploy/boot in it.
# The stack writes the settings of the machine; nothing in them is secret. Whatever fails is told to the stack.
# Everything is written below MUSTER_ROOT, which is empty on a real machine.
set -Eeuo pipefail
umask 022
PATH=$PATH:/opt/aws/bin
root=$(printenv MUSTER_ROOT || true)
mkdir -p "$root/etc/muster" "$root/opt"
cat >"$root/etc/muster/machine.env" <<'SETTINGS'
@@SETTINGS@@
SETTINGS
# shellcheck source=/dev/null
. "$root/etc/muster/machine.env"

give_up() {
  trap - ERR
  echo "muster: this machine cannot start: $1"
  timeout 60 cfn-signal --success false --reason "$1" --stack "$STACK" --resource "$SIGNAL" --region "$AWS_REGION" || true
  exit 1
}
trap 'give_up "line $LINENO of the user data failed"' ERR

command -v aws >/dev/null || timeout 300 dnf install -y awscli-2
archive=$(mktemp)
for try in 1 2 3 4 5 6; do
  if timeout 300 aws s3 cp --only-show-errors --region "$AWS_REGION" "$BUNDLE" "$archive"; then break; fi
  if [ "$try" = 6 ]; then give_up "the bundle $BUNDLE cannot be fetched"; fi
  sleep $((try * 3 + RANDOM % 5))
done
echo "$BUNDLE_SHA256  $archive" | sha256sum --check --quiet || give_up "the bundle $BUNDLE is not the one that was deployed"
rm -rf "$root/opt/muster.new"
mkdir "$root/opt/muster.new"
tar -xzf "$archive" -C "$root/opt/muster.new" --no-same-owner
chmod -R a+rX "$root/opt/muster.new"
rm -rf "$root/opt/muster" "$archive"
mv "$root/opt/muster.new" "$root/opt/muster"
exec bash "$root/opt/muster/deploy/boot/$ROLE-boot.sh"
