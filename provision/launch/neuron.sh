#!/usr/bin/env bash
# Why: before the worker starts on an instance with Neuron devices (inf2, trn1), their driver must be loaded
# and the devices there. User data fetches this file from Git at launch (R-USERDATA).
set -euo pipefail

if ! modinfo neuron >/dev/null 2>&1; then
  echo "no Neuron driver on this image: the worker draws only where FLUX_BACKEND=cpu says so"
  exit 0
fi

modprobe neuron
for _ in $(seq 30); do
  if [ -e /dev/neuron0 ]; then
    echo "Neuron devices: $(find /dev -maxdepth 1 -name 'neuron[0-9]*' | wc -l)"
    exit 0
  fi
  sleep 2
done
echo "the Neuron driver is loaded, but there is no /dev/neuron0 after a minute" >&2
exit 1
