#!/usr/bin/env bash
# Installs what is missing, builds, checks types and style, and runs the tests (all but the long ones, the long ones, or the files given).
# The last line is "N passed, N failed"; the exit code is 0 only if some passed and none failed.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
-h | --help)
  cat <<'HELP'
Usage: scripts/test.sh [--long | test files]

Without files: types, style and all tests but the long ones (test/**/*.long.ts: whole machines, images, backups).
--long: those. With files: only these tests.
HELP
  exit 0
  ;;
esac

# Said when something fails before the tests run; exec below leaves it behind.
trap 'printf "0 passed, 1 failed\n"' EXIT

# shellcheck source=scripts/lib/install.sh
. scripts/lib/install.sh
# The tests run Redis servers of their own, whatever the settings say; and no setting may leak into them.
unset "${!MUSTER_@}"
install_all
# A linter that some tests run. Where it cannot be installed they say so, and in CI they fail.
if ! command -v shellcheck >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
  say 'Installing shellcheck with apt…'
  as_root apt-get install -y --no-install-recommends shellcheck ||
    { as_root apt-get update && as_root apt-get install -y --no-install-recommends shellcheck; } ||
    say 'shellcheck could not be installed; the scripts are not checked.'
fi
build

checks=0
if [ $# -eq 0 ]; then
  say 'Checking types…'
  node_modules/.bin/tsc || checks=1
  say 'Checking style…'
  node_modules/.bin/biome check . || checks=1
fi

files=()
for file in "$@"; do
  case "$file" in
  --long) files+=(--long) ;;
  /*) files+=("$file") ;;
  *) files+=("$here/$file") ;;
  esac
done
CHECKS_FAILED=$checks exec node scripts/run-tests.mjs ${files[@]+"${files[@]}"}
