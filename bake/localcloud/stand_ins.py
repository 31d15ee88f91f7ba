"""The base AMIs of the local cloud: one that bakes, and for plans those that other profiles name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from bake.localcloud.base import Base

NAMES = {
    "BASE_AMI_ID_AMAZON_LINUX": "Deep Learning Base AMI (Amazon Linux 2023)",
    "BASE_AMI_ID_NEURON": "Deep Learning AMI Neuron (Ubuntu 22.04)",
    "BASE_AMI_ID_NEURON_AMAZON_LINUX": "Deep Learning AMI Neuron (Amazon Linux 2023)",
}


@dataclass(frozen=True)
class StandIn:
    """A base AMI: the variable that profiles name it by, its id, name and description."""

    variable: str
    id: str
    name: str
    description: str


def stand_ins(base: Base) -> tuple[StandIn, ...]:
    """All of them; they share the disk of `base`, and their ids follow from its id."""
    real = StandIn(
        "BASE_AMI_ID",
        base.image_id,
        base.name,
        f"{base.os}, user ubuntu; stands for the Deep Learning AMI in rehearsals",
    )
    return (
        real,
        *(
            StandIn(
                variable,
                f"ami-{hashlib.sha256(f'{base.image_id} {name}'.encode()).hexdigest()[:17]}",
                f"Stand-in for {name}",
                f"stands for the {name} in plans; its disk is {base.os}",
            )
            for variable, name in NAMES.items()
        ),
    )
