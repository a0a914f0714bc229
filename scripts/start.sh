#!/usr/bin/env bash
# Installs what is missing, builds, and starts a node.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

case "${1:-}" in
-h | --help)
  cat <<'HELP'
Usage: scripts/start.sh [options of "muster node"]

Installs what is missing (npm packages; redis-server by apt, dnf or brew), builds,
and starts one node with a Redis of its own and local workers on http://127.0.0.1:5000.
Ctrl-C stops all of it. Jobs and results are kept in .muster of this repository for the next start.

Settings are environment variables; "node dist/cli.js settings" prints them all:
  MUSTER_PORT=5001 scripts/start.sh                          another port
  MUSTER_REDIS_URL=redis://10.0.0.5:6379 scripts/start.sh    a Redis of yours
  scripts/start.sh --handlers ./my-handlers.js               your own types of jobs
HELP
  exit 0
  ;;
esac

# shellcheck source=scripts/lib/install.sh
. scripts/lib/install.sh
install_all
build

# Jobs and results are found again wherever this is called from; other paths are meant from where the user is.
export MUSTER_DATA_DIR="${MUSTER_DATA_DIR:-$root/.muster}"
# exec: signals reach the node itself.
cd "$here"
# A larger young generation: a node makes much that is soon forgotten, and spends a tenth less of its time on that.
exec node --max-semi-space-size=32 "$root/dist/cli.js" node "$@"
