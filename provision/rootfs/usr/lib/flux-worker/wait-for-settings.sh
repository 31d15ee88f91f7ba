#!/usr/bin/env bash
# Why: a worker whose launch said nothing of queue, bucket and bus can't start. It is no failure either: this
# says what is missing, in the journal and on the console, and the unit waits until flux-worker.path sees
# instance.env written. systemd runs this as root, with the unit's environment (ExecCondition=).
set -euo pipefail

missing=()
for name in AWS_REGION FLUX_QUEUE_URL FLUX_BUCKET FLUX_EVENT_BUS; do
  [ -n "${!name:-}" ] || missing+=("$name")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

text="flux-worker waits: ${missing[*]} must stand in /etc/flux-worker/instance.env.
It starts as soon as they do. User data writes the file: bake userdata --profile NAME prints it."
echo "$text"
# What EC2 shows as the instance's console output; a container may have none.
{ echo "$text" >/dev/console; } 2>/dev/null || true
exit 1
