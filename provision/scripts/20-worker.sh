#!/usr/bin/env bash
# Why: the worker runs in a virtual environment of its own, built from locked and hashed packages, so that
# neither a change of the base image nor a new release on the index changes what draws. The environment
# belongs to root: the worker cannot rewrite its own code.
# From settings.env: BAKE_PYTHON (such as 3.11), and where the package index is not the usual one, its place.
set -euo pipefail

uv=/opt/bake/tools/bin/uv
home=/opt/flux-worker
venv=$home/venv
export UV_CACHE_DIR=/opt/bake/cache/uv
# The system's Python serves where it has the right version; else uv brings one along, onto the image.
export UV_PYTHON_INSTALL_DIR=$home/python
export UV_PYTHON_PREFERENCE=system

install --directory --mode=0755 "$home"

have=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
if [ "$have" != "$BAKE_PYTHON" ]; then
  "$uv" venv --quiet --clear --python "$BAKE_PYTHON" "$venv"
fi

# `sync` also removes what the lock does not name. Bytecode is compiled now, since the worker may not write
# here and would compile everything at each start.
"$uv" pip sync --quiet --python "$venv/bin/python" --require-hashes --compile-bytecode \
  /opt/bake/requirements/worker.txt
# The lock holds all that the worker needs; its own wheel was built beside this bake and has no hash there.
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-index --compile-bytecode \
  --reinstall /opt/bake/wheels/flux_worker-*.whl

# uv leaves its lock files in everybody's reach; nobody on the image locks anything by them.
rm -f "$venv/.lock" "$UV_PYTHON_INSTALL_DIR/.lock"
