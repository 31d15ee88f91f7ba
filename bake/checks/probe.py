"""Sends a small program to the machine, gives it its input, and reads the facts it found as JSON.

One program answers many checks, so that checking costs few round trips. The programs are the modules in
`bake/checks/probes`; they use the standard library alone and run under any Python from 3.9 on.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import pytest
from testinfra.host import Host

from bake.checks.expectations import Expectations

# The program and its input both come by stdin, so neither stands in an argument list or a log.
_LOADER = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), sys.argv[2], 'exec'))"
_TAIL_LINES = 15


def run(host: Host, name: str, given: Mapping[str, Any], prefix: Sequence[str] = ()) -> dict[str, Any]:
    """Run the probe `name` with `given` as its JSON input, as root unless `prefix` says otherwise.

    The check fails when the probe does, with the end of what it said.
    """
    __tracebackhide__ = True
    program = resources.files("bake.checks.probes").joinpath(f"{name}.py").read_bytes()
    argv = [*(prefix or ["python3"]), "-c", _LOADER, str(len(program)), f"<probe {name}>"]
    done = host.run(shlex.join(argv), stdin=program + json.dumps(given).encode())
    if done.rc != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:])
        pytest.fail(f"the probe {name!r} ended with exit code {done.rc}:\n{said}", pytrace=False)
    # Libraries may print; the facts are the last line.
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def as_worker(expect: Expectations) -> list[str]:
    """The start of a command that runs a program as the worker's unit would, but without any network."""
    properties = (f"User={expect.user}", f"EnvironmentFile={expect.worker_env}", "PrivateNetwork=yes")
    # Without a GPU in sight the weights are only mapped: what is checked is the same, in seconds.
    hidden = "--setenv=CUDA_VISIBLE_DEVICES="
    settings = [f"--property={name}" for name in properties]
    return [
        "systemd-run",
        "--quiet",
        "--pipe",
        "--wait",
        "--collect",
        *settings,
        hidden,
    ]
