#!/usr/bin/env bash
# Why: how many GPUs there are is known when an instance boots: an image made on one may boot with four. systemd runs
# this as root, with the unit's environment, before flux-worker.service and each flux-worker@N.service (ExecCondition=):
#   workers.sh FILE [N]
# It writes the number of workers to FILE, where the unit's worker finds it. Exit code 0: this unit's worker starts.
# With several, flux-worker.service starts theirs and does not start itself: so whatever starts it (a boot,
# flux-worker.path, a person) starts all of them.
set -euo pipefail

file=$1
worker=${2:-}
devices=${PCI_DEVICES:-/sys/bus/pci/devices}

# NVIDIA's VGA and 3D controllers; NVSwitches and audio have other classes.
gpus() {
  local device count=0
  for device in "$devices"/*; do
    [ -r "$device/vendor" ] && [ -r "$device/class" ] || continue
    case "$(<"$device/vendor") $(<"$device/class")" in
      "0x10de 0x0300"* | "0x10de 0x0302"*) count=$((count + 1)) ;;
    esac
  done
  echo "$count"
}

# The services of these names that run, or begin or end to.
running() {
  systemctl list-units --plain --no-legend --state=active,activating,deactivating,reloading "$@"
}

# Neuron's one worker has all cores. On the CPU there are several only where that is said.
workers=${FLUX_WORKERS:-}
case ${FLUX_BACKEND:-auto} in
  neuron) workers=1 ;;
  cpu) workers=${workers:-1} ;;
  *) workers=${workers:-$(gpus)} ;;
esac
[ "$workers" != 0 ] || workers=1 # no GPU: the worker says so

printf 'FLUX_WORKERS=%s\n' "$workers" >"$file"

if ! [[ $workers =~ ^[1-9][0-9]?$ ]]; then
  # A wrong setting: the one worker starts, names it, and is not started again.
  [ -z "$worker" ] && exit 0
  exit 1
fi
if [ -z "$worker" ] && [ "$workers" -gt 1 ]; then
  units=()
  for ((number = 0; number < workers; number++)); do
    units+=("flux-worker@$number.service")
  done
  echo "this instance has $workers workers: ${units[*]}"
  # Not waited for: they start after this unit, which is starting.
  systemctl start --no-block "${units[@]}"
  exit 1
fi
if [ -n "$worker" ] && { [ "$workers" = 1 ] || [ "$worker" -ge "$workers" ]; }; then
  echo "flux-worker@$worker.service is not needed: this instance has $workers worker(s), see FLUX_WORKERS"
  exit 1
fi

# The number may have changed while workers run: those of the old one keep their GPUs until they are stopped.
others=flux-worker.service
[ -n "$worker" ] || others='flux-worker@*.service'
if [ -n "$(running "$others")" ]; then
  echo "$others runs, since FLUX_WORKERS was different when it began: systemctl restart flux-worker"
  exit 1
fi
