#!/usr/bin/env bash
# Why: on Neuron the worker uses optimum-neuron, whose pins differ from the worker's own. So it gets a second
# environment with its own lock, and the service runs from that. Experimental: not run on hardware yet.
# worker.env names the backend and the folder of compiled models; systemd reads it after any Environment=.
# From settings.env: NEURON_PYTHON_INDEX (empty: no such environment), BAKE_PYTHON, NEURON_VENV, NEURON_MODELS.
# The sizes are those that compile-neuron.sh compiles, once the weights are there.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh
# shellcheck source=provision/lib/python.sh
source /opt/bake/lib/python.sh

[ -n "$NEURON_PYTHON_INDEX" ] || exit 0

uv=/opt/bake/tools/bin/uv
venv=$NEURON_VENV
export UV_CACHE_DIR=/opt/bake/cache/uv
export UV_PYTHON_DOWNLOADS=never

"$uv" venv --quiet --clear --python "$(python_for_worker)" "$venv"
# Some packages are on both indexes; either way the lock has their hashes.
"$uv" pip sync --quiet --python "$venv/bin/python" --require-hashes --compile-bytecode \
  --index "$NEURON_PYTHON_INDEX" --index-strategy unsafe-best-match \
  /opt/bake/requirements/worker-neuron.txt
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-index --compile-bytecode \
  --reinstall /opt/bake/wheels/flux_worker-*.whl

# uv leaves a lock file that anybody can write; nothing on the image needs it.
rm -f "$venv/.lock"

install --directory --mode=0755 /etc/systemd/system/flux-worker.service.d
cat >/etc/systemd/system/flux-worker.service.d/neuron.conf <<UNIT
# This image draws on NeuronCores, in the sizes compiled below $NEURON_MODELS. Experimental.
[Service]
ExecStart=
ExecStart=$venv/bin/flux-worker serve
# Weights go onto the cores shard by shard, from a fresh volume; while bytes come in the worker asks for more.
TimeoutStartSec=3600
UNIT
chmod 0644 /etc/systemd/system/flux-worker.service.d/neuron.conf
echo "note: the worker's backend is neuron, which is experimental"
