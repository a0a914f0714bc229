# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by setup.sh: the way to the nodes, from here or (where this machine is not let in) by Systems Manager on the nodes.

# find_way: NODE_URLS, and 0 when this machine reaches them; else WHY_NOT. Neither takes a key: none is fetched unless it can be used.
find_way() {
  NODE_URLS=${MUSTER_SMOKE_URLS:-$(output nodeUrls)}
  if [ -z "${MUSTER_SMOKE_URLS:-}" ] && [ "$(setting pLoadBalancer)" != none ]; then NODE_URLS="$(output apiUrl),$NODE_URLS"; fi
  fetch_authority
  if run_smoke "$NODE_URLS" --only-reach 2>"$WORK/reach"; then return 0; fi
  WHY_NOT=$(head -n 1 "$WORK/reach")
  return 1
}

# with_key <command…>: the command with --key-file and a file that has the operator key, which is gone afterwards.
with_key() {
  local key=${MUSTER_SMOKE_KEY_FILE:-} code=0
  if [ -z "$key" ]; then
    key=$WORK/operator-key
    fetch_secret "$(output operatorKeySecret)" "$key"
  fi
  "$@" --key-file "$key" || code=$?
  rm -f "$WORK/operator-key"
  return "$code"
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

# find_nodes: INSTANCES, those of the two nodes that run.
find_nodes() {
  call_aws ec2 describe-instances --filters "Name=tag:muster:deployment,Values=$NAME" "Name=tag:Name,Values=$NAME-node-a,$NAME-node-b" \
    Name=instance-state-name,Values=running --query 'Reservations[].Instances[].[InstanceId]'
  INSTANCES=$REPLY
}

# send_command <comment> <seconds> <command> <instance>…: COMMAND_ID. Nothing secret may be in the command: it can be read in AWS.
send_command() {
  local comment=$1 seconds=$2 text=$3
  shift 3
  node -e 'const [text, seconds] = process.argv.slice(1); process.stdout.write(JSON.stringify({ commands: [text], executionTimeout: [seconds] }))' \
    "$text" "$seconds" >"$WORK/command.json"
  call_aws ssm send-command --instance-ids "$@" --document-name AWS-RunShellScript --timeout-seconds 120 \
    --parameters "file://$WORK/command.json" --comment "$comment" --query Command.CommandId
  COMMAND_ID=$REPLY
}

# await_command <instance> <deadline>: COMMAND_STATUS and COMMAND_SAID; 0 when the command has ended well there.
await_command() {
  COMMAND_STATUS=Pending COMMAND_SAID=''
  while :; do
    # Right after it was sent, a command is not known everywhere.
    if try_aws ssm get-command-invocation --command-id "$COMMAND_ID" --instance-id "$1" --query '[Status,StandardErrorContent,StandardOutputContent]'; then
      COMMAND_STATUS=$(printf '%s' "$REPLY" | head -n 1 | cut -f 1)
      COMMAND_SAID=$(printf '%s' "$REPLY" | cut -f 2-)
    elif [ "$AWS_CODE" != InvocationDoesNotExist ]; then
      fail_aws ''
    fi
    case "$COMMAND_STATUS" in
    Pending | InProgress | Delayed) ;;
    *) break ;;
    esac
    if [ "$SECONDS" -ge "$2" ]; then
      COMMAND_SAID='it does not finish in time'
      break
    fi
    progress "on the node $1: $COMMAND_STATUS"
    pause
  done
  end_progress
  [ "$COMMAND_STATUS" = Success ]
}
