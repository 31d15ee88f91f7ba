#!/usr/bin/env bash
# Why: the worker runs in its own virtual environment of locked and hashed packages, so that neither a change of
# the base AMI nor a new release on the index changes it. The environment belongs to root: the worker can't rewrite
# its own code.
# From settings.env: WORKER_FOLDER, WORKER_VENV, BAKE_PYTHON (such as 3.11), the pinned Python's name and hash, and
# the package index if it is not the default one.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh
# shellcheck source=provision/lib/python.sh
source /opt/bake/lib/python.sh

uv=/opt/bake/tools/bin/uv
venv=$WORKER_VENV
export UV_CACHE_DIR=/opt/bake/cache/uv
# uv gets the Python's path, so it must neither search for one nor download one.
export UV_PYTHON_DOWNLOADS=never

install --directory --mode=0755 "$WORKER_FOLDER"

python=$(python_for_worker)
if [ "$(readlink --canonicalize "$venv/bin/python")" != "$(readlink --canonicalize "$python")" ]; then
  "$uv" venv --quiet --clear --python "$python" "$venv"
fi
echo "note: the worker runs on $("$python" -V) of $python"
# A system's Python has its bytecode. The pinned one comes without, and each start would compile what it imports.
case $python in
  "$WORKER_FOLDER"/*)
    "$python" -I -m compileall -q -j 0 -x '/(site-packages|test|tests|idlelib|lib2to3|tkinter|turtledemo)/' \
      "$("$python" -I -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
    ;;
esac

# `sync` also removes packages that are not locked. Bytecode is compiled now, since the worker can't write here
# and would compile everything at each start.
"$uv" pip sync --quiet --python "$venv/bin/python" --require-hashes --compile-bytecode \
  /opt/bake/requirements/worker.txt
# The lock has all dependencies. The worker's own wheel was built for this bake and has no hash in it.
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-index --compile-bytecode \
  --reinstall /opt/bake/wheels/flux_worker-*.whl

# uv leaves a lock file that anybody can write; nothing on the image needs it.
rm -f "$venv/.lock"
