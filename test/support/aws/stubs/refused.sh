#!/usr/bin/env bash
# Stands for programs that would change the real machine under a simulated one: package managers, users, mounts.
echo "[simulator] refused: $(basename "$0") $*" >&2
exit 1
