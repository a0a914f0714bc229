#!/usr/bin/env bash
# Puts Muster on AWS, updates it, shows how it is, and takes it away again. "./setup.sh --help" shows the options and exit
# codes; docs/deploy.md explains the rest. Written for bash 3.2, which macOS has; needs the AWS CLI, Node.js and npm.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Sorting, letters and numbers are the same everywhere.
export LC_ALL=C

# shellcheck source=scripts/lib/deploy/say.sh
. "$ROOT/scripts/lib/deploy/say.sh"
# shellcheck source=scripts/lib/deploy/options.sh
. "$ROOT/scripts/lib/deploy/options.sh"
# shellcheck source=scripts/lib/deploy/aws.sh
. "$ROOT/scripts/lib/deploy/aws.sh"
# shellcheck source=scripts/lib/deploy/check.sh
. "$ROOT/scripts/lib/deploy/check.sh"
# shellcheck source=scripts/lib/deploy/limits.sh
. "$ROOT/scripts/lib/deploy/limits.sh"
# shellcheck source=scripts/lib/deploy/amazon-linux.sh
. "$ROOT/scripts/lib/deploy/amazon-linux.sh"
# shellcheck source=scripts/lib/deploy/plan.sh
. "$ROOT/scripts/lib/deploy/plan.sh"
# shellcheck source=scripts/lib/deploy/bundle.sh
. "$ROOT/scripts/lib/deploy/bundle.sh"
# shellcheck source=scripts/lib/deploy/stack.sh
. "$ROOT/scripts/lib/deploy/stack.sh"
# shellcheck source=scripts/lib/deploy/on-nodes.sh
. "$ROOT/scripts/lib/deploy/on-nodes.sh"
# shellcheck source=scripts/lib/deploy/handlers.sh
. "$ROOT/scripts/lib/deploy/handlers.sh"
# shellcheck source=scripts/lib/deploy/smoke.sh
. "$ROOT/scripts/lib/deploy/smoke.sh"
# shellcheck source=scripts/lib/deploy/status.sh
. "$ROOT/scripts/lib/deploy/status.sh"
# shellcheck source=scripts/lib/deploy/delete.sh
. "$ROOT/scripts/lib/deploy/delete.sh"

deploy() {
  # Said before anything is built or uploaded.
  if [ "$YES" = no ] && [ ! -t 0 ]; then
    stop_with "$EXIT_DECLINED" 'nobody is there to be asked: the input is no terminal' 'add --yes to answer with yes to everything, or look first with --dry-run'
  fi
  step "looking at what is there of $NAME"
  settle_stack
  prepare
  # An update asks when it has shown what changes.
  if must_be_made || [ "$YES" = no ]; then show_costs; fi
  if must_be_made; then ask 'Make all that?'; fi
  make_bucket
  upload_all
  make_redis_secret
  give pBundleBucket "$BUCKET"
  give pBundleKey "$BUNDLE_KEY"
  give pBundleSha256 "$SHA256"
  give pRedisSecretArn "$SECRET_ARN"
  read_settings
  deploy_stack
  remove_old_bundles
  hand_over_handlers
  smoke_test
  step 'done'
  show_places
}

# prepare: everything that is looked at before anything is made. GIVEN and the settings are whole afterwards.
prepare() {
  keep_images
  read_settings
  step 'looking at instance types, zones and quotas'
  check_types
  read_settings
  check_network
  read_settings
  check_together
  check_limits
  build_bundle
  bundle_handlers
  step 'what is to be'
  show_plan
}

dry_run() {
  step "looking at what is there of $NAME"
  look_at_stack || fail_aws ''
  if in_progress; then say "  the stack is $STATE: what it will be, nobody knows yet"; fi
  prepare
  show_costs
  if must_be_made; then
    step 'the end of the dry run'
    say '  nothing was made. Without --dry-run all that stands above is made, after a question.'
    return 0
  fi
  # Told from the settings: what CloudFormation makes of them it tells only for a template that was uploaded.
  step 'what would change'
  give pBundleKey "$BUNDLE_KEY"
  give pBundleSha256 "$SHA256"
  read_settings
  show_setting_changes
  say '  The template itself may have changed, too: without --dry-run each part is shown before the question.'
  step 'the end of the dry run'
  say '  nothing was made, uploaded or changed'
}

read_options "$@"
make_workplace
check_tools
check_credentials
case "$COMMAND" in
deploy) deploy ;;
dry-run) dry_run ;;
status) show_status ;;
delete) delete_all ;;
esac
