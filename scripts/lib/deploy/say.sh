# shellcheck shell=bash disable=SC2034
# Sourced by setup.sh: what it says, how it ends, and its place for temporary files.

# Exit codes; "setup.sh --help" and docs/deploy.md explain them.
EXIT_USAGE=2 EXIT_TOOL=3 EXIT_ACCESS=4 EXIT_LIMIT=5 EXIT_BUSY=6 EXIT_STACK=7 EXIT_SMOKE=8 EXIT_DECLINED=9
EXIT_BUNDLE=10 EXIT_ABSENT=11 EXIT_UNHEALTHY=12 EXIT_TIMEOUT=13 EXIT_AWS=14 EXIT_INTERRUPTED=130

# What is being done just now: every failure begins with it.
STEP='reading the options'

say() { printf '%s\n' "$*"; }
warn() { printf 'Note: %s\n' "$*" >&2; }

# step <what is being done> [how long that usually takes]: shown, and remembered for a failure. The step before tells how long it
# took, where somebody may have wondered.
step() {
  end_step
  STEP=$1 STEP_AT=$SECONDS
  printf '\n• %s%s\n' "$1" "${2:+ (usually $2)}"
}

end_step() {
  local took=$((SECONDS - ${STEP_AT:-$SECONDS}))
  if [ "$took" -ge 5 ]; then printf '  took %d:%02d\n' $((took / 60)) $((took % 60)); fi
  STEP_AT=$SECONDS
}

# stop_with <exit code> <why> [what to do]: the way out of every failure.
stop_with() {
  end_progress
  printf '\nFailed: %s.\nWhy: %s\n' "$STEP" "$2" >&2
  if [ -n "${3:-}" ]; then printf 'What to do: %s\n' "$3" >&2; fi
  exit "$1"
}

# ask <question>: ends the run unless the answer is yes. --yes answers for scripts.
ask() {
  local answer
  if [ "$YES" = yes ]; then return 0; fi
  printf '\n%s [y/N] ' "$1"
  read -r answer ||
    stop_with "$EXIT_DECLINED" 'nobody is there to be asked' 'add --yes to answer with yes to everything'
  case "$answer" in
  y | Y | yes | Yes | YES) return 0 ;;
  esac
  say 'Nothing was changed.'
  exit "$EXIT_DECLINED"
}

# progress <text>: one line that is written over on a terminal; elsewhere a line whenever it says something new.
progress() {
  local clock
  clock=$(printf '%02d:%02d' $((SECONDS / 60)) $((SECONDS % 60)))
  if [ -t 1 ]; then
    printf '\r\033[K  %s  %s' "$clock" "$(printf '%s' "$1" | cut -c1-$((${COLUMNS:-100} - 10)))"
    PROGRESS=yes
  elif [ "$1" != "${LAST_PROGRESS:-}" ]; then
    printf '  %s  %s\n' "$clock" "$1"
  fi
  LAST_PROGRESS=$1
}

end_progress() {
  if [ "${PROGRESS:-}" = yes ]; then printf '\n'; fi
  PROGRESS='' LAST_PROGRESS=''
}

pause() { sleep "${MUSTER_SETUP_PAUSE:-5}"; }

# Secrets are in files of this folder only, which nobody else may read, and which is gone at the end; that of a run that was
# killed goes with the next one.
make_workplace() {
  local folder name
  for folder in "${TMPDIR:-/tmp}"/muster-setup.*; do
    name=${folder##*/muster-setup.}
    if [ -d "$folder" ] && [ -O "$folder" ] && ! kill -0 "${name%%.*}" 2>/dev/null; then rm -rf "$folder"; fi
  done
  umask 077
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/muster-setup.$$.XXXXXX") ||
    stop_with 1 'no temporary folder can be made' 'set TMPDIR to a folder that you may write to'
  trap 'rm -rf "$WORK"' EXIT
  trap 'interrupted' INT TERM HUP
}

interrupted() {
  trap '' INT TERM HUP
  end_progress
  printf '\nInterrupted: %s.\nWhat AWS has begun, it carries on. Run the same command again: it goes on from there.\n' "$STEP" >&2
  exit "$EXIT_INTERRUPTED"
}
