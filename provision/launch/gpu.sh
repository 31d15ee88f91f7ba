#!/usr/bin/env bash
# Why: before the worker starts on an instance with an NVIDIA GPU, its driver must be up: a worker that finds
# no GPU ends, and is not started again. User data fetches this file from Git at launch (R-USERDATA).
set -euo pipefail

if ! command -v nvidia-smi >/dev/null; then
  echo "no NVIDIA driver on this image: the worker draws only where FLUX_BACKEND=cpu says so"
  exit 0
fi

# Keeps the driver loaded between processes: without it each start of the worker waits for it.
systemctl start nvidia-persistenced.service 2>/dev/null || nvidia-smi --persistence-mode=1 >/dev/null || true

# The first boot of a new instance may load the driver while user data runs already.
for _ in $(seq 30); do
  if found=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&1); then
    echo "GPU: $found"
    exit 0
  fi
  sleep 2
done
echo "nvidia-smi finds no GPU after a minute: $found" >&2
exit 1
