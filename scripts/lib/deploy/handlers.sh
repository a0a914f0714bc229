# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by setup.sh: your own handlers (--handlers), bundled and looked at before anything is made, and handed to the nodes once
# they are there. The queue keeps them: nodes and workers that come later have them, too, and no machine is replaced for them.

# bundle_handlers: HANDLERS_FILE, HANDLERS_SHA256 and HANDLERS_TYPES.
bundle_handlers() {
  local cli=$ROOT/dist/cli.js made
  if [ -z "$HANDLERS" ]; then return 0; fi
  step 'bundling the handlers'
  # With --bundle nothing may be built here: that one takes what "muster handlers bundle" has made.
  if [ ! -f "$cli" ]; then cli=$WORK/code/dist/cli.js; fi
  HANDLERS_FILE=$WORK/handlers.mjs
  made=$(node "$cli" handlers bundle "$HANDLERS" --out "$HANDLERS_FILE" 2>"$WORK/error") ||
    stop_with "$EXIT_BUNDLE" "$(tail -n 20 "$WORK/error")" 'mend the handlers; nothing was changed'
  HANDLERS_SHA256=${made%% *} HANDLERS_TYPES=${made#* }
  say "  $HANDLERS, $(($(wc -c <"$HANDLERS_FILE") / 1024 + 1)) kB, SHA-256 $(printf '%s' "$HANDLERS_SHA256" | cut -c 1-16)…"
}

hand_over_handlers() {
  if [ -z "$HANDLERS" ]; then return 0; fi
  step 'handing the handlers to the nodes' 'below a minute'
  if find_way; then
    with_key put_handlers 2>"$WORK/error" || handlers_failed "$(cat "$WORK/error")"
    return 0
  fi
  if [ -n "${MUSTER_SMOKE_URLS:-}" ]; then handlers_failed "$(cat "$WORK/reach")"; fi
  say "  $WHY_NOT"
  [ "$(setting pSessionManager)" = yes ] || handlers_failed 'this machine is not let in, and the nodes take no commands (--no-sessions)'
  hand_over_by_nodes
}

put_handlers() {
  node "$ROOT/deploy/put-handlers.mjs" --urls "$NODE_URLS" --ca "$WORK/ca.pem" --file "$HANDLERS_FILE" --sha256 "$HANDLERS_SHA256" "$@"
}

handlers_failed() {
  stop_with "$EXIT_SMOKE" "$1" \
    "what is deployed stays, with the handlers that it had; run the same command again. Where this machine has no way to the nodes, open one (--client-cidr, a VPN, a tunnel) and name their URLs in MUSTER_SMOKE_URLS"
}

# By way of the bucket: one node fetches them, looks at their digest, and takes them for all.
hand_over_by_nodes() {
  local key=handlers/$HANDLERS_SHA256.mjs file=/run/muster-handlers.mjs instance said=''
  find_nodes
  [ -n "$INSTANCES" ] || handlers_failed 'no node runs'
  say '  this machine is not let in: a node fetches them, by Systems Manager'
  upload "$key" "$HANDLERS_FILE"
  for instance in $INSTANCES; do
    # shellcheck disable=SC2016 # the PATH of the node
    send_command 'Handlers for Muster' 300 \
      'set -e; PATH=$PATH:/usr/local/bin; '"trap 'rm -f $file' EXIT; aws s3api get-object --bucket $BUCKET --key $key --region $REGION $file >/dev/null; node /opt/muster/deploy/put-handlers.mjs --urls https://127.0.0.1:5000 --key-file /etc/muster/operator-key --ca /etc/muster/tls/ca.crt --file $file --sha256 $HANDLERS_SHA256" \
      "$instance"
    if await_command "$instance" $((SECONDS + 420)); then
      case "$COMMAND_SAID" in
      *"$HANDLERS_SHA256"*) say "  the node $instance took them, for all" ;;
      *) say "  the node $instance: the command ended well by the word of Systems Manager, which shows no output of it" ;;
      esac
      # The queue has them.
      try_aws s3api delete-object --bucket "$BUCKET" --key "$key" || true
      return 0
    fi
    said="$said the node $instance says: $COMMAND_STATUS $COMMAND_SAID"
  done
  handlers_failed "${said# }"
}
