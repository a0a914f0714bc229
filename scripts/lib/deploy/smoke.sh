# shellcheck shell=bash disable=SC2154
# Sourced by setup.sh: the smoke test, through the load balancer and each node, from here or (where this machine is not let in)
# on the nodes themselves.

smoke_test() {
  local urls key
  if [ "$SMOKE" = no ]; then return 0; fi
  step 'putting a job through each node' '1 to 5 minutes, while a worker boots'
  if [ "$(setting pMaxWorkers)" = 0 ]; then
    say '  left out: there is to be no worker (--max-workers 0)'
    return 0
  fi
  say "  a worker may have to boot for it; up to $SMOKE_MINUTES minutes"
  urls=${MUSTER_SMOKE_URLS:-$(output nodeUrls)}
  if [ -z "${MUSTER_SMOKE_URLS:-}" ] && [ "$(setting pLoadBalancer)" != none ]; then urls="$(output apiUrl),$urls"; fi
  # Whether they can be reached needs no key: none is fetched unless it can be used.
  fetch_authority
  if run_smoke "$urls" --only-reach 2>"$WORK/reach"; then
    key=${MUSTER_SMOKE_KEY_FILE:-}
    if [ -z "$key" ]; then
      key=$WORK/operator-key
      fetch_secret "$(output operatorKeySecret)" "$key"
    fi
    run_smoke "$urls" --key-file "$key" --wait-ms $((SMOKE_MINUTES * 60000)) 2>"$WORK/error" || smoke_failed "$(cat "$WORK/error")"
    rm -f "$WORK/operator-key"
    return 0
  fi
  if [ -n "${MUSTER_SMOKE_URLS:-}" ]; then smoke_failed "$(cat "$WORK/reach")"; fi
  say "  $(head -n 1 "$WORK/reach")"
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

# fetch_secret <id> <file>: straight into a file that nobody else may read.
fetch_secret() {
  save_aws "$2" secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text || fail_aws ''
}

# The authority that signed the certificates of the nodes; the rest of its secret does not stay.
fetch_authority() {
  fetch_secret "muster/$NAME/redis" "$WORK/redis.json"
  node -e 'const fs = require("fs"); fs.writeFileSync(process.argv[2], JSON.parse(fs.readFileSync(process.argv[1], "utf8")).caCertificate)' \
    "$WORK/redis.json" "$WORK/ca.pem" || stop_with "$EXIT_STACK" "the secret muster/$NAME/redis is not what it was" 'restore its value from its previous version'
  rm -f "$WORK/redis.json"
}

# By Systems Manager: each node tests itself, with the key that it has. Nothing secret is in the command.
smoke_on_nodes() {
  local instances command deadline instance
  call_aws ec2 describe-instances --filters "Name=tag:muster:deployment,Values=$NAME" "Name=tag:Name,Values=$NAME-node-a,$NAME-node-b" \
    Name=instance-state-name,Values=running --query 'Reservations[].Instances[].[InstanceId]'
  instances=$REPLY
  # shellcheck disable=SC2086 # a word for each instance
  set -- $instances
  [ $# -eq 2 ] || smoke_failed "$# of 2 nodes run"
  say '  this machine is not let in: the nodes test themselves, by Systems Manager'
  cat >"$WORK/command.json" <<JSON
{"commands": ["PATH=\$PATH:/usr/local/bin node /opt/muster/deploy/smoke.mjs --urls https://127.0.0.1:5000 --key-file /etc/muster/operator-key --ca /etc/muster/tls/ca.crt --wait-ms $((SMOKE_MINUTES * 60000))"],
 "executionTimeout": ["$((SMOKE_MINUTES * 60 + 60))"]}
JSON
  call_aws ssm send-command --instance-ids "$@" --document-name AWS-RunShellScript --timeout-seconds 120 \
    --parameters "file://$WORK/command.json" --comment 'Smoke test of Muster' --query Command.CommandId
  command=$REPLY
  deadline=$((SECONDS + SMOKE_MINUTES * 60 + 180)) TESTED=0
  for instance in "$@"; do await_command "$command" "$instance" "$deadline"; done
  if [ "$TESTED" = 2 ]; then
    say '  both nodes: a job went in, its value came out'
  else
    say '  both nodes: the command ended well by the word of Systems Manager, which shows no output of it; no job was seen'
  fi
}

# await_command <command> <instance> <deadline>
await_command() {
  local status='Pending'
  while :; do
    # Right after it was sent, a command is not known everywhere.
    if try_aws ssm get-command-invocation --command-id "$1" --instance-id "$2" --query '[Status,StandardErrorContent,StandardOutputContent]'; then
      status=$(printf '%s' "$REPLY" | head -n 1 | cut -f 1)
    elif [ "$AWS_CODE" != InvocationDoesNotExist ]; then
      fail_aws ''
    fi
    case "$status" in
    Success)
      case "$REPLY" in
      *'a job went in'*) TESTED=$((TESTED + 1)) ;;
      esac
      break
      ;;
    Pending | InProgress | Delayed) ;;
    *) smoke_failed "the node $2 says: $status $(printf '%s' "$REPLY" | cut -f 2-)" ;;
    esac
    if [ "$SECONDS" -ge "$3" ]; then smoke_failed "the node $2 does not finish its test: $status"; fi
    progress "on the node $2: $status"
    pause
  done
  end_progress
}
