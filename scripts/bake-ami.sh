#!/usr/bin/env bash
# Makes an image (AMI) with all of Muster inside: Node.js, the bundle, Valkey, the units, the CloudWatch agent. What boots from
# it installs nothing. "scripts/bake-ami.sh --help" shows the options. Written for bash 3.2; needs the AWS CLI, Node.js and npm.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C

# shellcheck source=scripts/lib/deploy/say.sh
. "$ROOT/scripts/lib/deploy/say.sh"
# shellcheck source=scripts/lib/deploy/aws.sh
. "$ROOT/scripts/lib/deploy/aws.sh"
# shellcheck source=scripts/lib/deploy/check.sh
. "$ROOT/scripts/lib/deploy/check.sh"
# shellcheck source=scripts/lib/deploy/bundle.sh
. "$ROOT/scripts/lib/deploy/bundle.sh"
# shellcheck source=scripts/lib/deploy/image.sh
. "$ROOT/scripts/lib/deploy/image.sh"

usage() {
  cat <<'HELP'
Usage: scripts/bake-ami.sh [options]

Launches a builder from Amazon Linux 2023, prepares it, makes an image of it, and terminates it. An image of this version and
processor that is there already is named, and no other is made.

  --arch ARCH          arm64 or x86_64 (arm64)
  --region REGION      (AWS_REGION, AWS_DEFAULT_REGION, or that of your AWS profile)
  --bundle FILE        bake this bundle, made by scripts/bundle.sh, rather than build one
  --bucket BUCKET      an existing bucket that the bundle is handed over in (that of the deployment)
  --name NAME          of the deployment that --bucket is taken from (muster)
  --subnet ID          of the builder; it needs a way to the internet (one of the default VPC)
  --instance-type TYPE of the builder (t4g.small, t3.small)
  --timeout MINUTES    how long it may take to prepare the builder, and to make the image of it (30)
  --force              make an image though there is one
  --delete VERSION     remove the images of this version and their snapshots (of --arch, when given)
  --dry-run            show what would be done; nothing is made
  --yes                ask nothing
  --help

Exit codes: 0 done; 2 an option is wrong; 3 a tool is missing; 4 no credentials, or no right to a call; 5 a limit; 7 the builder
failed; 9 you said no; 10 no bundle; 11 nothing to delete; 13 not in time; 14 AWS failed otherwise; 130 interrupted
HELP
}

read_arguments() {
  ARCH='' REGION='' BUNDLE='' BUCKET_GIVEN='' NAME=muster SUBNET='' TYPE='' MINUTES=30 FORCE=no DELETE='' DRY_RUN=no YES=no
  while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) usage && exit 0 ;;
    --force) FORCE=yes ;;
    --dry-run) DRY_RUN=yes ;;
    --yes) YES=yes ;;
    --arch | --region | --bundle | --bucket | --name | --subnet | --instance-type | --timeout | --delete)
      [ $# -ge 2 ] || wrong "$1 needs a value"
      case "$1" in
      --arch) ARCH=$2 ;;
      --region) REGION=$2 ;;
      --bundle) BUNDLE=$2 ;;
      --bucket) BUCKET_GIVEN=$2 ;;
      --name) NAME=$2 ;;
      --subnet) SUBNET=$2 ;;
      --instance-type) TYPE=$2 ;;
      --timeout) MINUTES=$2 ;;
      --delete) DELETE=$2 ;;
      esac
      shift
      ;;
    *) wrong "what is \"$1\"?" ;;
    esac
    shift
  done
  case "$ARCH" in '' | arm64 | x86_64) ;; *) wrong "--arch is arm64 or x86_64, not $ARCH" ;; esac
  case "$MINUTES" in '' | *[!0-9]*) wrong "--timeout is a number of minutes, not $MINUTES" ;; esac
  if [ -n "$BUNDLE" ] && [ ! -f "$BUNDLE" ]; then wrong "there is no file $BUNDLE"; fi
}

wrong() { stop_with "$EXIT_USAGE" "$1" 'scripts/bake-ami.sh --help shows all options'; }

read_arguments "$@"
make_workplace
BUILDER=''
trap 'remove_builder; rm -rf "$WORK"' EXIT
check_tools
check_credentials
if [ -n "$DELETE" ]; then delete_images; else bake; fi
