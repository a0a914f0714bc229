# shellcheck shell=bash disable=SC2154
# Sourced by setup.sh: every call to AWS. The CLI repeats what may be repeated (five times, with growing and random pauses), and
# gives up on a connection that does not answer.

export AWS_PAGER='' AWS_MAX_ATTEMPTS="${AWS_MAX_ATTEMPTS:-5}" AWS_RETRY_MODE="${AWS_RETRY_MODE:-standard}"
# The answers are read by this script.
export AWS_CLI_AUTO_PROMPT=off AWS_DEFAULT_OUTPUT=json

# try_aws <service> <operation> [arguments]: REPLY is the answer as text. Where it fails: AWS_CODE and AWS_MESSAGE.
# Secrets are handed over and fetched in files, never here.
try_aws() {
  REPLY=''
  save_aws "$WORK/reply" "$@" --output text || return 1
  REPLY=$(cat "$WORK/reply")
  # How the CLI writes that there is nothing.
  if [ "$REPLY" = None ]; then REPLY=''; fi
}

# save_aws <file> <service> <operation> [arguments]: the same, with the answer in a file that nobody else may read.
save_aws() {
  local file=$1
  shift
  AWS_CODE='' AWS_MESSAGE='' AWS_ACTION="$1 $2"
  if aws "$@" --region "$REGION" --cli-connect-timeout 10 --cli-read-timeout 60 </dev/null >"$file" 2>"$WORK/error"; then return 0; fi
  rm -f "$file"
  AWS_MESSAGE=$(sed -e '/^$/d' "$WORK/error" | tail -n 3)
  AWS_CODE=$(sed -n 's/.*An error occurred (\([^)]*\)) when calling.*/\1/p' "$WORK/error" | head -n 1)
  # What answers without a body has no other code.
  if [ "$AWS_CODE" = 404 ]; then AWS_CODE=NotFound; fi
  if [ "$AWS_CODE" = 403 ]; then AWS_CODE=AccessDenied; fi
  return 1
}

# call_aws <service> <operation> [arguments]: as try_aws, and ends the run where it fails.
call_aws() { try_aws "$@" || fail_aws ''; }

# fail_aws <what to do, or nothing>: ends the run with what AWS said about the last call.
fail_aws() {
  local action
  action=$(sed -n 's/.*when calling the \([A-Za-z0-9]*\) operation.*/\1/p' "$WORK/error" | head -n 1)
  action=${AWS_ACTION%% *}:${action:-${AWS_ACTION#* }}
  case "$AWS_CODE" in
  AccessDenied* | UnauthorizedOperation | UnauthorizedAccess | *NotAuthorized*)
    stop_with "$EXIT_ACCESS" "you may not call $action. AWS says: $AWS_MESSAGE" \
      "have the permission $(permission "$action") given to this user or role (an administrator can), and run the same command again"
    ;;
  ExpiredToken* | InvalidClientTokenId | UnrecognizedClientException | SignatureDoesNotMatch | AuthFailure | InvalidAccessKeyId | RequestExpired)
    stop_with "$EXIT_ACCESS" "AWS does not take these credentials ($AWS_CODE). AWS says: $AWS_MESSAGE" \
      'log in again ("aws sso login" or "aws configure"), look at the clock of this machine, and whether the region is enabled in this account'
    ;;
  *LimitExceeded* | *QuotaExceeded*)
    stop_with "$EXIT_LIMIT" "a limit of this account is reached with $action. AWS says: $AWS_MESSAGE" \
      "${1:-ask for more in Service Quotas, or free some, and run the same command again}"
    ;;
  esac
  case "$AWS_MESSAGE" in
  *'Unable to locate credentials'* | *'could not be found'*profile* | *'Partial credentials'* | *'Error loading SSO Token'* | *'SSO session'*)
    stop_with "$EXIT_ACCESS" "there are no credentials for AWS. The CLI says: $AWS_MESSAGE" \
      'log in ("aws configure", "aws sso login", or AWS_PROFILE), then check with: aws sts get-caller-identity'
    ;;
  *'Could not connect to the endpoint'* | *'Connect timeout'* | *'Read timeout'* | *'Connection was closed'* | *'Proxy'*)
    stop_with "$EXIT_AWS" "AWS does not answer in the region $REGION. The CLI says: $AWS_MESSAGE" \
      'look at the name of the region, the network and the proxy (HTTPS_PROXY) of this machine, and run the same command again'
    ;;
  esac
  stop_with "$EXIT_AWS" "$action failed. AWS says: $AWS_MESSAGE" "${1:-run the same command again; it goes on where it was}"
}

# permission <service:Operation>: as IAM names it, where that is not the same.
permission() {
  case "$1" in
  s3api:HeadBucket | s3api:ListObject*) echo s3:ListBucket ;;
  s3api:HeadObject) echo 's3:GetObject (and s3:ListBucket on the bucket, without which what is not there looks forbidden)' ;;
  s3api:DeleteObjects) echo s3:DeleteObject ;;
  s3api:PutPublicAccessBlock) echo s3:PutBucketPublicAccessBlock ;;
  s3api:*) echo "s3:${1#*:}" ;;
  service-quotas:*) echo "servicequotas:${1#*:}" ;;
  elbv2:*) echo "elasticloadbalancing:${1#*:}" ;;
  *) echo "$1" ;;
  esac
}
