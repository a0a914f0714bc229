#!/usr/bin/env bash
# Builds, and packs the bundle that nodes, the witness and workers on AWS run: one for arm64 and x86-64, the same bytes for the
# same code. Prints its SHA-256 and its version.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
-h | --help | '')
  printf 'Usage: scripts/bundle.sh FILE\n\nInstalls what is missing, builds, and writes the bundle: ./setup.sh --bundle FILE deploys it.\n'
  if [ $# -eq 0 ]; then exit 2; fi
  exit 0
  ;;
/*) file=$1 ;;
*) file=$here/$1 ;;
esac

# shellcheck source=scripts/lib/install.sh
. scripts/lib/install.sh
need_node
install_packages
build
exec node scripts/make-bundle.mjs "$file"
