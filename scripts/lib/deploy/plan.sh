# shellcheck shell=bash disable=SC2154
# Sourced by setup.sh: what will be made, and what it costs, before anybody is asked.

# Prices come from the price list of AWS, which is in a few regions only; without it, from a table.
fetch_prices() {
  local type jobs='' service
  mkdir -p "$WORK/prices"
  for type in "$(setting pNodeInstanceType)" "$(setting pWitnessInstanceType)" "$(setting pWorkerInstanceTypes | cut -d , -f 1)" \
    "$([ "$(setting pRedis)" = nodes ] || setting pCacheNodeType)"; do
    case "$type" in
    '') continue ;;
    cache.*) service='AmazonElastiCache --filters Type=TERM_MATCH,Field=cacheEngine,Value=Valkey' ;;
    *)
      service='AmazonEC2 --filters Type=TERM_MATCH,Field=operatingSystem,Value=Linux Type=TERM_MATCH,Field=tenancy,Value=Shared'
      service="$service Type=TERM_MATCH,Field=preInstalledSw,Value=NA Type=TERM_MATCH,Field=capacitystatus,Value=Used"
      ;;
    esac
    # At once: none needs another, and each may fail without harm.
    # shellcheck disable=SC2086 # the words of the service and its filters
    AWS_MAX_ATTEMPTS=2 aws pricing get-products --region us-east-1 --output json --cli-connect-timeout 5 --cli-read-timeout 15 \
      --max-items 20 --service-code $service "Type=TERM_MATCH,Field=instanceType,Value=$type" \
      "Type=TERM_MATCH,Field=regionCode,Value=$REGION" </dev/null >"$WORK/prices/$type.json" 2>/dev/null &
    jobs="$jobs $!"
  done
  for type in $jobs; do wait "$type" || true; done
}

show_plan() {
  local network witness
  network="a VPC of its own ($(setting pVpcCidr))"
  if [ -n "$(setting pVpcId)" ]; then network="the VPC $(setting pVpcId)"; fi
  witness="the witness ($(setting pWitnessInstanceType)) in $(setting pZoneC)"
  if [ -z "$(setting pZoneC)" ]; then witness="the witness ($(setting pWitnessInstanceType)) in $(setting pZoneA), for want of a third zone"; fi
  if [ "$(setting pRedis)" != nodes ]; then witness="ElastiCache ($(setting pCacheNodeType)) in both zones"; fi
  say "  stack       $NAME in $REGION, account $ACCOUNT"
  say "  version     $VERSION"
  if [ -n "$HANDLERS" ]; then say "  handlers    $HANDLERS, for the types $HANDLERS_TYPES"; fi
  say "  network     $network; clients: $(clients)"
  say "  nodes       2 × $(setting pNodeInstanceType) ($(setting pNodeArchitecture)) in $(setting pZoneA) and $(setting pZoneB)"
  show_images
  say "  queue       $witness"
  say "  workers     $(setting pMinWorkers) to $(setting pMaxWorkers), of $(setting pWorkerInstanceTypes); $(setting pSpotPercent) % Spot"
  say "  entrance    $(entrance)"
  say "  alarms      to $(alarms)"
  say "  besides     buckets for payloads, backups and bundles, 3 secrets, log groups ($(setting pLogDays) days), roles of its own"
}

clients() {
  if [ -n "$(setting pClientCidr)" ]; then setting pClientCidr; else echo 'none but workers (open it with --client-cidr)'; fi
}

entrance() {
  local domain
  domain=$(setting pDomainName)
  case "$(setting pLoadBalancer)" in
  none) echo 'both nodes, by HTTPS with a certificate of their own authority' ;;
  *) echo "a load balancer, $(setting pLoadBalancer)${domain:+, $domain}" ;;
  esac
}

alarms() {
  if [ -n "$(setting pAlarmTopicArn)" ]; then
    setting pAlarmTopicArn
  elif [ -n "$(setting pAlarmEmail)" ]; then
    setting pAlarmEmail
  else
    echo 'nobody (--alarm-email); they are shown by --status'
  fi
}

# show_setting_changes: what is deployed against what would be.
show_setting_changes() {
  local changes
  changes=$(awk '
    NR == FNR { at = index($0, "\t"); was[substr($0, 1, at - 1)] = substr($0, at + 1); next }
    { at = index($0, "="); name = substr($0, 1, at - 1); value = substr($0, at + 1) }
    (name in was) && was[name] != value && name !~ /^p(Arm|Intel)Image$/ { print "    " name ": " was[name] " -> " value }
  ' "$WORK/deployed" "$WORK/settings")
  if [ -n "$changes" ]; then say "$changes"; else say '  no setting, and not the bundle'; fi
}

show_costs() {
  step 'looking up what it costs (USD an hour)'
  fetch_prices
  node "$ROOT/scripts/lib/deploy/prices.mjs" "$WORK/settings" "$WORK/prices" || warn 'the costs cannot be worked out'
}
