# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by node-boot.sh and refresh-fleet.sh, after machine.sh: the settings of the fleet, which the stack keeps in a parameter of
# the Parameter Store. A node looks at the file again and again, and takes over what has changed.

# fetch_fleet_settings <command that runs the rest>: fleet.env is what the parameter says. 1 and WHY when it cannot be read, or is nothing that a node would
# take: then the file before stays, so that a node that is started anew starts.
fetch_fleet_settings() {
  local file=$state/fleet/fleet.env
  rm -f "$file.new"
  if ! "$@" aws ssm get-parameter --name "$FLEET_SETTINGS" --region "$AWS_REGION" --query Parameter.Value --output text \
    --cli-connect-timeout 5 --cli-read-timeout 20 >"$file.new"; then
    WHY="the parameter $FLEET_SETTINGS cannot be read"
    return 1
  fi
  if cmp -s "$file.new" "$file"; then
    rm -f "$file.new"
    return 0
  fi
  # Nothing but this file: what the node has besides is no matter of it.
  if ! WHY=$(MUSTER_CONFIG_FILE=/nonexistent MUSTER_FLEET_SETTINGS_FILE=$file.new node "$home/dist/cli.js" settings 2>&1 >/dev/null); then
    WHY="the parameter $FLEET_SETTINGS is refused: $WHY"
    return 1
  fi
  mv "$file.new" "$file"
}
