#!/usr/bin/env bash
# Builds the container image for Arm and for x86-64, as nodes, workers and Fargate tasks may be either, and pushes both under one
# tag: scripts/push-image.sh REPOSITORY:TAG. Needs docker with buildx, and a login to the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tag=${1:?Usage: scripts/push-image.sh REPOSITORY:TAG}
# The other processor is emulated, by the kernel of this machine.
docker run --privileged --rm public.ecr.aws/eks-distro-build-tooling/binfmt-misc:qemu-v7.0.0 --install arm64,amd64
docker buildx create --name muster --use
trap 'docker buildx rm muster' EXIT
docker buildx build --platform linux/amd64,linux/arm64 --file deploy/Dockerfile --tag "$tag" --push .
