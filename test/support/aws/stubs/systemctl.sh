#!/usr/bin/env bash
# As much of systemd as a worker's service needs: start, stop, restart, enable --now, is-active, poweroff of *.service.
# A service gets the machine's environment and what its unit says, and nothing that its caller exported.
# Known in units: ExecStartPre, ExecStart, ExecStopPost, Environment, EnvironmentFile, WorkingDirectory, Restart,
# StateDirectory, RestartSec, Requires and Wants of services, StartLimitBurst, StartLimitIntervalSec, Type=oneshot, SuccessAction and FailureAction=poweroff. Other lines are
# passed over.
set -u
machine=${SIMULATED_MACHINE:?not on a simulated machine}
root=$machine/disk
state=$machine/services
mkdir -p "$state"

unit_file() {
  local folder
  for folder in etc usr/lib lib; do
    [ -f "$root/$folder/systemd/system/$1" ] && echo "$root/$folder/systemd/system/$1" && return 0
  done
  return 1
}

# All values of a key in a unit, one a line; a line that ends in a backslash goes on.
values() { sed -e ':a' -e '/\\$/N; s/\\\n/ /; ta' "$1" | sed -n "s/^$2[[:space:]]*=[[:space:]]*//p"; }
value() { values "$1" "$2" | tail -n 1; }
# A number, or seconds; else the third argument.
number() { value "$1" "$2" | sed 's/s$//' | grep -E '^[0-9.]+$' || echo "$3"; }

# What would be below / lies below the machine's disk, if it is there.
rooted() { if [ "${1#/}" != "$1" ] && [ -e "$root$1" ]; then echo "$root$1"; else echo "$1"; fi; }

# A command line of a unit: its prefixes gone, and each path that lies on the machine's disk found there.
command_line() {
  local rest=$1 line='exec '
  while [[ $rest == [-@+!:]* ]]; do rest=${rest:1}; done
  while [[ $rest =~ ^([[:space:]]*)([^[:space:]]+)(.*)$ ]]; do
    rest=${BASH_REMATCH[3]}
    line+=${BASH_REMATCH[1]}$(rooted "${BASH_REMATCH[2]}")
  done
  echo "$line"
}

# Fills the array `environment`: the machine's, then Environment, then EnvironmentFile.
read_environment() {
  local line file assignment assignments=()
  mapfile -t environment <"$machine/environment"
  while IFS= read -r line; do
    # Words in quotes, as in a shell; a $ stands for itself.
    eval "assignments=(${line//\$/\\\$})"
    for assignment in "${assignments[@]}"; do environment+=("$assignment"); done
  done < <(values "$1" Environment)
  while IFS= read -r file; do
    [ -f "$(rooted "${file#-}")" ] || { [ "${file#-}" != "$file" ] && continue; echo "$file is missing" >&2; return 1; }
    while IFS= read -r line || [ -n "$line" ]; do
      [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || continue
      assignment=${line#*=}
      # shellcheck disable=SC2001 # the same in one line of bash cannot be read
      case "$assignment" in
      \"*\") assignment=$(sed 's/\\\(["\\$`]\)/\1/g' <<<"${assignment:1:-1}") ;;
      \'*\') assignment=${assignment:1:-1} ;;
      esac
      environment+=("${line%%=*}=$assignment")
    done <"$(rooted "${file#-}")"
  done < <(values "$1" EnvironmentFile)
}

run() { env -i "${environment[@]}" bash -c "$(command_line "$1")"; }

# Runs one service to its end, with restarts. It is a process of its own, in the background of the machine.
supervise() {
  local name=$1 unit code=0 line action starts=() burst interval
  unit=$(unit_file "$name")
  echo $BASHPID >"$state/$name.supervisor"
  stopping=
  main=
  trap 'stopping=1; [ -n "$main" ] && kill -TERM "$main" 2>/dev/null' TERM
  for line in $(values "$unit" StateDirectory); do mkdir -p "$root/var/lib/$line"; done
  cd "$(rooted "$(value "$unit" WorkingDirectory | grep . || echo /)")" || exit 1
  while :; do
    starts+=("$SECONDS")
    # Those that have ended run again, as a restart has it.
    for line in $(values "$unit" Wants) $(values "$unit" Requires); do
      case "$line" in *.service) unit_file "$line" >/dev/null && start "$line" ;; esac
    done
    read_environment "$unit" || { code=1; break; }
    code=0
    while IFS= read -r line; do run "$line" || { code=$?; break; }; done < <(values "$unit" ExecStartPre)
    # As systemd has it, for each command anew: what runs before may have written it.
    if [ "$code" = 0 ] && read_environment "$unit"; then
      env -i "${environment[@]}" bash -c "$(command_line "$(value "$unit" ExecStart)")" &
      main=$!
      wait "$main"
      code=$?
      # A trap ends the wait before the service has ended.
      while kill -0 "$main" 2>/dev/null; do wait "$main"; code=$?; done
      main=
    fi
    echo "[simulator] $name ended with $code"
    while IFS= read -r line; do run "$line"; done < <(values "$unit" ExecStopPost)
    [ -z "$stopping" ] || break
    case "$(value "$unit" Restart)" in
    always) ;;
    on-failure | on-abnormal) [ "$code" != 0 ] || break ;;
    *) break ;;
    esac
    sleep "$(number "$unit" RestartSec 0.1)"
    [ -z "$stopping" ] || break
    # So many starts in so many seconds, and no more.
    burst=$(number "$unit" StartLimitBurst 5)
    interval=$(number "$unit" StartLimitIntervalSec 10)
    if [ "${#starts[@]}" -ge "$burst" ] && [ $((SECONDS - starts[-burst])) -lt "${interval%.*}" ]; then
      echo "[simulator] $name was started too often"
      break
    fi
  done
  rm -f "$state/$name.supervisor"
  [ -n "$stopping" ] && exit 0
  if [ "$code" = 0 ]; then action=$(value "$unit" SuccessAction); else action=$(value "$unit" FailureAction); fi
  case "$action" in poweroff*) "$machine/bin/poweroff" "$name ended with $code" ;; esac
  exit "$code"
}

is_active() { [ -e "$state/$1.supervisor" ] && kill -0 "$(cat "$state/$1.supervisor")" 2>/dev/null; }

start() {
  local unit
  is_active "$1" && return 0
  unit=$(unit_file "$1") || { echo "Unit $1 not found." >&2; return 5; }
  [ -n "$(value "$unit" ExecStart)" ] || { echo "Unit $1 has no ExecStart; the simulator knows only services." >&2; return 1; }
  if [ "$(value "$unit" Type)" = oneshot ]; then
    (supervise "$1")
  else
    (supervise "$1") </dev/null &
  fi
}

stop() {
  is_active "$1" || return 0
  kill -TERM "$(cat "$state/$1.supervisor")"
  while is_active "$1"; do sleep 0.05; done
}

verb=
now=
names=()
for argument in "$@"; do
  case "$argument" in
  --now) now=1 ;;
  -*) ;;
  *) if [ -z "$verb" ]; then verb=$argument; elif [[ $argument == *.* ]]; then names+=("$argument"); else names+=("$argument.service"); fi ;;
  esac
done

case "$verb" in
daemon-reload | reset-failed) exit 0 ;;
poweroff | halt) exec "$machine/bin/poweroff" systemctl ;;
start | stop | restart | enable | disable | is-active) ;;
*) echo "the simulator's systemctl does not know \"$verb\"" >&2; exit 1 ;;
esac
for name in "${names[@]}"; do
  case "$verb" in
  start) start "$name" || exit ;;
  stop) stop "$name" ;;
  restart) stop "$name"; start "$name" || exit ;;
  enable) unit_file "$name" >/dev/null || { echo "Unit $name not found." >&2; exit 1; }; [ -z "$now" ] || start "$name" || exit ;;
  disable) [ -z "$now" ] || stop "$name" ;;
  is-active) if is_active "$name"; then echo active; else echo inactive; exit 3; fi ;;
  esac
done
