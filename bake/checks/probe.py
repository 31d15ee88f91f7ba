"""Run a probe for the checks: one answers many of them, which saves round trips."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from testinfra.host import Host

from bake.checks.expectations import Expectations
from bake.checks.probes import probe
from bake.layout import SYSTEM_PYTHON
from bake.ssh.program import facts

_TAIL_LINES = 15


def run(host: Host, name: str, given: Mapping[str, Any], prefix: Sequence[str] = ()) -> dict[str, Any]:
    """Run the probe `name` with `given` as its JSON input, as root by the system's Python.

    `prefix` is the command that runs it, ending with the Python. If the probe fails, the check fails with the
    end of its output.
    """
    __tracebackhide__ = True
    *before, python = prefix or [SYSTEM_PYTHON]
    program = probe(name)
    argv = [*before, *program.command(python)]
    done = host.run(shlex.join(argv), stdin=program.stdin(given))
    if done.rc != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:])
        pytest.fail(f"the probe {name!r} ended with exit code {done.rc}:\n{said}", pytrace=False)
    return facts(done.stdout)


def as_worker(expect: Expectations) -> list[str]:
    """Return the start of a command that runs a program as the worker's unit would, but without a network."""
    properties = (f"User={expect.user}", f"EnvironmentFile={expect.worker_env}", "PrivateNetwork=yes")
    # Without a visible GPU the weights are only mapped, which takes seconds and checks the same.
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
