# shellcheck shell=bash disable=SC2154
# Sourced by setup.sh: takes a deployment away, in the order in which nothing is started anew meanwhile: nodes, workers, payloads,
# stack, then what was there before the stack. Every part may be gone already; run again, it goes on.

delete_all() {
  local data='' bucket
  step "looking at $NAME"
  BUCKET=$NAME-muster-$ACCOUNT-$REGION
  look_at_stack || fail_aws ''
  if [ "$STATE" != none ]; then
    # Those of payloads and of backups.
    resources "ResourceType=='AWS::S3::Bucket'"
    data=$REPLY
    workers pending,running,stopping,stopped
    say "  stack $NAME ($STATE), $(printf '%s' "$REPLY" | grep -c . || true) workers"
  else
    say "  there is no stack $NAME; looks for what may be left of it"
  fi
  if [ -n "$data" ] && [ "$KEEP_DATA" = no ]; then
    say '  All jobs are deleted, and so are payloads, results and backups; there is no way back. --keep-data keeps these buckets:'
    for bucket in $data; do say "    s3://$bucket"; done
  fi
  ask "Delete the deployment $NAME in $REGION, account $ACCOUNT?"
  if [ "$STATE" != none ]; then
    settle_for_delete
    stop_nodes
  fi
  end_workers
  if [ "$KEEP_DATA" = no ]; then
    for bucket in $data; do
      step "emptying the bucket $bucket"
      empty_bucket "$bucket"
    done
  fi
  delete_stack
  delete_rest
  step 'done'
  say "  nothing of $NAME runs or costs anything any more. Its log groups went with the stack."
  if [ "$KEEP_DATA" = yes ]; then
    for bucket in $data; do
      if try_aws s3api head-bucket --bucket "$bucket" --expected-bucket-owner "$ACCOUNT"; then
        say "  Kept, at the price of what it holds: s3://$bucket"
      fi
    done
  fi
}

# resources <condition>: the physical names of those that are still there, in REPLY.
resources() {
  call_aws cloudformation list-stack-resources --stack-name "${STACK_ID:-$NAME}" \
    --query "StackResourceSummaries[?$1&&ResourceStatus!='DELETE_COMPLETE'&&PhysicalResourceId].[PhysicalResourceId]"
}

# Workers have a tag of their pool; nodes and witness have none.
workers() {
  call_aws ec2 describe-instances --filters "Name=tag:muster:deployment,Values=$NAME" Name=tag-key,Values=muster:pool \
    "Name=instance-state-name,Values=$1" --query 'Reservations[].Instances[].[InstanceId]'
}

settle_for_delete() {
  if in_progress && [ "$STATE" != DELETE_IN_PROGRESS ]; then
    [ "$WAIT" = yes ] || stop_with "$EXIT_BUSY" "the stack $NAME is $STATE: another run is under way" 'wait for its end, or leave --no-wait out'
    say "  the stack is $STATE: waits for its end first"
    wait_for_stack
  fi
}

# A node launches workers as long as jobs wait: so the nodes go first.
stop_nodes() {
  local group groups
  step 'ending the nodes, so that nothing is launched any more'
  resources "ResourceType=='AWS::AutoScaling::AutoScalingGroup'&&starts_with(LogicalResourceId,'node')"
  groups=$REPLY
  for group in $groups; do
    try_aws autoscaling update-auto-scaling-group --auto-scaling-group-name "$group" --min-size 0 --desired-capacity 0 || {
      # Gone already, or just going.
      [ "$AWS_CODE" = ValidationError ] || fail_aws ''
    }
  done
  wait_for_end node "Name=tag:Name,Values=$NAME-node-a,$NAME-node-b" Name=instance-state-name,Values=pending,running
}

end_workers() {
  step 'ending the workers'
  workers pending,running,stopping,stopped
  if [ -n "$REPLY" ]; then
    # shellcheck disable=SC2086 # a word for each instance, as many as a call takes
    printf '%s\n' $REPLY | xargs -n 500 >"$WORK/workers"
    while read -r ids; do
      # shellcheck disable=SC2086
      call_aws ec2 terminate-instances --instance-ids $ids --query 'TerminatingInstances[].InstanceId'
    done <"$WORK/workers"
  fi
  # Their network interfaces hold the security group of the stack until they are gone for good.
  wait_for_end worker Name=tag-key,Values=muster:pool Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down
}

# wait_for_end <what> <filters of instances…>
wait_for_end() {
  local what=$1 left deadline=$((SECONDS + 900))
  shift
  while :; do
    call_aws ec2 describe-instances --filters "Name=tag:muster:deployment,Values=$NAME" "$@" --query 'Reservations[].Instances[].[InstanceId]'
    left=$(printf '%s' "$REPLY" | grep -c . || true)
    if [ "$left" = 0 ]; then break; fi
    [ "$SECONDS" -lt "$deadline" ] || stop_with "$EXIT_TIMEOUT" "$left ${what}s do not end: $(printf '%s' "$REPLY" | tr '\n' ' ')" 'run the same command again'
    progress "$left ${what}s are still there"
    pause
  done
  end_progress
}

# empty_bucket <name>: versions and delete markers, too; a thousand a call.
empty_bucket() {
  local query kind
  for kind in Versions DeleteMarkers; do
    while :; do
      query="{Objects: ${kind}[].{Key:Key,VersionId:VersionId}, Quiet: \`true\`}"
      if ! save_aws "$WORK/objects.json" s3api list-object-versions --bucket "$1" --max-items 1000 --output json --query "$query"; then
        if [ "$AWS_CODE" = NoSuchBucket ]; then return 0; fi
        fail_aws ''
      fi
      if ! grep -q '"Key"' "$WORK/objects.json"; then break; fi
      call_aws s3api delete-objects --bucket "$1" --delete "file://$WORK/objects.json" --query 'Errors[0].Message'
      [ -z "$REPLY" ] || stop_with "$EXIT_AWS" "objects in $1 cannot be deleted: $REPLY" 'look at the policies of the bucket, and run the same command again'
      progress "empties $1"
    done
  done
  end_progress
}

delete_stack() {
  local kept
  if [ "$STATE" = none ]; then return 0; fi
  step "deleting the stack $NAME"
  call_aws cloudformation delete-stack --stack-name "$NAME"
  wait_for_stack
  if [ "$STATE" = DELETE_FAILED ] && [ "$KEEP_DATA" = yes ]; then
    # CloudFormation does not delete a bucket that holds something, and leaves it alone when it is told so.
    call_aws cloudformation list-stack-resources --stack-name "$STACK_ID" \
      --query "StackResourceSummaries[?ResourceType=='AWS::S3::Bucket'&&ResourceStatus=='DELETE_FAILED'].[LogicalResourceId]"
    kept=$REPLY
    if [ -n "$kept" ]; then
      # shellcheck disable=SC2086 # a word for each bucket
      call_aws cloudformation delete-stack --stack-name "$NAME" --retain-resources $kept
      wait_for_stack
    fi
  fi
  if [ "$STATE" != none ]; then
    show_failures
    stop_with "$EXIT_STACK" "the stack could not be deleted ($STATE)" 'remove what stands above from whatever uses it, and run the same command again'
  fi
}

# What was there before the stack, or was left by workers.
delete_rest() {
  local volume
  step 'deleting the secret, the bundles and what workers left behind'
  # At once and for good: it could not be made anew under its name otherwise, and is worth nothing without the deployment.
  try_aws secretsmanager delete-secret --secret-id "muster/$NAME/redis" --force-delete-without-recovery --query Name ||
    [ "$AWS_CODE" = ResourceNotFoundException ] || fail_aws ''
  if try_aws s3api head-bucket --bucket "$BUCKET" --expected-bucket-owner "$ACCOUNT"; then
    empty_bucket "$BUCKET"
    call_aws s3api delete-bucket --bucket "$BUCKET" --expected-bucket-owner "$ACCOUNT"
  elif [ "$AWS_CODE" != NotFound ]; then
    fail_aws ''
  fi
  call_aws ec2 describe-volumes --filters "Name=tag:muster:deployment,Values=$NAME" Name=status,Values=available --query 'Volumes[].[VolumeId]'
  for volume in $REPLY; do
    try_aws ec2 delete-volume --volume-id "$volume" || [ "$AWS_CODE" = InvalidVolume.NotFound ] || fail_aws ''
  done
}
