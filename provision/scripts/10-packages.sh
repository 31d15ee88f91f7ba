#!/usr/bin/env bash
# Why: the few packages of the operating system that the worker, its checks and the seal rely on. A Deep
# Learning AMI has all of them, and then nothing is fetched at all.
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive
packages=(
  ca-certificates # the worker speaks TLS to SQS, S3 and EventBridge
  util-linux      # findmnt for the checks, fstrim for the seal
)

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done

if [ "${#missing[@]}" -gt 0 ]; then
  # Timers of the system may hold the lock just after a boot.
  apt-get -o DPkg::Lock::Timeout=300 update --quiet=2
  apt-get -o DPkg::Lock::Timeout=300 install --quiet=2 --yes --no-install-recommends "${missing[@]}"
fi
