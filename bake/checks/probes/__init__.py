"""Programs that run on the machine, not here: each reads JSON from stdin and prints facts as JSON."""

from __future__ import annotations

from importlib import resources

from bake.ssh.program import Program


def probe(name: str) -> Program:
    """Read the probe `name`."""
    return Program.read(resources.files(__name__) / f"{name}.py")
