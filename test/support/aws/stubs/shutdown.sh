#!/usr/bin/env bash
# shutdown, and under other names poweroff, halt and reboot, of a simulated machine: tells the simulator to take it down.
# Knows `now`, `+minutes` and `-c`. Nothing real is ever shut down.
set -u
machine=${SIMULATED_MACHINE:?not on a simulated machine}
off() { echo "[simulator] power off: $1"; : >"$machine/power-off"; }

case "$(basename "$0")" in
poweroff | halt) off "$*"; exit 0 ;;
reboot) echo 'the simulator does not reboot' >&2; exit 1 ;;
esac

when=+1
for argument in "$@"; do
  case "$argument" in
  -c) [ -e "$machine/shutdown-pid" ] && kill "$(cat "$machine/shutdown-pid")" 2>/dev/null; rm -f "$machine/shutdown-pid"; exit 0 ;;
  -r | --reboot) echo 'the simulator does not reboot' >&2; exit 1 ;;
  -*) ;;
  *) when=$argument; break ;;
  esac
done

case "$when" in
now | +0 | 0) off "$*" ;;
+[0-9]*)
  (sleep "$((${when#+} * 60))" && off "$*") >/dev/null 2>&1 &
  echo $! >"$machine/shutdown-pid"
  ;;
*) echo "the simulator does not know when \"$when\" is" >&2; exit 1 ;;
esac
