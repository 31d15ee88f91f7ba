#!/usr/bin/env bash
# Why: Neuron generates only sizes that were compiled. The compiled models stay on the image, so that no instance
# compiles at boot. They belong to root: the worker only reads them. Needs the weights.
# From settings.env: NEURON_SIZES (such as 1024x1024 768x1344), MODEL_REVISION, HF_HUB_CACHE, NEURON_VENV,
# NEURON_MODELS.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh

export FLUX_BACKEND=neuron FLUX_NEURON_DIR=$NEURON_MODELS
export FLUX_MODEL_REVISION=$MODEL_REVISION HF_HUB_CACHE
# Keep the compiler's other files off the image.
scratch=$(mktemp --directory)
trap 'rm -rf "$scratch" /var/tmp/neuron-compile-cache' EXIT
export HOME=$scratch TMPDIR=$scratch

for size in $NEURON_SIZES; do
  "$NEURON_VENV/bin/flux-worker" compile --width "${size%x*}" --height "${size#*x}"
  echo "note: compiled $size for Neuron"
done
