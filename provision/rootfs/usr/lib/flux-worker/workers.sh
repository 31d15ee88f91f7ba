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
if [ -n "$worker" ]; then
  [ "$workers" -gt 1 ] && [ "$worker" -lt "$workers" ] && exit 0
  echo "flux-worker@$worker.service is not needed: this instance has $workers worker(s), see FLUX_WORKERS"
  exit 1
fi
[ "$workers" -gt 1 ] || exit 0

units=()
for ((number = 0; number < workers; number++)); do
  units+=("flux-worker@$number.service")
done
echo "this instance has $workers workers: ${units[*]}"
# Not waited for: this unit's start would hold up theirs where they are started, and stopped, with it.
systemctl start --no-block "${units[@]}"
exit 1
