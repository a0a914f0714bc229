# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by bake-ami.sh: images, by their tags muster:image, muster:version and muster:bundle; and the builder, which is
# terminated whatever happens.
#
#   launched ──prepared, powered off──▶ stopped ──create-image──▶ available ──▶ builder terminated
#      └── failed, or not in time: what its console said ──▶ builder terminated

bake() {
  local source
  ARCH=${ARCH:-arm64}
  case "$ARCH" in arm64) TYPE=${TYPE:-t4g.small} ;; *) TYPE=${TYPE:-t3.small} ;; esac
  build_bundle
  if [ -n "$BUCKET_GIVEN" ]; then BUCKET=$BUCKET_GIVEN; fi
  step "looking for an image of version $VERSION for $ARCH"
  find_images "$VERSION" "$ARCH"
  if [ -n "$REPLY" ] && [ "$FORCE" = no ]; then
    IMAGE=$(printf '%s\n' "$REPLY" | head -n 1 | cut -f 1)
    if [ "$(printf '%s\n' "$REPLY" | head -n 1 | cut -f 3)" != "$SHA256" ]; then
      warn "$IMAGE has this version, but another bundle: --force makes a new one"
    fi
    say "  there is one: $IMAGE (--force makes another)"
    show_use
    return 0
  fi
  call_aws ssm get-parameter --name "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-$ARCH" --query Parameter.Value
  source=$REPLY
  say "  none that counts. To be made: from $source, by a $TYPE, with the bundle from s3://$BUCKET"
  if [ "$DRY_RUN" = yes ]; then
    say '  a dry run: nothing was made'
    return 0
  fi
  ask 'Launch a builder, for some minutes?'
  hand_over_bundle
  launch_builder "$source"
  await_builder
  make_image
  remove_builder
  show_use
}

# find_images <version> [architecture]: a line "id<tab>name<tab>SHA-256 of the bundle<tab>snapshots" each.
find_images() {
  call_aws ec2 describe-images --owners self --filters Name=tag:muster:image,Values=yes "Name=tag:muster:version,Values=$1" \
    Name=state,Values=available,pending ${2:+"Name=architecture,Values=$2"} \
    --query "Images[].[ImageId,Name,Tags[?Key=='muster:bundle']|[0].Value,join(' ',BlockDeviceMappings[].Ebs.SnapshotId||[''])]"
}

hand_over_bundle() {
  step "uploading the bundle to s3://$BUCKET"
  if ! try_aws s3api put-object --bucket "$BUCKET" --key "$BUNDLE_KEY" --body "$BUNDLE_FILE" --expected-bucket-owner "$ACCOUNT" --query ETag; then
    [ "$AWS_CODE" != NoSuchBucket ] || fail_aws 'deploy first (./setup.sh), or name a bucket of yours: --bucket'
    fail_aws ''
  fi
  # It is in no argument and no output: until it runs out, who has it can fetch the bundle.
  save_aws "$WORK/url" s3 presign "s3://$BUCKET/$BUNDLE_KEY" --expires-in 3600 || fail_aws ''
  # Version 1 of the CLI signs the old way in the older regions, which newer buckets refuse.
  grep -q 'X-Amz-Algorithm=AWS4' "$WORK/url" ||
    stop_with "$EXIT_TOOL" 'this AWS CLI signs URLs in a way that S3 refuses' 'install version 2 of the AWS CLI, or run: aws configure set default.s3.signature_version s3v4'
  node -e '
    const { readFileSync, writeFileSync } = require("fs")
    const [template, url, sha256, out] = process.argv.slice(1)
    const words = { BUNDLE_URL: readFileSync(url, "utf8").trim(), BUNDLE_SHA256: sha256 }
    writeFileSync(out, readFileSync(template, "utf8").replace(/@@(\w+)@@/g, (_, word) => words[word]))
  ' "$ROOT/deploy/user-data/bake.sh" "$WORK/url" "$SHA256" "$WORK/user-data"
}

# launch_builder <image>: BUILDER. Launched once, however often the call is repeated.
launch_builder() {
  step 'launching the builder'
  call_aws ec2 run-instances --image-id "$1" --instance-type "$TYPE" --count 1 --client-token "muster-bake-$$-$RANDOM$RANDOM" \
    --user-data "file://$WORK/user-data" --instance-initiated-shutdown-behavior stop \
    --metadata-options HttpTokens=required,HttpPutResponseHopLimit=1 \
    --tag-specifications "ResourceType=instance,Tags=[{Key=Name,Value=muster-bake-$VERSION},{Key=muster:bake,Value=$VERSION}]" \
    ${SUBNET:+--subnet-id "$SUBNET"} --query 'Instances[0].InstanceId'
  BUILDER=$REPLY
  say "  $BUILDER"
}

await_builder() {
  local state deadline=$((SECONDS + MINUTES * 60)) misses=0
  step 'preparing the builder'
  while :; do
    # Just launched, it may not be found yet.
    if try_aws ec2 describe-instances --instance-ids "$BUILDER" --query 'Reservations[0].Instances[0].State.Name'; then
      misses=0 state=$REPLY
    else
      misses=$((misses + 1)) state=unknown
      [ "$misses" -lt 5 ] || fail_aws ''
    fi
    case "$state" in
    stopped) break ;;
    terminated | shutting-down) stop_with "$EXIT_STACK" "the builder $BUILDER was terminated by somebody else" 'run the same command again' ;;
    esac
    [ "$SECONDS" -lt "$deadline" ] ||
      stop_with "$EXIT_TIMEOUT" "the builder does not finish within $MINUTES minutes. Its console: $(console)" \
        'it needs a way to S3 and to the packages of Amazon Linux: look at the subnet (--subnet), or give it more time (--timeout)'
    progress "$BUILDER is $state"
    pause
  done
  end_progress
  check_builder
}

# check_builder: stopped alone does not say that all went well. EC2 has the last words some time after the end.
check_builder() {
  local said deadline=$((SECONDS + ${MUSTER_BAKE_CONSOLE_SECONDS:-300}))
  while :; do
    said=$(console)
    case "$said" in
    *'muster-bake: ready'*) return 0 ;;
    *'muster-bake: failed'*)
      stop_with "$EXIT_STACK" "the builder could not be prepared. It says: ${said##*muster-bake: }" \
        'mend that (a way to the internet, mostly), and run the same command again'
      ;;
    esac
    [ "$SECONDS" -lt "$deadline" ] ||
      stop_with "$EXIT_STACK" "the builder stopped and does not say how it went. Its console: $said" 'run the same command again'
    progress 'waits for the console of the builder'
    pause
  done
}

# The end of its console, in one line.
console() {
  # Only machines of the Nitro kind have the newest.
  try_aws ec2 get-console-output --instance-id "$BUILDER" --latest --query Output ||
    try_aws ec2 get-console-output --instance-id "$BUILDER" --query Output || REPLY='(it cannot be read)'
  printf '%s\n' "$REPLY" | tr -d '\r' | tail -n 5 | tr '\n' ' '
}

make_image() {
  local deadline=$((SECONDS + MINUTES * 60)) tags
  step 'making the image'
  tags="{Key=Name,Value=muster-$VERSION-$ARCH},{Key=muster:image,Value=yes},{Key=muster:version,Value=$VERSION},{Key=muster:bundle,Value=$SHA256}"
  call_aws ec2 create-image --instance-id "$BUILDER" --name "muster-$VERSION-$ARCH-$(date -u +%Y%m%d-%H%M%S)" \
    --description "Muster $VERSION on Amazon Linux 2023" --query ImageId \
    --tag-specifications "ResourceType=image,Tags=[$tags]" "ResourceType=snapshot,Tags=[$tags]"
  IMAGE=$REPLY
  while :; do
    call_aws ec2 describe-images --image-ids "$IMAGE" --query 'Images[0].[State,StateReason.Message]'
    case "$REPLY" in
    available*) break ;;
    failed* | error* | invalid* | deregistered*)
      stop_with "$EXIT_STACK" "the image $IMAGE is $(printf '%s' "$REPLY" | tr '\t' ' ')" \
        "remove it (--delete $VERSION), and run the same command again"
      ;;
    esac
    [ "$SECONDS" -lt "$deadline" ] ||
      stop_with "$EXIT_TIMEOUT" "the image $IMAGE is not available within $MINUTES minutes" \
        'AWS carries on: look again later with the same command, which names it'
    progress "$IMAGE is $(printf '%s' "$REPLY" | cut -f 1)"
    pause
  done
  end_progress
}

# remove_builder: also the way out of every failure.
remove_builder() {
  local id=$BUILDER
  if [ -z "$id" ]; then return 0; fi
  BUILDER=''
  try_aws ec2 terminate-instances --instance-ids "$id" --query 'TerminatingInstances[0].InstanceId' ||
    printf 'Note: the builder %s could not be terminated, and costs money: aws ec2 terminate-instances --region %s --instance-ids %s\n' \
      "$id" "$REGION" "$id" >&2
}

show_use() {
  say ''
  say "  image       $IMAGE ($ARCH, version $VERSION)"
  say "  workers     ./setup.sh --region $REGION --worker-ami $IMAGE"
  say "  nodes       ./setup.sh --region $REGION --ami $IMAGE"
  say '  Workers run the version of their image: bake anew for each version, before it is deployed.'
}

delete_images() {
  local image name sha snapshots snapshot
  step "looking for images of version $DELETE"
  find_images "$DELETE" "$ARCH"
  if [ -z "$REPLY" ]; then
    say "  there is none in $REGION"
    exit "$EXIT_ABSENT"
  fi
  printf '%s\n' "$REPLY" >"$WORK/images"
  awk -F '\t' '{ print "  " $1 "  " $2 }' "$WORK/images"
  if [ "$DRY_RUN" = yes ]; then return 0; fi
  ask 'Remove them? Launch templates that name them launch nothing any more.'
  step 'removing images and snapshots'
  while IFS='	' read -r image name sha snapshots; do
    call_aws ec2 deregister-image --image-id "$image"
    for snapshot in $snapshots; do
      try_aws ec2 delete-snapshot --snapshot-id "$snapshot" || [ "$AWS_CODE" = InvalidSnapshot.NotFound ] || fail_aws ''
    done
    say "  $image is removed"
  done <"$WORK/images"
}
