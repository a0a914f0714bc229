# shellcheck shell=bash disable=SC2034
# Sourced by setup.sh: its options. Those that are parameters of the stack are kept in GIVEN, a line "name=value" each; on an
# update, what is not given stays as it is.

help() {
  cat <<'HELP'
Usage: ./setup.sh [command] [options]

Puts Muster on AWS: two nodes and a witness in different zones, and a fleet of workers that comes and goes with the work.
Run again, it updates; interrupted, it goes on. What an update does not name stays as it is.

Commands (without one: create or update)
  --status                 what is there, whether it is well, and its URLs; exit code 0 when all is well
  --delete                 take all of it away again
  --dry-run                check everything and show what would be done; changes nothing
  --help

Always
  --name NAME              of the deployment and its stack (muster)
  --region REGION          (AWS_REGION, AWS_DEFAULT_REGION, or that of your AWS profile)
  --yes                    ask nothing
  --no-wait                leave with exit code 6 where another run is under way, rather than wait for its end
  --timeout MINUTES        how long to wait for the stack (90)
  --no-smoke               do not put a job through each node at the end
  --smoke-timeout MINUTES  how long a job may take then; its worker has to boot (15)
  --bundle FILE            deploy this bundle, made by scripts/bundle.sh, rather than build one
  --handlers FILE          your own handlers, JavaScript or TypeScript; run again, it replaces them, and no machine for them
  --update-images          take the newest Amazon Linux 2023, which replaces the machines; without it a deployment keeps what it has
  --keep-failed            leave a first deployment that failed for you to look at; the next run removes it
  --keep-data              with --delete: keep the buckets of payloads and backups

Network
  --vpc ID                 use this VPC (the stack makes one of its own)
  --subnets A,B[,C]        its subnets, in two or three zones: node A, node B, witness
  --vpc-cidr CIDR          addresses of the VPC that is made (10.77.0.0/16)
  --zones A,B[,C]          zones of node A, node B and the witness (those that have the instance types)
  --private                no public addresses: for private subnets of yours that have a way out
  --client-cidr CIDR       who may reach the API, such as 203.0.113.7/32; "none" closes it to all but workers (none)
  --load-balancer KIND     internal, internet-facing or none (none)
  --balancer-subnets A,B   its subnets in a VPC of yours, best without workers (the first two of --subnets)
  --plain-http             let an internal load balancer without a certificate take keys unencrypted
  --certificate ARN        of the load balancer, in ACM of the same region
  --domain NAME            of the load balancer; with --hosted-zone. Without --certificate one is made
  --hosted-zone ID         of that domain, in Route 53

Nodes and queue
  --instance-type TYPE     of the nodes (t4g.medium)
  --ami ID                 of the nodes (Amazon Linux 2023)
  --witness-type TYPE      of the witness, Arm (t4g.small)
  --volume-gb N            (16)
  --redis-memory-mb N      what the queue may take on each of the three machines (1024)
  --elasticache            ElastiCache keeps the queue, in place of the nodes and the witness
  --cache-type TYPE        with --elasticache (cache.t4g.small)
  --payload-days N         after which a payload is deleted in any case (60)
  --backup-days N          after which a backup of Redis is deleted (14)
  --no-sessions            no Session Manager; the smoke test then needs a way to the nodes
  --permissions-boundary ARN   a policy: what the roles of all machines may do at most; or none (none)

Workers
  --worker-types A,B,…     instance types to choose from, all Arm or all x86-64 (c7g.large,c6g.large,m7g.large,m6g.large)
  --worker-ami ID          (Amazon Linux 2023)
  --min-workers N          (0)
  --max-workers N          (4)
  --spot-percent N         (0)

Logs and alarms
  --log-days N             (30)
  --alarm-email ADDRESS    where alarms go; it gets a message to confirm
  --alarm-topic ARN        an SNS topic of yours instead
  --backlog-age SECONDS    a job that waits for longer raises an alarm (900)

Variables
  MUSTER_SMOKE_URLS        URLs of the nodes as this machine reaches them (a tunnel, a VPN), separated by commas
  MUSTER_SMOKE_KEY_FILE    a file with an API key for that and for --handlers (the operator key, from Secrets Manager)
  and those of the AWS CLI: AWS_PROFILE, AWS_ENDPOINT_URL, HTTPS_PROXY, …

Exit codes
   0  done; with --status: all is well        8  deployed; handlers or smoke test failed
   1  an error in this script                 9  you said no
   2  an option is wrong                     10  the bundle could not be built
   3  a tool is missing: aws, node, npm      11  --status: it is not deployed
   4  no credentials, or no right to a call  12  --status: it is not well
   5  a quota or limit is in the way         13  not finished in time; run again to go on
   6  another run is under way (--no-wait)   14  AWS failed otherwise; run again to go on
   7  the stack failed                      130  interrupted; run again to go on
HELP
}

# read_options "$@"
read_options() {
  COMMAND=deploy YES=no WAIT=yes SMOKE=yes KEEP_DATA=no KEEP_FAILED=no BUNDLE='' HANDLERS='' TIMEOUT_MINUTES=90 SMOKE_MINUTES=15
  PLAIN_HTTP=no UPDATE_IMAGES=no NAME=muster REGION='' GIVEN='' SUBNETS='' BALANCER_SUBNETS='' VPC='' ZONES=''
  local option value
  while [ $# -gt 0 ]; do
    option=$1
    case "$option" in
    -h | --help) help && exit 0 ;;
    --status) choose status ;;
    --delete) choose delete ;;
    --dry-run) choose dry-run ;;
    --yes) YES=yes ;;
    --no-wait) WAIT=no ;;
    --no-smoke) SMOKE=no ;;
    --keep-data) KEEP_DATA=yes ;;
    --keep-failed) KEEP_FAILED=yes ;;
    --update-images) UPDATE_IMAGES=yes ;;
    --private) give pPublicAddresses no ;;
    --plain-http) PLAIN_HTTP=yes ;;
    --elasticache) give pRedis elasticache ;;
    --no-sessions) give pSessionManager no ;;
    --*=*)
      # --name=value, too.
      shift
      set -- "${option%%=*}" "${option#*=}" "$@"
      continue
      ;;
    --*)
      [ $# -ge 2 ] || wrong "$option is unknown, or needs a value"
      value=$2
      shift
      take_value "$option" "$value"
      ;;
    *) wrong "what is \"$option\"?" ;;
    esac
    shift
  done
  check_options
}

take_value() {
  case "$1" in
  --name) NAME=$2 ;;
  --region) REGION=$2 ;;
  --bundle) BUNDLE=$2 ;;
  --handlers) HANDLERS=$2 ;;
  --timeout) TIMEOUT_MINUTES=$(number "$1" "$2") || exit ;;
  --smoke-timeout) SMOKE_MINUTES=$(number "$1" "$2") || exit ;;
  --vpc) VPC=$2 ;;
  --subnets) SUBNETS=$2 ;;
  --balancer-subnets) BALANCER_SUBNETS=$2 ;;
  --zones) ZONES=$2 ;;
  --vpc-cidr)
    # Three subnets of 4,096 addresses have to fit; AWS takes no network above 16 bits.
    case "$2" in
    [0-9]*.[0-9]*.[0-9]*.[0-9]*/1[678]) give pVpcCidr "$2" ;;
    *) wrong "--vpc-cidr is a network from /16 to /18, such as 10.20.0.0/16, not $2" ;;
    esac
    ;;
  --client-cidr)
    case "$2" in
    none) give pClientCidr '' ;;
    [0-9]*.[0-9]*.[0-9]*.[0-9]*/[0-9]*) give pClientCidr "$2" ;;
    *) wrong "--client-cidr is a network such as 203.0.113.7/32, or none, not $2" ;;
    esac
    ;;
  --load-balancer) give pLoadBalancer "$2" ;;
  --certificate) give pCertificateArn "$2" ;;
  --domain) give pDomainName "$2" ;;
  --hosted-zone) give pHostedZoneId "${2#/hostedzone/}" ;;
  --instance-type) give pNodeInstanceType "$2" ;;
  --ami) give pNodeImageId "$2" ;;
  --witness-type) give pWitnessInstanceType "$2" ;;
  --volume-gb) give_number pVolumeGb "$@" ;;
  --redis-memory-mb) give_number pRedisMemoryMb "$@" ;;
  --permissions-boundary)
    case "$2" in
    none) give pPermissionsBoundaryArn '' ;;
    arn:*:policy/*) give pPermissionsBoundaryArn "$2" ;;
    *) wrong "--permissions-boundary is the ARN of a policy, or none, not $2" ;;
    esac
    ;;
  --cache-type) give pCacheNodeType "$2" ;;
  --payload-days) give_number pPayloadDays "$@" ;;
  --backup-days) give_number pBackupDays "$@" ;;
  --worker-types) give pWorkerInstanceTypes "$2" ;;
  --worker-ami) give pWorkerImageId "$2" ;;
  --min-workers) give_number pMinWorkers "$@" ;;
  --max-workers) give_number pMaxWorkers "$@" ;;
  --spot-percent) give_number pSpotPercent "$@" ;;
  --log-days) give_number pLogDays "$@" ;;
  --alarm-email) give pAlarmEmail "$2" ;;
  --alarm-topic) give pAlarmTopicArn "$2" ;;
  --backlog-age) give_number pBacklogAgeSeconds "$@" ;;
  *) wrong "$1 is unknown" ;;
  esac
}

wrong() { stop_with "$EXIT_USAGE" "$1" './setup.sh --help shows all options'; }

choose() {
  [ "$COMMAND" = deploy ] || [ "$COMMAND" = "$1" ] || wrong "--$COMMAND and --$1 do not go together"
  COMMAND=$1
}

# give <parameter> <value>: the last one counts.
give() {
  GIVEN=$(printf '%s\n' "$GIVEN" | grep -v "^$1=" || true)
  GIVEN="$GIVEN
$1=$2"
}

number() {
  case "$2" in
  '' | *[!0-9]*) wrong "$1 is a number, not \"$2\"" ;;
  esac
  printf '%s' "$2"
}

# give_number <parameter> <option> <value>
give_number() {
  number "$2" "$3" >/dev/null || exit
  give "$1" "$3"
}

# given <parameter> [default]: what was asked for.
given() {
  local found
  found=$(printf '%s\n' "$GIVEN" | grep "^$1=") || {
    printf '%s' "${2:-}"
    return 0
  }
  printf '%s' "${found#*=}"
}

is_given() { printf '%s\n' "$GIVEN" | grep -q "^$1="; }

check_options() {
  # It is part of the name of a bucket.
  printf '%s' "$NAME" | grep -Eq '^[a-z][a-z0-9-]{0,19}$' ||
    wrong "--name is up to 20 lower-case letters, digits and dashes, with a letter first, not \"$NAME\""
  if [ -n "$BUNDLE" ] && [ ! -f "$BUNDLE" ]; then wrong "there is no file $BUNDLE"; fi
  if [ -n "$HANDLERS" ]; then
    if [ ! -f "$HANDLERS" ]; then wrong "there is no file $HANDLERS"; fi
    case "$COMMAND" in
    deploy | dry-run) ;;
    *) wrong "--handlers and --$COMMAND do not go together" ;;
    esac
  fi
  if [ -n "$VPC" ] && [ -z "$SUBNETS" ]; then wrong '--vpc needs --subnets, one in each zone'; fi
  if [ -n "$SUBNETS" ] && [ -n "$ZONES" ]; then wrong 'subnets have their zones: leave --zones out'; fi
  if [ -n "$SUBNETS" ] && is_given pVpcCidr; then wrong 'a VPC of yours has its addresses: leave --vpc-cidr out'; fi
  if [ "$KEEP_DATA" = yes ] && [ "$COMMAND" != delete ]; then wrong '--keep-data goes with --delete'; fi
}

# chosen_once <parameter> <what that is>
chosen_once() {
  if is_deployed && [ "$(awk -F '\t' -v name="$1" '$1 == name { print $2 }' "$WORK/deployed")" != "$(setting "$1")" ]; then
    wrong "$NAME has chosen $2. Make another deployment (--name), and move over"
  fi
}

# check_together: what goes together, once it is known what is deployed.
check_together() {
  chosen_once pRedis 'who keeps the queue: jobs would be lost with it'
  chosen_once pVpcId 'its network'
  chosen_once pVpcCidr 'its network'
  chosen_once pSubnetIds 'its network'
  case "$(setting pLoadBalancer)" in
  none) ;;
  internal)
    # Once: what is deployed has been said yes to.
    if [ -z "$(setting pCertificateArn)$(setting pDomainName)" ] && [ "$PLAIN_HTTP" = no ] &&
      [ "$(awk -F '\t' '$1 == "pLoadBalancer" { print $2 }' "$WORK/deployed")" != internal ]; then
      wrong 'an internal load balancer without --certificate, or --domain with --hosted-zone, takes keys unencrypted: add --plain-http where that is meant'
    fi
    ;;
  internet-facing)
    [ -n "$(setting pCertificateArn)$(setting pDomainName)" ] ||
      wrong 'an internet-facing load balancer needs --certificate, or --domain with --hosted-zone: keys do not travel in the clear'
    ;;
  *) wrong '--load-balancer is internal, internet-facing or none' ;;
  esac
  if [ -n "${BALANCER_SUBNETS:-}" ] && { [ -z "$(setting pVpcId)" ] || [ "$(setting pLoadBalancer)" = none ]; }; then
    wrong '--balancer-subnets are those of a load balancer in a VPC of yours: add --load-balancer and --subnets'
  fi
  if [ -n "$(setting pDomainName)" ] && [ -z "$(setting pHostedZoneId)" ]; then
    wrong '--domain needs --hosted-zone; "aws route53 list-hosted-zones" shows yours'
  fi
  if [ -n "$(setting pDomainName)$(setting pCertificateArn)" ] && [ "$(setting pLoadBalancer)" = none ]; then
    wrong '--domain and --certificate are those of a load balancer: add --load-balancer'
  fi
  if [ "$(setting pPublicAddresses)" = no ] && [ -z "$(setting pVpcId)" ]; then
    wrong '--private is for subnets of yours that have a way out: add --subnets'
  fi
  if [ "$(setting pSpotPercent)" -gt 100 ]; then wrong '--spot-percent is at most 100'; fi
  if [ "$(setting pMinWorkers)" -gt "$(setting pMaxWorkers)" ]; then wrong '--min-workers is above --max-workers'; fi
}
