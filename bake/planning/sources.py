"""Where a bake gets its inputs: from the real services, or from a local cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bake.resources import LOCKS

PYTHON = "3.11"  # what the locks were made for


@dataclass(frozen=True)
class Sources:
    """Where the builder gets its inputs: from the real services, or from a local cloud.

    `builder` and `worker` are extra environment for provisioning and for a booted worker;
    `requirements`, `tools` and `neuron` (the worker's where it draws on Neuron; `make lock` writes it where
    AWS's index can be reached) are locked and hashed requirement files, `interpreter` the lock of the Python
    that is fetched where the base AMI has no `python`. `hub` is asked for the weights'
    sizes (None: the real Hub), unless `sizes` has them, as where the Hub serves smaller stand-ins.
    `disk` is the kind of device that stands for EBS on a local cloud (None: EBS itself). `devices` are the
    accelerators that instances have where their type does: on a local cloud not all of them. `scratch` is the
    kind of file system that stands for an instance store there (None: an instance store itself). `checks` is
    where the profile's own `checks` are, a path for each: a file or a folder. `not_rehearsed` are
    programs that lead to machines on AWS alone.
    """

    requirements: Path = LOCKS / "worker.txt"
    tools: Path = LOCKS / "tools.txt"
    neuron: Path = LOCKS / "worker-neuron-sdk.txt"
    python: str = PYTHON
    interpreter: Path = LOCKS / "python.json"
    builder: Mapping[str, str] = field(default_factory=dict)
    worker: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    hub: str | None = None
    sizes: Mapping[str, int] | None = None
    disk: str | None = None
    scratch: str | None = None
    devices: frozenset[str] = frozenset({"cuda", "neuron"})
    checks: tuple[Path, ...] = ()
    not_rehearsed: frozenset[str] = frozenset()

    @property
    def venue(self) -> Literal["REHEARSAL", "AWS"]:
        """Where it is baked: a rehearsal says how it differs."""
        return "REHEARSAL" if self.differences else "AWS"
