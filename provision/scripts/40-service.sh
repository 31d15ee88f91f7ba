#!/usr/bin/env bash
# Why: a boot of the image must start the worker; this bake must not, since there is no queue here and a
# started worker would leave traces. The working directory exists from now on (systemd refuses a unit
# without it), owned by the user the unit runs as.
# From settings.env: BAKE_USER.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh

install --directory --owner="$BAKE_USER" --group="$(id --group --name "$BAKE_USER")" --mode=0755 \
  "$WORKER_STATE"
systemctl daemon-reload
# The path starts the worker where its settings come later than the boot.
systemctl enable --quiet flux-worker.service flux-worker.path
