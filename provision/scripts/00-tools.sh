#!/usr/bin/env bash
# Why: the bake itself needs uv (to build the worker's environment) and huggingface_hub (to prefetch the
# weights) on the machine, pinned and hashed, without touching the system's Python. They live in a virtual
# environment under /opt/bake and are gone once the image is sealed.
# Runs alone and first: the prefetch starts as soon as it is done.
set -euo pipefail

tools=/opt/bake/tools
export DEBIAN_FRONTEND=noninteractive

# Debian and Ubuntu ship python3 without the part that can put pip into a new environment.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  apt-get -o DPkg::Lock::Timeout=300 update --quiet=2
  apt-get -o DPkg::Lock::Timeout=300 install --quiet=2 --yes --no-install-recommends python3-venv
fi

# `pip` is the last thing that a new environment gets: without it the environment is half made.
[ -x "$tools/bin/pip" ] || python3 -m venv --clear "$tools"

"$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir --no-compile \
  --require-hashes --requirement /opt/bake/requirements/tools.txt
