# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by setup.sh: what has to be right before anything is made: tools, credentials, region, settings, types, zones, quotas.

TEMPLATE=$ROOT/deploy/cloudformation/muster.yaml

check_tools() {
  step 'looking for the tools'
  local tool
  for tool in node npm aws; do
    command -v "$tool" >/dev/null 2>&1 || stop_with "$EXIT_TOOL" "$tool is missing" "$(how_to_get "$tool")"
  done
  [ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 20')" = true ] ||
    stop_with "$EXIT_TOOL" "Node.js $(node --version) is too old" "$(how_to_get node)"
  aws --version >/dev/null 2>&1 || stop_with "$EXIT_TOOL" 'the command aws does not run' "$(how_to_get aws)"
}

how_to_get() {
  case "$1" in
  aws) echo 'install the AWS CLI: https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html' ;;
  npm) echo 'npm comes with Node.js: install version 20 or newer from https://nodejs.org/' ;;
  node) echo 'install Node.js 20 or newer from https://nodejs.org/' ;;
  esac
}

check_credentials() {
  step 'looking at the region and the credentials'
  REGION=${REGION:-${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region 2>/dev/null || true)}}}
  [ -n "$REGION" ] || stop_with "$EXIT_USAGE" 'no region is set' 'add --region, such as --region eu-central-1'
  printf '%s' "$REGION" | grep -Eq '^[a-z]{2,4}(-[a-z]+){1,3}-[0-9]$' ||
    stop_with "$EXIT_USAGE" "$REGION is no region of AWS" 'regions are named like eu-central-1; zones have one letter more'
  call_aws sts get-caller-identity --query '[Account,Arn]'
  ACCOUNT=$(printf '%s' "$REPLY" | cut -f 1)
  # Of all that could tell it, this is never wrong: names of regions are not made by rules.
  PARTITION=$(printf '%s' "$REPLY" | cut -f 2 | cut -d : -f 2)
  say "  account $ACCOUNT, as $(printf '%s' "$REPLY" | cut -f 2), in $REGION"
}

# read_settings: what counts, of what was given, what is deployed and the defaults. Of a first deployment that failed nothing
# counts: nothing of it is left.
read_settings() {
  printf '%s\n' "$GIVEN" >"$WORK/given"
  if must_be_made; then : >"$WORK/deployed"; fi
  node "$ROOT/scripts/lib/deploy/parameters.mjs" "$TEMPLATE" "$WORK/given" "$WORK/deployed" "$WORK/settings" "$WORK/parameters.json" ||
    stop_with 1 'the parameters do not fit the template' 'use setup.sh and deploy/cloudformation/muster.yaml of one version'
}

# setting <parameter>: given, else deployed, else the default of the template.
setting() { sed -n "s/^$1=//p" "$WORK/settings"; }

is_deployed() { [ -s "$WORK/deployed" ]; }

check_types() {
  local node witness workers type architecture
  node=$(setting pNodeInstanceType)
  witness=$(setting pWitnessInstanceType)
  workers=$(setting pWorkerInstanceTypes | tr ',' ' ')
  # shellcheck disable=SC2086,SC2046 # a word for each type
  try_aws ec2 describe-instance-types --instance-types $(printf '%s\n' $node $witness $workers | sort -u) --query \
    "InstanceTypes[].[InstanceType,join(',',ProcessorInfo.SupportedArchitectures),VCpuInfo.DefaultVCpus,MemoryInfo.SizeInMiB,FreeTierEligible]" || {
    [ "$AWS_CODE" != InvalidInstanceType ] ||
      stop_with "$EXIT_USAGE" "a type is not known in $REGION. AWS says: $AWS_MESSAGE" \
        'choose others by --instance-type, --witness-type and --worker-types'
    fail_aws ''
  }
  printf '%s\n' "$REPLY" >"$WORK/types"
  check_plan "$node" "$(if [ "$(setting pRedis)" = nodes ]; then printf '%s' "$witness"; fi)" "$workers"
  give pNodeArchitecture "$(architecture_of "$node")"
  [ "$(setting pRedis)" != nodes ] || [ "$(architecture_of "$witness")" = arm64 ] ||
    stop_with "$EXIT_USAGE" "$witness is no Arm type" 'choose another by --witness-type, such as t4g.small'
  architecture=''
  for type in $workers; do
    if [ -n "$architecture" ] && [ "$architecture" != "$(architecture_of "$type")" ]; then
      stop_with "$EXIT_USAGE" 'some worker types are Arm, others x86-64, and one image serves all' 'name types of one kind by --worker-types'
    fi
    architecture=$(architecture_of "$type")
  done
  give pWorkerArchitecture "$architecture"
  check_memory "$node"
  if [ "$(setting pRedis)" = nodes ]; then check_memory "$witness"; fi
  check_image "$(setting pNodeImageId)" "$(architecture_of "$node")" --ami
  check_image "$(setting pWorkerImageId)" "$architecture" --worker-ami
}

# check_plan <types>…: a new account may be on the Free plan, which refuses all but a few types, and says so only when a group
# launches its first machine. Where the plan cannot be read, there is nothing to say.
check_plan() {
  local type refused=''
  REGION=us-east-1 try_aws freetier get-account-plan-state --query accountPlanType || return 0
  if [ "$REPLY" != FREE ]; then return 0; fi
  # shellcheck disable=SC2048 # a word for each type
  for type in $*; do
    if [ "$(of_type "$type" 5)" != True ]; then refused="$refused $type"; fi
  done
  if [ -z "$refused" ]; then return 0; fi
  stop_with "$EXIT_LIMIT" "this account is on the Free plan of AWS, which does not launch$refused" \
    'change to the paid plan (console, Billing, Account), or take types that the Free plan has: --instance-type t4g.small --witness-type t4g.small --worker-types t4g.small'
}

# of_type <type> <column>
of_type() { awk -F '\t' -v type="$1" -v column="$2" '$1 == type { print $column }' "$WORK/types"; }

architecture_of() {
  case ",$(of_type "$1" 2)," in
  *,arm64,*) echo arm64 ;;
  *) echo x86_64 ;;
  esac
}

check_memory() {
  local memory most
  memory=$(of_type "$1" 4)
  most=$((memory * 7 / 10))
  [ "$(setting pRedis)" != nodes ] || [ "$(setting pRedisMemoryMb)" -le "$most" ] ||
    stop_with "$EXIT_USAGE" "$(setting pRedisMemoryMb) MiB for the queue do not fit a $1, which has $memory MiB" \
      "choose a larger type by --instance-type and --witness-type, or at most $most by --redis-memory-mb"
}

check_image() {
  local architecture device
  if [ -z "$1" ]; then return 0; fi
  try_aws ec2 describe-images --image-ids "$1" --query 'Images[0].[Architecture,RootDeviceName]' || {
    case "$AWS_CODE" in
    InvalidAMIID*) stop_with "$EXIT_USAGE" "there is no image $1 in $REGION" "name another by $3; images are of one region" ;;
    esac
    fail_aws ''
  }
  architecture=$(printf '%s' "$REPLY" | cut -f 1)
  device=$(printf '%s' "$REPLY" | cut -f 2)
  [ "$architecture" = "$2" ] ||
    stop_with "$EXIT_USAGE" "the image $1 is for $architecture, the instance types are $2" "name another image by $3, or other types"
  # The template sizes and encrypts this disk, and the boot installs with dnf.
  [ "$device" = /dev/xvda ] ||
    stop_with "$EXIT_USAGE" "the disk of the image $1 is $device, that of Amazon Linux 2023 is /dev/xvda" \
      "make your image from Amazon Linux 2023 (scripts/bake-ami.sh does), and name it by $3"
}

# Zones are chosen once: a node that is there stays in its zone.
check_network() {
  if [ -n "$SUBNETS" ]; then
    check_subnets
  elif ! is_deployed || [ -n "$ZONES" ]; then
    choose_zones
  fi
  read_settings
  check_balancer_subnets
}

# Nodes believe what comes from the subnets of the load balancer about the address of a client. In a VPC of its own the template
# knows them.
check_balancer_subnets() {
  local subnets zones vpcs zone
  if [ "$(setting pLoadBalancer)" = none ] || [ -z "$(setting pVpcId)" ]; then return 0; fi
  subnets=${BALANCER_SUBNETS:-$(setting pBalancerSubnetIds)}
  : "${subnets:=$(setting pSubnetIds | cut -d , -f 1,2)}"
  # shellcheck disable=SC2086 # a word for each subnet
  call_aws ec2 describe-subnets --subnet-ids ${subnets//,/ } --query 'Subnets[].[AvailabilityZone,VpcId,CidrBlock]'
  zones=$(printf '%s\n' "$REPLY" | cut -f 1 | sort)
  vpcs=$(printf '%s\n' "$REPLY" | cut -f 2 | sort -u)
  if [ "$vpcs" != "$(setting pVpcId)" ]; then
    stop_with "$EXIT_USAGE" "the subnets $subnets are not all in $(setting pVpcId)" 'name two subnets of that VPC by --balancer-subnets'
  fi
  if [ "$(printf '%s\n' "$zones" | uniq -d)" != '' ]; then
    stop_with "$EXIT_USAGE" "two of the subnets $subnets are in one zone" 'name one subnet in each zone by --balancer-subnets'
  fi
  # A load balancer sends nothing to a node in a zone that it has no subnet in.
  for zone in "$(setting pZoneA)" "$(setting pZoneB)"; do
    printf '%s\n' "$zones" | grep -qx "$zone" ||
      stop_with "$EXIT_USAGE" "none of the subnets $subnets is in $zone, where a node is" 'name a subnet in the zone of each node by --balancer-subnets'
  done
  if [ -n "$BALANCER_SUBNETS" ]; then give pBalancerSubnetIds "$BALANCER_SUBNETS"; fi
  # In an order of its own: another one would replace both nodes.
  give pBalancerCidrs "$(printf '%s\n' "$REPLY" | cut -f 3 | sort | paste -s -d , -)"
}

check_subnets() {
  local subnet zone found='' vpc zones=''
  # shellcheck disable=SC2086 # a word for each subnet
  call_aws ec2 describe-subnets --subnet-ids ${SUBNETS//,/ } --query 'Subnets[].[SubnetId,AvailabilityZone,VpcId]'
  printf '%s\n' "$REPLY" >"$WORK/subnets"
  for subnet in ${SUBNETS//,/ }; do
    zone=$(awk -v id="$subnet" '$1 == id { print $2 }' "$WORK/subnets")
    vpc=$(awk -v id="$subnet" '$1 == id { print $3 }' "$WORK/subnets")
    [ "${VPC:=$vpc}" = "$vpc" ] || stop_with "$EXIT_USAGE" "the subnet $subnet is in $vpc, not in $VPC" 'name subnets of one VPC'
    case " $zones " in
    *" $zone "*) stop_with "$EXIT_USAGE" "two of the subnets are in $zone" 'name one subnet in each zone, two or three of them' ;;
    esac
    zones="$zones $zone"
    found="$found,$zone"
  done
  give pVpcId "$VPC"
  give pSubnetIds "$SUBNETS"
  take_zones "${found#,}"
  call_aws ec2 describe-vpcs --vpc-ids "$VPC" --query 'Vpcs[0].CidrBlock'
  give pVpcCidr "$REPLY"
}

# Zones that have the types: two for the nodes, a third for the witness where there is one.
choose_zones() {
  local node witness zones
  if [ -n "$ZONES" ]; then
    take_zones "$ZONES"
    return 0
  fi
  node=$(setting pNodeInstanceType)
  witness=$(setting pWitnessInstanceType)
  call_aws ec2 describe-instance-type-offerings --location-type availability-zone \
    --filters "Name=instance-type,Values=$node,$witness" --query 'InstanceTypeOfferings[].[InstanceType,Location]'
  zones=$(printf '%s\n' "$REPLY" | sort -k 2 | awk -v node="$node" -v witness="$witness" '
    $1 == node && nodes < 2 { nodes += 1; chosen = chosen (nodes > 1 ? "," : "") $2; taken[$2] = 1 }
    $1 == witness { seen += 1; offers[seen] = $2 }
    END {
      if (nodes < 2) exit
      for (at = 1; at <= seen; at += 1) if (!(offers[at] in taken)) { chosen = chosen "," offers[at]; break }
      print chosen
    }')
  [ -n "$zones" ] || stop_with "$EXIT_LIMIT" "fewer than two zones of $REGION have $node" 'choose another by --instance-type, or another region'
  take_zones "$zones"
}

take_zones() {
  local a b c
  IFS=, read -r a b c <<ZONES_TAKEN
$1
ZONES_TAKEN
  if [ -z "$b" ] || [ "$a" = "$b" ] || [ "$a" = "$c" ] || [ "$b" = "$c" ]; then
    wrong 'two or three zones are needed, all different'
  fi
  if is_deployed && [ "$a,$b,$c" != "$(setting pZoneA),$(setting pZoneB),$(setting pZoneC)" ]; then
    wrong "$NAME is in other zones: they are chosen once, by the first deployment"
  fi
  give pZoneA "$a"
  give pZoneB "$b"
  give pZoneC "$c"
}
