#!/usr/bin/env bash
# What a machine at its boot calls and this one must not have done: writes each call into $STUB_STATE/calls, and does as much
# of it as the boot needs. Linked under the names of the programs that it stands for.
set -u
name=$(basename "$0")
state=${STUB_STATE:?not at a boot under test}
echo "$name $*" >>"$state/calls"

case "$name $*" in
"aws s3 cp "*)
  # The third of them works, when the test wants that.
  if [ -f "$state/s3-fails" ] && [ "$(grep -c '^aws s3' "$state/calls")" -lt 3 ]; then exit 1; fi
  cp "$state/bundle.tgz" "${@: -1}"
  ;;
"aws secretsmanager get-secret-value --secret-id "*)
  cat "$state/secrets/${4##*:secret:}"
  ;;
"aws ssm get-parameter --name "*)
  [ ! -f "$state/ssm-fails" ] || exit 1
  cat "$state/parameters/$4"
  ;;
"getent passwd muster") [ -f "$state/has-user" ] ;;
"useradd "*) touch "$state/has-user" ;;
"dnf install -y nodejs22") exit 1 ;;
"dnf install -y nodejs20") ln -s "${STUB_NODE:?}" "$state/bin/node" ;;
"dnf install -y valkey") ln -s /bin/true "$state/bin/valkey-server" ;;
"systemctl is-active "*) [ ! -f "$state/redis-is-down" ] ;;
"curl "*) [ ! -f "$state/node-is-not-ready" ] ;;
esac
