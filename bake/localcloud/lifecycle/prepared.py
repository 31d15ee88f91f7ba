"""The parts of a local cloud: base images, model files, wheels. `up` prepares them, the daemon reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bake import redaction
from bake.localcloud.images.base import Base
from bake.localcloud.images.bases import SystemBase


@dataclass(frozen=True)
class Prepared:
    """The parts of a local cloud. Paths are absolute.

    `base` is built from the host's distribution. `bases`, by operating system, may not be built yet.
    `token` is the one that this cloud's Hub demands.
    """

    base: Base
    bases: Mapping[str, SystemBase]
    hub: Path
    interpreter: Path
    wheel_files: Path
    requirements: Path
    tools_requirements: Path
    neuron_files: Path
    neuron_requirements: Path
    torch: str
    token: str

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(asdict(self), default=str, indent=2))
        partial.replace(path)

    def __post_init__(self) -> None:
        redaction.register(self.token)

    @classmethod
    def load(cls, path: Path) -> Prepared:
        content: dict[str, Any] = json.loads(path.read_text())
        base, bases = content.pop("base"), content.pop("bases")
        token, torch = content.pop("token"), content.pop("torch")
        paths = {key: Path(value) for key, value in content.items()}
        return cls(
            base=Base(**{**base, "disk": Path(base["disk"])}),
            bases={system: _system_base(entry) for system, entry in bases.items()},
            token=token,
            torch=torch,
            **paths,
        )


def _system_base(entry: dict[str, Any]) -> SystemBase:
    packages = Path(entry["packages"]) if entry["packages"] else None
    return SystemBase(**{**entry, "disk": Path(entry["disk"]), "packages": packages})
