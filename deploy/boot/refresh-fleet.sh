#!/usr/bin/env bash
# Brings the settings of the fleet to what the stack says now. Run by muster-fleet.timer, as the user muster; ends with 1 when they stay as they were.
set -Eeuo pipefail
umask 077
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/boot/lib/machine.sh
. "$here/lib/machine.sh"
# shellcheck source=deploy/boot/lib/fleet-settings.sh
. "$here/lib/fleet-settings.sh"

if ! fetch_fleet_settings command; then
  say "the settings of the fleet stay as they are: $WHY"
  exit 1
fi
