#!/usr/bin/env bash
# Why: the worker runs in a virtual environment of its own, built from locked and hashed packages, so that
# neither a change of the base image nor a new release on the index changes what draws. The environment
# belongs to root: the worker cannot rewrite its own code.
# From settings.env: BAKE_PYTHON (such as 3.11), the pinned Python's name and hash, and where the package index is
# not the usual one, its place.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh
# shellcheck source=provision/lib/python.sh
source /opt/bake/lib/python.sh

uv=/opt/bake/tools/bin/uv
venv=$WORKER_VENV
export UV_CACHE_DIR=/opt/bake/cache/uv
# uv gets the Python to take, and neither looks for one nor fetches one.
export UV_PYTHON_DOWNLOADS=never

install --directory --mode=0755 "$WORKER_FOLDER"

python=$(python_for_worker)
if [ "$(readlink --canonicalize "$venv/bin/python")" != "$(readlink --canonicalize "$python")" ]; then
  "$uv" venv --quiet --clear --python "$python" "$venv"
fi
echo "note: the worker runs on $("$python" -V) of $python"

# `sync` also removes what the lock does not name. Bytecode is compiled now, since the worker may not write
# here and would compile everything at each start.
"$uv" pip sync --quiet --python "$venv/bin/python" --require-hashes --compile-bytecode \
  /opt/bake/requirements/worker.txt
# The lock holds all that the worker needs; its own wheel was built beside this bake and has no hash there.
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-index --compile-bytecode \
  --reinstall /opt/bake/wheels/flux_worker-*.whl

# uv leaves its lock files in everybody's reach; nobody on the image locks anything by them.
rm -f "$venv/.lock"
