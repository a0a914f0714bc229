# shellcheck shell=bash disable=SC2154
# Sourced by setup.sh: the smoke test, through the load balancer and each node, from here or (where this machine is not let in)
# on the nodes themselves.

smoke_test() {
  if [ "$SMOKE" = no ]; then return 0; fi
  step 'putting a job through each node' '1 to 5 minutes, while a worker boots'
  if [ "$(setting pMaxWorkers)" = 0 ]; then
    say '  left out: there is to be no worker (--max-workers 0)'
    return 0
  fi
  say "  a worker may have to boot for it; up to $SMOKE_MINUTES minutes"
  if find_way; then
    with_key run_smoke "$NODE_URLS" --wait-ms $((SMOKE_MINUTES * 60000)) 2>"$WORK/error" || smoke_failed "$(cat "$WORK/error")"
    return 0
  fi
  if [ -n "${MUSTER_SMOKE_URLS:-}" ]; then smoke_failed "$(cat "$WORK/reach")"; fi
  say "  $WHY_NOT"
  [ "$(setting pSessionManager)" = yes ] || smoke_failed 'this machine is not let in, and the nodes take no commands (--no-sessions)'
  smoke_on_nodes
}

run_smoke() {
  local urls=$1
  shift
  node "$ROOT/deploy/smoke.mjs" --urls "$urls" --ca "$WORK/ca.pem" "$@"
}

smoke_failed() {
  stop_with "$EXIT_SMOKE" "$1" \
    "what is deployed stays; ./setup.sh --status --name $NAME --region $REGION shows how it is, the log groups $(output bootLogGroup) and $(output nodeLogGroup) why. Where this machine has no way to the nodes, open one (--client-cidr, a VPN, a tunnel) and name their URLs in MUSTER_SMOKE_URLS, or leave the test out by --no-smoke"
}

# By Systems Manager: each node tests itself, with the key that it has.
smoke_on_nodes() {
  local deadline instance tested=0
  find_nodes
  # shellcheck disable=SC2086 # a word for each instance
  set -- $INSTANCES
  [ $# -eq 2 ] || smoke_failed "$# of 2 nodes run"
  say '  this machine is not let in: the nodes test themselves, by Systems Manager'
  # shellcheck disable=SC2016 # the PATH of the node
  send_command 'Smoke test of Muster' $((SMOKE_MINUTES * 60 + 60)) \
    'PATH=$PATH:/usr/local/bin node /opt/muster/deploy/smoke.mjs --urls https://127.0.0.1:5000 --key-file /etc/muster/operator-key --ca /etc/muster/tls/ca.crt --wait-ms '$((SMOKE_MINUTES * 60000)) \
    "$@"
  deadline=$((SECONDS + SMOKE_MINUTES * 60 + 180))
  for instance in "$@"; do
    await_command "$instance" "$deadline" || smoke_failed "the node $instance says: $COMMAND_STATUS $COMMAND_SAID"
    case "$COMMAND_SAID" in
    *'a job went in'*) tested=$((tested + 1)) ;;
    esac
  done
  if [ "$tested" = 2 ]; then
    say '  both nodes: a job went in, its value came out'
  else
    say '  both nodes: the command ended well by the word of Systems Manager, which shows no output of it; no job was seen'
  fi
}
