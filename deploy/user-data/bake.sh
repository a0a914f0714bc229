#!/bin/bash
# User data of the builder of an image: fetches the bundle, checks it, prepares the machine, and powers it off. What it says last
# on the console tells scripts/bake-ami.sh how it went. The URL holds for an hour, and the bundle holds no secret.
set -Eeuo pipefail
umask 022
root=$(printenv MUSTER_ROOT || true)
bundle_url='@@BUNDLE_URL@@'
bundle_sha256='@@BUNDLE_SHA256@@'

end() {
  trap - ERR
  echo "muster-bake: $1"
  if [ -z "$root" ] && [ -w /dev/console ]; then echo "muster-bake: $1" >/dev/console; fi
  sync
  shutdown -h now || poweroff
  exit "$2"
}
trap 'end "failed: line $LINENO of the user data" 1' ERR

archive=$(mktemp)
curl --silent --show-error --fail --location --connect-timeout 5 --max-time 300 --retry 5 --retry-connrefused \
  --output "$archive" "$bundle_url" || end 'failed: the bundle cannot be fetched' 1
echo "$bundle_sha256  $archive" | sha256sum --check --quiet || end 'failed: the bundle is not the one that was uploaded' 1
mkdir -p "$root/opt/muster"
tar -xzf "$archive" -C "$root/opt/muster" --no-same-owner
chmod -R a+rX "$root/opt/muster"
rm -f "$archive"
said=$(mktemp)
if ! timeout 1500 bash "$root/opt/muster/deploy/boot/make-image.sh" >"$said" 2>&1; then
  cat "$said"
  end "failed: $(tail -n 1 "$said")" 1
fi
cat "$said"
rm -f "$said"
end ready 0
