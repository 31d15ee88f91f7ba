#!/usr/bin/env bash
# Why: an image is only repeatable when every package it installs is pinned and hashed, and `bake` itself holds
# credentials of AWS and Hugging Face. `make lock` runs this to write the pins anew. For the machine that is
# baked (x86-64 Linux), whatever runs it:
#   worker.txt  everything the worker's virtual environment holds, from worker/pyproject.toml
#   tools.txt   uv and huggingface_hub, which run under the base image's own python3 (3.10 on Ubuntu 22.04)
#   python.json the Python of the worker's environment, for bases that have none of that version: uv's own list of
#               what it would fetch, reduced to one
#   worker-neuron.txt      the same for a worker on Neuron, from worker-neuron.in, without the Neuron SDK
#   worker-neuron-sdk.txt  the same with it, which is what an image gets; written only where NEURON_PYTHON_INDEX
#                          names AWS's index, such as https://pip.repos.neuron.amazonaws.com
# For the controller, on any machine with Python 3.11 or newer, installed by the Makefile:
#   ../../requirements/controller.txt   what `bake`, the local cloud and the tests need, from pyproject.toml;
#                          what the worker needs as well is in the version of worker.txt
#   ../../requirements/clients.txt      tools that others wrote, for the tests of the local cloud (`make test-clients`)
#   ../../requirements/bake.txt         of these what `bake` alone needs to bake on AWS; it comes with bake's wheel
# `UV` names the uv to use; further arguments go to every `uv pip compile` (`--upgrade`, `--upgrade-package X`).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
uv=${UV:-uv}

compile() { # compile SOURCE OUTPUT PYTHON [ARGUMENTS…]
  local source=$1 output=$2 python=$3
  shift 3
  # The header says `make lock` instead of the command, and no index is named: neither belongs to the lock.
  "$uv" pip compile "$source" --output-file "$output" --quiet \
    --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
    --python-version "$python" --custom-compile-command "make lock" "$@"
}

compile ../../worker/pyproject.toml worker.txt 3.11 --python-platform x86_64-manylinux_2_28 "$@"
compile tools.in tools.txt 3.10 --universal "$@"
"${PYTHON:-python3}" python.py "$@"
compile worker-neuron.in worker-neuron.txt 3.11 --python-platform x86_64-manylinux_2_28 "$@"
compile ../../pyproject.toml ../../requirements/controller.txt 3.11 --universal --extra moto --extra dev \
  --constraint worker.txt "$@"
compile ../../pyproject.toml ../../requirements/bake.txt 3.11 --universal \
  --constraint ../../requirements/controller.txt "$@"
compile ../../requirements/clients.in ../../requirements/clients.txt 3.11 --universal "$@"
if [ -n "${NEURON_PYTHON_INDEX:-}" ]; then
  # Some packages are on both indexes, the SDK's real versions on AWS's alone.
  compile worker-neuron-sdk.in worker-neuron-sdk.txt 3.11 --python-platform x86_64-manylinux_2_28 \
    --constraint worker-neuron.txt --index "$NEURON_PYTHON_INDEX" --index-strategy unsafe-best-match "$@"
fi
