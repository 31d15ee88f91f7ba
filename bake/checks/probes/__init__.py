"""Programs that run on the machine, not here: each reads JSON from stdin and prints facts as JSON."""

from __future__ import annotations

from importlib import resources

from bake.ssh.program import Program

MODULES = {"inventory": ("installed", "sources")}
"""Probe -> the modules that it imports, and that are sent with it."""


def probe(name: str) -> Program:
    """Read the probe `name`, with the modules that it needs."""
    folder = resources.files(__name__)
    return Program.read(*(folder / f"{module}.py" for module in (*MODULES.get(name, ()), name)))
