# shellcheck shell=bash disable=SC2154
# Sourced by setup.sh: what is there, and whether it is well.

show_status() {
  local well=yes
  step "looking at $NAME"
  look_at_stack || fail_aws ''
  if [ "$STATE" = none ]; then
    say "There is no deployment $NAME in $REGION."
    exit "$EXIT_ABSENT"
  fi
  read_settings
  say "  stack       $STATE${REASON:+ ($REASON)}"
  case "$STATE" in
  CREATE_COMPLETE | UPDATE_COMPLETE) ;;
  UPDATE_ROLLBACK_COMPLETE) say '              the last update was taken back; what ran before runs' ;;
  *_IN_PROGRESS) say '              something is under way' && well=no ;;
  *) show_failures && well=no ;;
  esac
  say "  version     $(setting pBundleKey | sed -e 's/^bundles\///' -e 's/\.tgz$//'), template $(output templateVersion)"
  show_machines || well=no
  show_answers
  [ "$ANSWERS" != bad ] || well=no
  show_alarms || well=no
  show_places
  if [ "$well" = no ]; then
    say ''
    say 'It is not well. docs/deploy.md says what to do when a node is gone; "muster doctor" on a node looks closer.'
    exit "$EXIT_UNHEALTHY"
  fi
}

# Nodes and witness by name, workers by their tag of a pool.
show_machines() {
  local machine line expected="node-a node-b" all=yes workers
  call_aws ec2 describe-instances --filters "Name=tag:muster:deployment,Values=$NAME" \
    Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down --query \
    "Reservations[].Instances[].[Tags[?Key=='Name']|[0].Value,State.Name,InstanceId,InstanceType,Placement.AvailabilityZone,Tags[?Key=='muster:pool']|[0].Value]"
  printf '%s\n' "$REPLY" >"$WORK/machines"
  if [ "$(setting pRedis)" = nodes ]; then expected="$expected witness"; fi
  for machine in $expected; do
    line=$(awk -F '\t' -v name="$NAME-$machine" '$1 == name && $2 == "running" { print $2 ", " $3 ", " $4 ", " $5; exit }' "$WORK/machines")
    if [ -z "$line" ]; then line='gone; its group starts another' all=no; fi
    say "  $(printf '%-11s' "$machine") $line"
  done
  workers=$(awk -F '\t' 'NF >= 6 && $6 != "None" && ($2 == "running" || $2 == "pending") { sum += 1 } END { print sum + 0 }' "$WORK/machines")
  say "  fleet       $workers instances, of at most $(setting pMaxWorkers)"
  [ "$all" = yes ]
}

# Whether the nodes answer, as far as this machine is let in. ANSWERS: good, bad or unknown.
show_answers() {
  local url reached=0 missed=0
  ANSWERS=unknown
  fetch_authority
  for url in $(printf '%s' "${MUSTER_SMOKE_URLS:-$(output nodeUrls)}" | tr ',' ' '); do
    if run_smoke "$url" --only-reach 2>"$WORK/reach"; then
      reached=$((reached + 1))
      say "  answers     $url"
    else
      missed=$((missed + 1))
      say "  no answer   $(head -n 1 "$WORK/reach")"
    fi
  done
  if [ "$missed" = 0 ]; then ANSWERS=good; fi
  # From a machine that is let in to one node, silence of the other means something.
  if [ "$reached" -gt 0 ] && [ "$missed" -gt 0 ]; then ANSWERS=bad; fi
  if [ "$reached" = 0 ]; then say '              (this machine may not be let in: the alarms tell)'; fi
}

show_alarms() {
  # By name: another deployment may begin with the same letters.
  resources "ResourceType=='AWS::CloudWatch::Alarm'"
  if [ -z "$REPLY" ]; then
    say '  alarms      there is none: nothing watches this deployment'
    return 1
  fi
  # shellcheck disable=SC2086 # a word for each alarm
  call_aws cloudwatch describe-alarms --alarm-names $REPLY --query 'MetricAlarms[].[StateValue,AlarmName,AlarmDescription]'
  printf '%s\n' "$REPLY" | awk -F '\t' 'NF >= 2' >"$WORK/alarms"
  if grep -q '^ALARM' "$WORK/alarms"; then
    awk -F '\t' '$1 == "ALARM" { print "  ALARM       " $3 }' "$WORK/alarms"
    return 1
  fi
  say "  alarms      none of $(awk 'END { print NR }' "$WORK/alarms") is raised"
}

show_places() {
  say ''
  say "  API         $(output apiUrl)"
  say "  page        $(output pageUrl)"
  say "  nodes       $(output nodeUrls)"
  say "  payloads    s3://$(output payloadBucket)"
  if [ -n "$(output backupBucket)" ]; then say "  backups     s3://$(output backupBucket)"; fi
  say "  logs        $(output nodeLogGroup), $(output redisLogGroup), $(output bootLogGroup)"
  say "  keys        the operator key is in Secrets Manager:"
  if [ -n "$(output operatorKeySecret)" ]; then
    say "              aws secretsmanager get-secret-value --region $REGION --secret-id $(output operatorKeySecret) --query SecretString --output text"
  else
    say "              the stack does not tell its name: aws secretsmanager list-secrets --region $REGION --filters Key=tag-value,Values=$NAME"
  fi
  if [ "$(setting pLoadBalancer)" = none ]; then
    say "  authority   of the nodes' certificates: caCertificate in the secret muster/$NAME/redis (MUSTER_CA_FILE of clients)"
  fi
}
