"""A small program for the machine: how it is started, what it is given, and the facts that it prints as JSON.

The programs are the modules in `bake/checks/probes`; they use the standard library alone and run under any
Python from 3.9 on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from bake.layout import SYSTEM_PYTHON

# The program and its input both come by stdin, so neither stands in an argument list or a log.
_LOADER = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), sys.argv[2], 'exec'))"


def _text(name: str) -> bytes:
    return resources.files("bake.checks.probes").joinpath(f"{name}.py").read_bytes()


def command(name: str, python: str = SYSTEM_PYTHON) -> list[str]:
    """The command line that reads the program `name` and its input from stdin."""
    return [python, "-c", _LOADER, str(len(_text(name))), f"<probe {name}>"]


def stdin(name: str, given: Mapping[str, Any]) -> bytes:
    """What that command reads."""
    return _text(name) + json.dumps(given).encode()


def facts(stdout: str) -> dict[str, Any]:
    """What it found. Libraries may print, too: the facts are the last line."""
    found: dict[str, Any] = json.loads(stdout.strip().splitlines()[-1])
    return found
