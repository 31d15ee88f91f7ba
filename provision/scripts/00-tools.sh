#!/usr/bin/env bash
# Why: the bake needs uv (for the worker's environment) and huggingface_hub (for the weights) on the machine,
# pinned and hashed, without touching the system's Python. They get a virtual environment in /opt/bake, which the
# seal removes. Runs first and alone, because the prefetch starts as soon as it is done.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh
# shellcheck source=provision/lib/python.sh
source /opt/bake/lib/python.sh

tools=/opt/bake/tools

python_tools
"$tools/bin/python" -I "$(<"$tools/pip")" install --quiet --disable-pip-version-check --no-input \
  --no-cache-dir --no-compile --require-hashes --requirement /opt/bake/requirements/tools.txt
