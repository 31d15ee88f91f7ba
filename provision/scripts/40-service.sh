#!/usr/bin/env bash
# Why: a boot of the image must start the worker. This bake must not, since there is no queue, and a started
# worker would leave traces. systemd refuses a unit without its working directory, so it is created here, owned by
# the unit's user.
# From settings.env: BAKE_USER, WORKER_STATE.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh

install --directory --owner="$BAKE_USER" --group="$(id --group --name "$BAKE_USER")" --mode=0755 \
  "$WORKER_STATE"
systemctl daemon-reload
# The path unit starts the worker if its settings are written after the boot.
systemctl enable --quiet flux-worker.service flux-worker.path
# Each boot reads ahead what the worker will need; not this one, where the bake's folder is.
systemctl enable --quiet flux-warm.service
