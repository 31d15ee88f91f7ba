#!/usr/bin/env bash
# Why: the bake itself needs uv (to build the worker's environment) and huggingface_hub (to prefetch the
# weights) on the machine, pinned and hashed, without touching the system's Python. They live in a virtual
# environment under /opt/bake and are gone once the image is sealed.
# Runs alone and first: the prefetch starts as soon as it is done.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh
# shellcheck source=provision/lib/python.sh
source /opt/bake/lib/python.sh

tools=/opt/bake/tools

python_tools
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir --no-compile \
  --require-hashes --requirement /opt/bake/requirements/tools.txt
