#!/usr/bin/env bash
# Why: the bake itself needs uv (to build the worker's environment) and huggingface_hub (to prefetch the
# weights) on the machine, pinned and hashed, without touching the system's Python. They live in a virtual
# environment under /opt/bake and are gone once the image is sealed.
# Runs alone and first: the prefetch starts as soon as it is done.
# From settings.env: BAKE_PYTHON (such as 3.11).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/../lib source=../lib/packages.sh
source /opt/bake/lib/packages.sh

tools=/opt/bake/tools
python=python3

# The locks of the tools begin with Python 3.10. Amazon Linux's own is 3.9, and it packages newer ones beside it.
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
  python=python$BAKE_PYTHON
  packages_install "$python"
fi
# Debian and Ubuntu ship python3 without the part that can put pip into a new environment.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  packages_install "$python-venv"
fi

# `pip` is the last thing that a new environment gets: without it the environment is half made.
[ -x "$tools/bin/pip" ] || "$python" -m venv --clear "$tools"

"$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir --no-compile \
  --require-hashes --requirement /opt/bake/requirements/tools.txt
