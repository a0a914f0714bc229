# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by setup.sh: the bundle, its bucket, and the secrets of Redis, all of which are there before the stack.

# build_bundle: BUNDLE_FILE, SHA256 and VERSION; and its code in $WORK/code.
build_bundle() {
  local made
  step 'building the bundle' 'half a minute'
  if [ -n "$BUNDLE" ]; then
    BUNDLE_FILE=$BUNDLE
    SHA256=$(hash_of "$BUNDLE")
  else
    BUNDLE_FILE=$WORK/bundle.tgz
    made=$(bash "$ROOT/scripts/bundle.sh" "$BUNDLE_FILE") ||
      stop_with "$EXIT_BUNDLE" 'the build failed; what it said stands above' 'mend that, or hand over a bundle that is built: --bundle FILE'
    SHA256=${made%% *}
  fi
  mkdir "$WORK/code"
  tar -xzf "$BUNDLE_FILE" -C "$WORK/code" 2>/dev/null || true
  [ -f "$WORK/code/deploy/boot/node-boot.sh" ] ||
    stop_with "$EXIT_BUNDLE" "$BUNDLE_FILE is no bundle of Muster" 'make one with: scripts/bundle.sh FILE'
  VERSION=$(node "$WORK/code/dist/cli.js" --version 2>"$WORK/error") ||
    stop_with "$EXIT_BUNDLE" "the code in the bundle does not start: $(tail -n 3 "$WORK/error")" 'build it anew: scripts/bundle.sh FILE'
  say "  version $VERSION, $(($(wc -c <"$BUNDLE_FILE") / 1024)) kB, SHA-256 $(printf '%s' "$SHA256" | cut -c 1-16)…"
  BUCKET=$NAME-muster-$ACCOUNT-$REGION
  BUNDLE_KEY=bundles/$VERSION-$(printf '%s' "$SHA256" | cut -c 1-16).tgz
}

hash_of() {
  node -e 'process.stdout.write(require("crypto").createHash("sha256").update(require("fs").readFileSync(process.argv[1])).digest("hex"))' "$1"
}

# Closed, though bundles hold no secret. Its tag comes last: a bucket without it is one that an earlier run did not finish.
make_bucket() {
  local arn
  step "looking at the bucket $BUCKET"
  if try_aws s3api get-bucket-tagging --bucket "$BUCKET" --expected-bucket-owner "$ACCOUNT" \
    --query "TagSet[?Key=='muster:deployment'].[Value]" && [ "$REPLY" = "$NAME" ]; then
    return 0
  fi
  case "$AWS_CODE" in
  NoSuchBucket) create_bucket ;;
  '' | NoSuchTagSet) ;;
  AccessDenied)
    stop_with "$EXIT_ACCESS" "the bucket $BUCKET cannot be looked at: you lack s3:GetBucketTagging, or it belongs to another account" \
      'have that permission given, or choose another --name'
    ;;
  *) fail_aws '' ;;
  esac
  call_aws s3api put-public-access-block --bucket "$BUCKET" --public-access-block-configuration \
    BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true
  # Emulators look at no conditions: to them this forbids everything.
  case "${AWS_ENDPOINT_URL:-}" in
  http://*)
    say "  not closed to HTTP: AWS is an emulator here ($AWS_ENDPOINT_URL)"
    call_aws s3api put-bucket-tagging --bucket "$BUCKET" --tagging "TagSet=[{Key=muster:deployment,Value=$NAME}]"
    return 0
    ;;
  esac
  arn=arn:$PARTITION:s3:::$BUCKET
  printf '{"Version":"2012-10-17","Statement":[{"Sid":"TlsOnly","Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["%s","%s/*"],"Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}' \
    "$arn" "$arn" >"$WORK/policy.json"
  call_aws s3api put-bucket-policy --bucket "$BUCKET" --policy "file://$WORK/policy.json"
  call_aws s3api put-bucket-tagging --bucket "$BUCKET" --tagging "TagSet=[{Key=muster:deployment,Value=$NAME}]"
}

create_bucket() {
  local deadline=$((SECONDS + 4200))
  # us-east-1 is no value of this parameter, which all other regions need.
  set -- --bucket "$BUCKET"
  if [ "$REGION" != us-east-1 ]; then set -- "$@" --create-bucket-configuration "LocationConstraint=$REGION"; fi
  until try_aws s3api create-bucket "$@"; do
    if [ "$AWS_CODE" != OperationAborted ] || [ "$SECONDS" -ge "$deadline" ]; then fail_aws ''; fi
    progress "S3 has not let go of the name $BUCKET, whose bucket was deleted: this takes up to an hour"
    pause
  done
  end_progress
}

# upload <key> <file>: in one call, so that there is all of it or nothing.
upload() {
  call_aws s3api put-object --bucket "$BUCKET" --key "$1" --body "$2" --expected-bucket-owner "$ACCOUNT" --query ETag
}

upload_all() {
  step 'uploading the bundle and the template' 'below a minute'
  # What is there already under this name has the same content.
  if ! try_aws s3api head-object --bucket "$BUCKET" --key "$BUNDLE_KEY" --expected-bucket-owner "$ACCOUNT" --query ETag; then
    [ "$AWS_CODE" = NotFound ] || fail_aws ''
    upload "$BUNDLE_KEY" "$BUNDLE_FILE"
  fi
  upload_template
}

# It is larger than what may be handed over in a call.
upload_template() {
  local suffix
  case "$PARTITION" in
  aws-cn) suffix=amazonaws.com.cn ;;
  aws-eusc) suffix=amazonaws.eu ;;
  *) suffix=amazonaws.com ;;
  esac
  upload templates/muster.yaml "$TEMPLATE"
  TEMPLATE_URL=https://$BUCKET.s3.$REGION.$suffix/templates/muster.yaml
}

# remove_old_bundles: all but the one that runs and the one before.
remove_old_bundles() {
  local key kept=0
  try_aws s3api list-objects-v2 --bucket "$BUCKET" --prefix bundles/ --query 'reverse(sort_by(Contents,&LastModified))[].[Key]' || return 0
  for key in $REPLY; do
    if [ "$key" = "$BUNDLE_KEY" ]; then continue; fi
    kept=$((kept + 1))
    if [ "$kept" -gt 1 ]; then try_aws s3api delete-object --bucket "$BUCKET" --key "$key" || return 0; fi
  done
}

# make_redis_secret: SECRET_ARN. Passwords and certificates of Redis are made once, here; no later run shows or replaces them.
make_redis_secret() {
  local secret=muster/$NAME/redis
  step "making the secret $secret"
  if try_aws secretsmanager describe-secret --secret-id "$secret" --query '[ARN,DeletedDate]'; then
    SECRET_ARN=$(printf '%s' "$REPLY" | cut -f 1)
    if [ "$(printf '%s' "$REPLY" | cut -f 2)" != None ]; then
      say '  it was to be deleted, and is kept'
      call_aws secretsmanager restore-secret --secret-id "$secret" --query ARN
    fi
    return 0
  fi
  [ "$AWS_CODE" = ResourceNotFoundException ] || fail_aws ''
  must_be_made ||
    stop_with "$EXIT_STACK" "the stack $NAME is there, but its secret $secret is not" \
      "its machines cannot be replaced without it. Restore it, or delete the deployment and make it anew: ./setup.sh --delete --name $NAME --region $REGION"
  node "$WORK/code/dist/cli.js" redis secrets --out "$WORK/redis.json" >/dev/null 2>"$WORK/error" ||
    stop_with "$EXIT_BUNDLE" "the secrets of Redis cannot be made: $(tail -n 3 "$WORK/error")" 'build the bundle anew'
  if ! try_aws secretsmanager create-secret --name "$secret" --secret-string "file://$WORK/redis.json" \
    --description "Passwords and certificates of the Redis of Muster" --tags "Key=muster:deployment,Value=$NAME" --query ARN; then
    # Another run was faster: its secret is as good.
    [ "$AWS_CODE" = ResourceExistsException ] || fail_aws ''
    call_aws secretsmanager describe-secret --secret-id "$secret" --query ARN
  fi
  SECRET_ARN=$REPLY
  rm -f "$WORK/redis.json"
}
