#!/usr/bin/env bash
# Why: the worker, its checks and the seal need a few packages of the operating system. A Deep Learning AMI has
# all of them, and then nothing is downloaded.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh
# shellcheck source=provision/lib/packages.sh
source /opt/bake/lib/packages.sh

packages=(
  ca-certificates # the worker speaks TLS to SQS, S3 and EventBridge
  git             # user data fetches its script from Git at launch
  util-linux      # findmnt for the checks, fstrim for the seal
)
packages_install "${packages[@]}"
