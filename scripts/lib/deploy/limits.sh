# shellcheck shell=bash disable=SC2154
# Sourced by setup.sh: the quotas of the account against what the deployment needs. A new account has as few as 5 vCPUs.

# quota <service> <code>: its value in REPLY, empty where it cannot be read, which is no reason to stop.
quota() {
  try_aws service-quotas get-service-quota --service-code "$1" --quota-code "$2" --query Quota.Value || REPLY=''
  REPLY=${REPLY%.*}
}

check_limits() {
  local node witness worker spot machines
  node=$(of_type "$(setting pNodeInstanceType)" 3)
  witness=0
  if [ "$(setting pRedis)" = nodes ]; then witness=$(of_type "$(setting pWitnessInstanceType)" 3); fi
  worker=$(most_of_workers)
  spot=$(setting pSpotPercent)
  machines=$((2 * node + witness))
  check_vcpus "$machines" "$worker" $(($(setting pMaxWorkers) * (100 - spot) / 100))
  if [ "$spot" -gt 0 ]; then check_spot $((worker * (($(setting pMaxWorkers) * spot + 99) / 100))); fi
  if is_deployed; then return 0; fi
  if [ "$(setting pPublicAddresses)" = yes ]; then
    check_count 'elastic IP addresses' $((witness > 0 ? 3 : 2)) ec2 L-0263D0A3 ec2 describe-addresses --query 'length(Addresses)'
  fi
  if [ -z "$(setting pVpcId)" ]; then
    check_count VPCs 1 vpc L-F678F1CE ec2 describe-vpcs --query 'length(Vpcs)'
  fi
}

most_of_workers() {
  local type most=0
  for type in $(setting pWorkerInstanceTypes | tr ',' ' '); do
    if [ "$(of_type "$type" 3)" -gt "$most" ]; then most=$(of_type "$type" 3); fi
  done
  printf '%s' "$most"
}

# check_vcpus <of nodes and witness> <of a worker> <most On-Demand workers>
check_vcpus() {
  local has used free
  quota ec2 L-1216C47A
  has=$REPLY
  if [ -z "$has" ]; then
    warn "the quota of vCPUs cannot be read ($AWS_CODE): look in Service Quotas whether L-1216C47A is above $1"
    return 0
  fi
  used=0
  # Instances of families with quotas of their own count, too: too careful rather than too late.
  if [ "$has" -gt 0 ]; then
    call_aws ec2 describe-instances --filters Name=instance-state-name,Values=pending,running --query \
      "Reservations[].Instances[].[InstanceLifecycle,CpuOptions.CoreCount,CpuOptions.ThreadsPerCore,Tags[?Key=='muster:deployment']|[0].Value]"
    used=$(printf '%s\n' "$REPLY" | awk -F '\t' -v own="$NAME" \
      '$1 != "spot" && $4 != own { sum += ($2 > 0 ? $2 : 1) * ($3 > 0 ? $3 : 1) } END { print sum + 0 }')
  fi
  # A line without an instance is a line of awk's, too.
  if [ -z "$REPLY" ]; then used=0; fi
  free=$((has - used))
  if [ "$free" -lt "$1" ]; then
    stop_with "$EXIT_LIMIT" \
      "the nodes and the witness need $1 vCPUs, and $2 more for each worker; this account may run $has On-Demand in $REGION, of which $used are taken" \
      "$(ask_for_more $((used + $1 + $2 * $3)))"
  fi
  say "  vCPUs: $has On-Demand in this account, $used taken by others; nodes and witness take $1, each worker up to $2"
  if [ $((free - $1)) -lt $(($2 * $3)) ]; then
    warn "there is room for $(((free - $1) / $2)) On-Demand workers, not for $3."
    warn "$(ask_for_more $((used + $1 + $2 * $3)))"
  fi
}

# check_spot <vCPUs of all Spot workers>: no reason to stop, since what Spot does not give is launched On-Demand.
check_spot() {
  quota ec2 L-34B43A08
  if [ -z "$REPLY" ] || [ "$REPLY" -ge "$1" ]; then return 0; fi
  warn "this account may run $REPLY vCPUs of Spot instances in $REGION, all Spot workers take $1"
  warn "ask for more: aws service-quotas request-service-quota-increase --region $REGION --service-code ec2 --quota-code L-34B43A08 --desired-value $1"
}

ask_for_more() {
  printf 'ask for %s (hours to days; answered by mail): aws service-quotas request-service-quota-increase --region %s --service-code ec2 --quota-code L-1216C47A --desired-value %s' \
    "$1" "$REGION" "$1"
}

# check_count <what> <how many more> <service of the quota> <its code> <call that counts them…>
check_count() {
  local what=$1 more=$2 service=$3 code=$4 has hint=''
  if [ "$code" = L-0263D0A3 ]; then hint='; a new account has 5 addresses, and each deployment takes 3: two do not fit without --private'; fi
  shift 4
  quota "$service" "$code"
  has=$REPLY
  if [ -z "$has" ]; then return 0; fi
  call_aws "$@"
  if [ $((REPLY + more)) -gt "$has" ]; then
    stop_with "$EXIT_LIMIT" "$more more $what are needed; this account may have $has in $REGION, and has $REPLY" \
      "free some, ask for more (aws service-quotas request-service-quota-increase --region $REGION --service-code $service --quota-code $code --desired-value $((REPLY + more))), or use what you have by --subnets and --private$hint"
  fi
}
