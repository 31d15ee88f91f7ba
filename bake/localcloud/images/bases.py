"""The base AMIs of the local cloud, by the names that profiles know them by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bake.localcloud.images import neuron
from bake.localcloud.images.amazon_linux import AmazonLinux
from bake.localcloud.images.base import SIZE_GIB, Base
from bake.localcloud.images.hostile import HostileBase, hostile_bases
from bake.systems import SYSTEMS


@dataclass(frozen=True)
class BaseAmi:
    """A base AMI: the variable that profiles name it by, its id, name and description, its disk and size.

    A hostile one has no variable; `hostile_base` says what makes it so.
    """

    variable: str
    id: str
    name: str
    description: str
    disk: Path
    gib: int = SIZE_GIB
    hostile_base: HostileBase | None = None

    @property
    def system(self) -> str:
        """Its operating system, as profiles call it."""
        if self.hostile_base:
            return self.hostile_base.system
        return "amazon-linux" if self.variable.endswith("AMAZON_LINUX") else "ubuntu"

    @property
    def tags(self) -> dict[str, str]:
        """What it was made for, as the tags of a baked AMI tell it."""
        accelerator = "neuron" if "NEURON" in self.variable else "cuda"
        return {"bake:stand-in": "true", "bake:os": self.system, "bake:accelerator": accelerator}


def base_amis(ubuntu: Base, amazon: AmazonLinux) -> tuple[BaseAmi, ...]:
    """All of them. Those for CUDA have no driver, those for Neuron stubs of its stack."""
    made_of = f"made of {amazon.image}" if amazon.image else "a stand-in"
    on_amazon = f"{made_of}, user {SYSTEMS['amazon-linux'].user}"
    called = "Stand-in for Deep Learning AMI Neuron"
    return (
        BaseAmi("BASE_AMI_ID", ubuntu.image_id, ubuntu.name, f"{ubuntu.os}, user ubuntu", ubuntu.disk),
        _other(
            "BASE_AMI_ID_NEURON",
            f"{called} (Ubuntu 22.04)",
            f"{ubuntu.os}, user ubuntu",
            neuron.disk(ubuntu.disk),
        ),
        _other(
            "BASE_AMI_ID_AMAZON_LINUX",
            "Stand-in for Deep Learning Base AMI (Amazon Linux 2023)",
            on_amazon,
            amazon.disk,
        ),
        _other(
            "BASE_AMI_ID_NEURON_AMAZON_LINUX",
            f"{called} (Amazon Linux 2023)",
            on_amazon,
            neuron.disk(amazon.disk),
        ),
    )


def hostile(ubuntu: Base, amazon: AmazonLinux) -> tuple[BaseAmi, ...]:
    """The hostile bases: each is made of its system's stand-in for CUDA when it is launched."""
    disks = {"ubuntu": ubuntu.disk, "amazon-linux": amazon.disk}
    return tuple(
        BaseAmi(
            "", one.id, one.name, f"A rehearsal's: {one.hostile.why}", disks[one.system], one.hostile.gib, one
        )
        for one in hostile_bases()
    )


def _other(variable: str, name: str, description: str, disk: Path) -> BaseAmi:
    """A base AMI whose id follows from its disk and name."""
    key = hashlib.sha256(f"{disk.parent.name} {name}".encode()).hexdigest()[:17]
    return BaseAmi(variable, f"ami-{key}", name, description, disk)
