# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by setup.sh: the stack. Its own state is the lock between two runs, and tells a later run what an earlier one began:
#
#   none, or a first deployment that failed ─▶ made ─▶ CREATE_COMPLETE ─▶ change set ─▶ UPDATE_COMPLETE ─▶ deleted
#   …_IN_PROGRESS: waited for, whoever began it         UPDATE_ROLLBACK_FAILED: the roll back is carried on, once

# look_at_stack: STATE (none when there is no stack), STACK_ID and REASON; its parameters and outputs in $WORK. 1 when AWS does
# not tell.
look_at_stack() {
  if ! save_aws "$WORK/stack.json" cloudformation describe-stacks --stack-name "${STACK_ID:-$NAME}" --output json; then
    case "$AWS_MESSAGE" in
    *'does not exist'*) forget_stack && return 0 ;;
    esac
    return 1
  fi
  {
    read -r STATE
    read -r STACK_ID
    read -r REASON || true
  } <<STACK
$(node "$ROOT/scripts/lib/deploy/read-stack.mjs" "$WORK/stack.json" "$WORK/deployed" "$WORK/outputs")
STACK
  # Known by its id, a stack is still told of when it is gone.
  if [ "$STATE" = DELETE_COMPLETE ]; then forget_stack; fi
}

forget_stack() {
  STATE=none STACK_ID='' REASON=''
  : >"$WORK/deployed"
  : >"$WORK/outputs"
}

in_progress() {
  case "$STATE" in
  # Only a change set that nobody carried out: there is no stack.
  REVIEW_IN_PROGRESS) return 1 ;;
  *_IN_PROGRESS) return 0 ;;
  esac
  return 1
}

# Whether there is nothing that could be updated.
must_be_made() {
  case "$STATE" in
  none | ROLLBACK_COMPLETE | ROLLBACK_FAILED | CREATE_FAILED | REVIEW_IN_PROGRESS) return 0 ;;
  esac
  return 1
}

# settle_stack: comes back when the stack can be made or updated.
settle_stack() {
  look_at_stack || fail_aws ''
  if in_progress; then
    [ "$WAIT" = yes ] ||
      stop_with "$EXIT_BUSY" "the stack $NAME is $STATE: another run is under way" 'wait for its end, or leave --no-wait out'
    say "  the stack is $STATE, by another run or one that was interrupted: waits for its end"
    wait_for_stack
    case "$STATE" in
    # What has just failed is told, not tried again at once: the next run begins anew.
    ROLLBACK_COMPLETE | ROLLBACK_FAILED | CREATE_FAILED) stack_failed ;;
    esac
  fi
  case "$STATE" in
  DELETE_FAILED)
    show_failures
    stop_with "$EXIT_STACK" "the stack $NAME could not be deleted (DELETE_FAILED)" "finish that first: ./setup.sh --delete --name $NAME --region $REGION"
    ;;
  UPDATE_ROLLBACK_FAILED)
    say '  the update before failed, and so did its roll back: carries that on'
    show_failures
    call_aws cloudformation continue-update-rollback --stack-name "$NAME"
    wait_for_stack
    if [ "$STATE" = UPDATE_ROLLBACK_FAILED ]; then
      show_failures
      stop_with "$EXIT_STACK" 'the roll back failed again' \
        "mend what stands above, or leave it as it is: aws cloudformation continue-update-rollback --region $REGION --stack-name $NAME --resources-to-skip <names>"
    fi
    ;;
  UPDATE_FAILED)
    say '  the update before stopped half-way: takes it back'
    call_aws cloudformation rollback-stack --stack-name "$NAME" --query StackId
    wait_for_stack
    ;;
  esac
}

# wait_for_stack: until it is in no progress any more. A call that fails meanwhile is no end of it.
wait_for_stack() {
  local deadline=$((SECONDS + TIMEOUT_MINUTES * 60)) misses=0
  while :; do
    if look_at_stack; then
      misses=0
      in_progress || break
      count_resources
    else
      misses=$((misses + 1))
      if [ "$misses" -ge 5 ]; then fail_aws ''; fi
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      stop_with "$EXIT_TIMEOUT" "the stack is still $STATE after $TIMEOUT_MINUTES minutes" \
        'AWS carries on; run the same command again to go on waiting (--timeout for longer)'
    fi
    pause
  done
  end_progress
}

count_resources() {
  local counts='' now=''
  if try_aws cloudformation list-stack-resources --stack-name "${STACK_ID:-$NAME}" \
    --query 'StackResourceSummaries[].[ResourceStatus,LogicalResourceId]'; then
    counts=$(printf '%s\n' "$REPLY" | awk '$1 ~ /_COMPLETE$/ { done += 1 } END { print done + 0 " of " NR " parts" }')
    now=$(printf '%s\n' "$REPLY" | awk '$1 ~ /_IN_PROGRESS$/ { print $2 }' | head -n 3 | tr '\n' ' ')
  fi
  progress "$STATE  $counts${now:+; now $now}"
  case "$now" in
  *Group*) warn_of_launches ;;
  esac
}

# warn_of_launches: said once: the group tries again, and the stack waits for 20 minutes.
warn_of_launches() {
  failed_launches
  if [ -z "$REPLY" ] || [ "$REPLY" = "${LAUNCHES_SAID:-}" ]; then return 0; fi
  LAUNCHES_SAID=$REPLY
  end_progress
  say '  A machine cannot be launched; its group tries again:'
  say "$REPLY"
}

# show_failures: what failed in the last change of the stack, the first one first; the others mostly follow from it.
show_failures() {
  try_aws cloudformation describe-stack-events --stack-name "${STACK_ID:-$NAME}" --max-items 300 \
    --query 'StackEvents[].[ResourceStatus,ResourceType,LogicalResourceId,ResourceStatusReason]' || return 0
  say '  What failed, the first one first:'
  printf '%s\n' "$REPLY" | awk -F '\t' '
    NF < 3 { next }
    $1 ~ /_FAILED$/ && $4 !~ /cancelled|canceled/ { seen += 1; lines[seen] = "    " $3 " (" $2 "): " $4 }
    $2 == "AWS::CloudFormation::Stack" && $1 ~ /^(CREATE|UPDATE|DELETE)_IN_PROGRESS$/ { exit }
    END { for (at = seen; at > 0 && at > seen - 6; at -= 1) print lines[at]; if (seen == 0) print "    CloudFormation does not tell" }'
  show_launches
}

# failed_launches: in REPLY, the last words of each group that could not launch its machine, which the stack only waits for.
failed_launches() {
  try_aws autoscaling describe-scaling-activities --max-items 30 --query \
    "Activities[?StatusCode=='Failed'&&starts_with(AutoScalingGroupName,'$NAME-')].[AutoScalingGroupName,StatusMessage]" || REPLY=''
  REPLY=$(printf '%s\n' "$REPLY" | awk -F '\t' 'NF >= 2 && !seen[$1]++ { print "    " $1 ": " $2 }')
}

show_launches() {
  failed_launches
  if [ -n "$REPLY" ]; then say '  Machines that could not be launched:' && say "$REPLY"; fi
}

# What a failure of one of these mostly means.
explain_failures() {
  printf 'mend what stands first above, and run the same command again. Where a machine sent no signal or a failing one, its log is in CloudWatch (the group bootLogs), as long as the stack is there: --keep-failed leaves a first deployment for you to look at'
}

# deploy_stack: makes the stack, or updates it by a change set that is shown first.
deploy_stack() {
  local try
  for try in 1 2 3; do
    step "deploying the stack $NAME" "$(if must_be_made; then echo '10 to 20 minutes'; else echo '2 minutes, 15 to 25 where machines are replaced'; fi)"
    settle_stack
    if must_be_made; then
      make_stack && break
    else
      update_stack && break
    fi
    # Another run was faster.
    [ "$WAIT" = yes ] || stop_with "$EXIT_BUSY" 'another run is under way' 'wait for its end, or leave --no-wait out'
    [ "$try" -lt 3 ] || stop_with "$EXIT_BUSY" 'other runs come first again and again' 'let one run deploy at a time'
  done
  case "$STATE" in
  CREATE_COMPLETE | UPDATE_COMPLETE) ;;
  UPDATE_ROLLBACK_COMPLETE | IMPORT_*) [ "$UPDATED" = nothing ] || stack_failed ;;
  *) stack_failed ;;
  esac
}

stack_failed() {
  show_failures
  case "$STATE" in
  UPDATE_ROLLBACK_COMPLETE) stop_with "$EXIT_STACK" 'the update failed and was taken back: what ran before runs on' "$(explain_failures)" ;;
  ROLLBACK_COMPLETE | none) stop_with "$EXIT_STACK" 'the stack could not be made; what there was of it is removed' "$(explain_failures)" ;;
  esac
  stop_with "$EXIT_STACK" "the stack is $STATE. $REASON" "$(explain_failures)"
}

make_stack() {
  local failure=ROLLBACK
  if [ "$STATE" != none ]; then
    say "  a deployment before failed ($STATE): removes what is left of it"
    call_aws cloudformation delete-stack --stack-name "$NAME"
    wait_for_stack
    if [ "$STATE" != none ]; then stack_failed; fi
  fi
  if [ "$KEEP_FAILED" = yes ]; then failure=DO_NOTHING; fi
  STACK_ID=''
  if ! try_aws cloudformation create-stack --stack-name "$NAME" --template-url "$TEMPLATE_URL" --on-failure "$failure" \
    --parameters "file://$WORK/parameters.json" --capabilities CAPABILITY_IAM --tags "Key=muster:deployment,Value=$NAME" \
    --query StackId; then
    if [ "$AWS_CODE" = AlreadyExistsException ]; then return 1; fi
    fail_aws "$(explain_failures)"
  fi
  STACK_ID=$REPLY UPDATED=all
  wait_for_stack
}

update_stack() {
  local set=muster-$$-$RANDOM
  UPDATED=nothing
  make_change_set "$set" || return 1
  if [ "$CHANGES" = none ]; then
    say '  nothing has changed'
    return 0
  fi
  show_changes
  ask_or_forget "$set"
  if ! try_aws cloudformation execute-change-set --stack-name "$NAME" --change-set-name "$set"; then
    case "$AWS_CODE" in
    InvalidChangeSetStatus* | ChangeSetNotFound*) return 1 ;;
    esac
    fail_aws ''
  fi
  UPDATED=changed
  wait_for_stack
}

# make_change_set <name>: CHANGES, in $WORK/changes. 1 when the stack is being changed by another run.
make_change_set() {
  local status='' tries=0
  if ! try_aws cloudformation create-change-set --stack-name "$NAME" --change-set-name "$1" --change-set-type UPDATE \
    --template-url "$TEMPLATE_URL" --parameters "file://$WORK/parameters.json" --capabilities CAPABILITY_IAM \
    --tags "Key=muster:deployment,Value=$NAME" --query Id; then
    case "$AWS_MESSAGE" in
    *IN_PROGRESS*) return 1 ;;
    esac
    fail_aws "$(explain_failures)"
  fi
  while :; do
    call_aws cloudformation describe-change-set --stack-name "$NAME" --change-set-name "$1" --query '[Status,StatusReason]'
    status=$(printf '%s' "$REPLY" | cut -f 1)
    case "$status" in
    CREATE_COMPLETE) break ;;
    FAILED) break ;;
    esac
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || stop_with "$EXIT_TIMEOUT" 'CloudFormation does not work out what would change' 'run the same command again'
    pause
  done
  if [ "$status" = FAILED ]; then
    case "$REPLY" in
    *"didn't contain changes"* | *'No updates are to be performed'*) CHANGES=none ;;
    *) stop_with "$EXIT_STACK" "the change set failed: $(printf '%s' "$REPLY" | cut -f 2)" "$(explain_failures)" ;;
    esac
    forget_change_set "$1"
    return 0
  fi
  CHANGES=some
  call_aws cloudformation describe-change-set --stack-name "$NAME" --change-set-name "$1" \
    --query 'Changes[].ResourceChange.[Action,Replacement,LogicalResourceId,ResourceType]'
  printf '%s\n' "$REPLY" >"$WORK/changes"
}

show_changes() {
  local lines machines
  lines=$(awk -F '\t' 'NF >= 4 { print "    " $1 ($2 == "True" ? ", by a new one" : "") ": " $3 " (" $4 ")" }' "$WORK/changes")
  if [ -z "$lines" ]; then
    say '  What changes: CloudFormation does not say which parts'
    return 0
  fi
  say '  What changes:'
  say "$lines"
  machines=$(awk -F '\t' '$3 ~ /^(witness|nodeA|nodeB)LaunchTemplate$/ { sub("LaunchTemplate", "", $3); print $3 }' "$WORK/changes" | tr '\n' ' ')
  if [ -n "$machines" ]; then
    say "  Machines that are replaced, one after the other: ${machines% } (a new bundle, image, type or setting of theirs); the queue and its jobs stay"
  else
    say '  No machine is replaced.'
  fi
  if cut -f 3 "$WORK/changes" | grep -qx fleetSettings; then say '  The nodes take the settings of the fleet over within a minute or two.'; fi
}

ask_or_forget() {
  if [ "$YES" = yes ]; then return 0; fi
  (ask 'Change that?') || {
    forget_change_set "$1"
    exit "$EXIT_DECLINED"
  }
}

forget_change_set() { try_aws cloudformation delete-change-set --stack-name "$NAME" --change-set-name "$1" || return 0; }

# output <name>: of the stack, as it was looked at last.
output() { awk -F '\t' -v name="$1" '$1 == name { print $2 }' "$WORK/outputs"; }
