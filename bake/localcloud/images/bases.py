"""The base AMIs of the local cloud: one table of operating systems, and the AMIs that follow from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bake.localcloud.images import amazon_linux, neuron
from bake.localcloud.images.amazon_linux import AmazonLinux
from bake.localcloud.images.base import SIZE_GIB, Base
from bake.localcloud.images.hostile import HostileBase, hostile_bases
from bake.localcloud.settings import Settings
from bake.systems import SYSTEMS, ami_variable

Say = Callable[[str], None]


@dataclass(frozen=True)
class SystemBase:
    """The base of one operating system, built or not: `disk`, `image_id` and `name` of its AMI for CUDA.

    `made_of` goes into the descriptions of its AMIs, `what` into the plan. `source` is the user's own image
    that it is made of, if any; `packages` the repository that the local cloud serves to it, if any.
    """

    disk: Path
    image_id: str
    name: str
    made_of: str
    what: str
    source: str = ""
    packages: Path | None = None


@dataclass(frozen=True)
class Recipe:
    """How the local cloud makes the base of one operating system.

    `find` says where it is or will be, and builds nothing; it gets the base that `up` has built from the
    host's distribution. `build` builds the base unless it is there.
    """

    find: Callable[[Settings, Base], SystemBase]
    build: Callable[[SystemBase, Say], None]


def _find_ubuntu(settings: Settings, built: Base) -> SystemBase:
    user = SYSTEMS["ubuntu"].user
    return SystemBase(
        disk=built.disk,
        image_id=built.image_id,
        name=built.name,
        made_of=f"{built.os}, user {user}",
        what=f"The base AMI is a stand-in: {built.os} with user {user}, without drivers or CUDA.",
    )


def _find_amazon_linux(settings: Settings, built: Base) -> SystemBase:
    system = SYSTEMS["amazon-linux"]
    found = amazon_linux.find(settings.cache, settings.amazon_linux)
    name = f"Stand-in for Deep Learning Base AMI ({system.oldest})"
    return SystemBase(
        disk=found.disk,
        image_id=_image_id(found.disk, name),
        name=name,
        made_of=f"{f'made of {found.image}' if found.image else 'a stand-in'}, user {system.user}",
        what=found.what,
        source=found.image,
        packages=found.packages,
    )


def _build_amazon_linux(base: SystemBase, say: Say) -> None:
    amazon_linux.build(AmazonLinux(base.disk.parent, base.source), say)


# One entry for each of bake.systems.SYSTEMS. `up` builds Ubuntu's base itself, since the wheels are for its
# Python.
BASES: Mapping[str, Recipe] = {
    "ubuntu": Recipe(_find_ubuntu, lambda base, say: None),
    "amazon-linux": Recipe(_find_amazon_linux, _build_amazon_linux),
}


def find_bases(settings: Settings, built: Base) -> dict[str, SystemBase]:
    """The base of each operating system, by its name in profiles; builds nothing."""
    return {system: recipe.find(settings, built) for system, recipe in BASES.items()}


@dataclass(frozen=True)
class BaseAmi:
    """A base AMI: the variable that profiles name it by, its id, name and description, its disk and size.

    A hostile one has no variable; `hostile_base` says what makes it hostile.
    """

    variable: str
    id: str
    name: str
    description: str
    disk: Path
    system: str
    accelerator: str = "cuda"
    gib: int = SIZE_GIB
    hostile_base: HostileBase | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which a baked AMI tells what it was made for."""
        return {"bake:stand-in": "true", "bake:os": self.system, "bake:accelerator": self.accelerator}


def base_amis(bases: Mapping[str, SystemBase]) -> list[BaseAmi]:
    """Two AMIs for each system: the one for CUDA has no driver, the one for Neuron has stubs of its stack."""
    amis = []
    for system, base in bases.items():
        name, disk = (
            f"Stand-in for Deep Learning AMI Neuron ({SYSTEMS[system].oldest})",
            neuron.disk(base.disk),
        )
        for accelerator, image_id, called, where in (
            ("cuda", base.image_id, base.name, base.disk),
            ("neuron", _image_id(disk, name), name, disk),
        ):
            variable = ami_variable(system, accelerator)
            amis.append(BaseAmi(variable, image_id, called, base.made_of, where, system, accelerator))
    return amis


def hostile_amis(bases: Mapping[str, SystemBase]) -> list[BaseAmi]:
    """An AMI for each hostile base, which is made of its system's base for CUDA when it is launched."""
    return [
        BaseAmi(
            variable="",
            id=one.id,
            name=one.name,
            description=f"A rehearsal's: {one.hostile.why}",
            disk=bases[one.system].disk,
            system=one.system,
            gib=one.hostile.gib,
            hostile_base=one,
        )
        for one in hostile_bases()
    ]


def _image_id(disk: Path, name: str) -> str:
    """An id that follows from an AMI's disk and name."""
    return f"ami-{hashlib.sha256(f'{disk.parent.name} {name}'.encode()).hexdigest()[:17]}"
