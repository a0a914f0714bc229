# shellcheck shell=bash disable=SC2154
# Sourced by setup.sh: which image of Amazon Linux the machines have. CloudFormation looks up the newest one at each update, which
# alone would replace every machine: so what a deployment has stays, until --update-images asks for the newest.

# keep_images: gives the stack the images that it has, unless the newest are asked for.
keep_images() {
  local processor kept
  if must_be_made; then return 0; fi
  for processor in Arm Intel; do
    kept=$(deployed "pKept${processor}ImageId")
    if [ "$UPDATE_IMAGES" = yes ]; then
      kept=''
    elif [ -z "$kept" ]; then
      kept=$(deployed "p${processor}Image.resolved")
    fi
    give "pKept${processor}ImageId" "$kept"
  done
}

# deployed <parameter>: what the stack has.
deployed() { awk -F '\t' -v name="$1" '$1 == name { print $2 }' "$WORK/deployed"; }

# show_images: said with the plan. Whether there is a newer one, nobody waits for.
show_images() {
  local processor kept place
  for processor in Arm Intel; do
    kept=$(setting "pKept${processor}ImageId")
    if [ -z "$kept" ] || ! uses_image "$processor"; then continue; fi
    place=$(setting "p${processor}Image")
    if try_aws ssm get-parameters --names "$place" --query 'Parameters[].Value' && [ -n "$REPLY" ] && [ "$REPLY" != "$kept" ]; then
      say "  image       $kept stays; Amazon Linux has a newer one, $REPLY: --update-images takes it, and replaces the machines"
    else
      say "  image       $kept stays"
    fi
  done
}

# uses_image <Arm|Intel>: whether any machine is launched from that Amazon Linux.
uses_image() {
  local architecture=arm64
  if [ "$1" = Intel ]; then architecture=x86_64; fi
  # The witness is Arm.
  if [ "$1" = Arm ] && [ "$(setting pRedis)" = nodes ]; then return 0; fi
  { [ "$(setting pNodeArchitecture)" = "$architecture" ] && [ -z "$(setting pNodeImageId)" ]; } ||
    { [ "$(setting pWorkerArchitecture)" = "$architecture" ] && [ -z "$(setting pWorkerImageId)" ]; }
}
