"""Runs a program on the machine for the checks: one answers many, so that checking costs few round trips."""

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

    `prefix`, where it is given, is the command that runs it: its last word is the Python. The check fails
    when the probe does, with the end of what it said.
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
