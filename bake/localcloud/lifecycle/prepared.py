"""What a local cloud is made of: base image, model files, wheels. Made by `up`, read by the daemon."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bake import redaction
from bake.localcloud.images.amazon_linux import AmazonLinux
from bake.localcloud.images.base import Base


@dataclass(frozen=True)
class Prepared:
    """Paths are absolute. `token` is what this cloud's Hub demands. `amazon_linux` may not be built yet."""

    base: Base
    amazon_linux: AmazonLinux
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
        base, amazon = content.pop("base"), content.pop("amazon_linux")
        token, torch = content.pop("token"), content.pop("torch")
        paths = {key: Path(value) for key, value in content.items()}
        return cls(
            base=Base(**{**base, "disk": Path(base["disk"])}),
            amazon_linux=AmazonLinux(Path(amazon["place"]), amazon["image"]),
            token=token,
            torch=torch,
            **paths,
        )
