"""Check the instance types against the profile, the base AMI and the subnet's zone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bake.account.facts import AccountFacts, TypeFacts
from bake.account.instance_types import InstanceType, family_of
from bake.planning.base_image import BaseImage
from bake.planning.findings import Findings
from bake.profile import Profile


@dataclass(frozen=True)
class Types:
    """A profile's instance types in their order: what bakes, and what the image is for. Often the same."""

    builder: tuple[InstanceType, ...]
    worker: tuple[InstanceType, ...]

    @property
    def all(self) -> tuple[InstanceType, ...]:
        """Each once, the builder's first."""
        return tuple(dict.fromkeys((*self.builder, *self.worker)))


def find(profile: Profile, facts: AccountFacts, findings: Findings) -> Types:
    """Return the profile's instance types; report those that the region does not offer."""
    known = facts.types.types
    for name in dict.fromkeys((*profile.builder.types, *profile.worker_types)):
        if name not in known:
            findings.problem(setting(profile, name), f"{name} is not offered in {facts.region}")
    return Types(
        tuple(known[name] for name in profile.builder.types if name in known),
        tuple(known[name] for name in profile.worker_types if name in known),
    )


def family(name: str, facts: TypeFacts) -> list[InstanceType]:
    """Return all types of the same family, the smallest memory first: `inf2.*` for inf2.xlarge."""
    same = (kind for kind in facts.types.values() if family_of(kind.name) == family_of(name))
    return sorted(same, key=lambda kind: kind.memory_mib)


def check(
    profile: Profile, base: BaseImage, types: Types, zone: str | None, facts: TypeFacts, findings: Findings
) -> None:
    """Check the types' architecture, accelerator and market, and whether the subnet's zone offers them."""
    for kind in types.all:
        if base.architecture not in kind.architectures:
            findings.problem(
                setting(profile, kind.name),
                f"{base.id} is {base.architecture}, but {kind.name} runs {', '.join(kind.architectures)}",
            )
        if profile.builder.market not in kind.markets:
            findings.problem("builder.market", f"{kind.name} is not sold as {profile.builder.market}")
    _check_devices(profile, types, findings)
    if zone is not None and types.all:
        _check_zone(profile, types.all, zone, facts, findings)


def setting(profile: Profile, name: str) -> str:
    """The setting that names an instance type, the builder's where both do."""
    return builder_setting(profile) if name in profile.builder.types else worker_setting(profile)


def builder_setting(profile: Profile) -> str:
    """The setting that says what bakes."""
    return _setting(profile, "builder")


def worker_setting(profile: Profile) -> str:
    """The setting that says what the image is for: the builder's types, unless there are others."""
    return _setting(profile, "worker" if profile.worker.types else "builder")


def _setting(profile: Profile, section: Literal["builder", "worker"]) -> str:
    one = getattr(profile, section).instance_type is not None
    return f"{section}.instance_type" if one else f"{section}.instance_types"


def suits(profile: Profile, kind: InstanceType) -> bool:
    """Tell whether the type has the profile's accelerator; every type has a CPU."""
    wanted = profile.base.accelerator
    return wanted == "cpu" or (kind.device is not None and kind.device.kind == wanted)


def bakes_without(profile: Profile, types: Types) -> bool:
    """Tell whether the builder lacks the accelerator that the image is for."""
    return not any(suits(profile, kind) for kind in types.builder)


def lacking(profile: Profile) -> str:
    """Name the profile's accelerator, for messages."""
    return {"cuda": "NVIDIA GPU", "neuron": "Neuron device", "cpu": "CPU"}[profile.base.accelerator]


def _check_devices(profile: Profile, types: Types, findings: Findings) -> None:
    for kind in types.worker:
        if not suits(profile, kind):
            _refuse(profile, kind, findings)
    without = [kind.name for kind in types.builder if not suits(profile, kind)]
    if profile.worker.types and 0 < len(without) < len(types.builder):
        findings.problem(
            builder_setting(profile),
            f"{', '.join(without)} has no {lacking(profile)}, and the others have one",
            "what is checked on the builder follows from that, so it must be the same for all of them",
        )


def _refuse(profile: Profile, kind: InstanceType, findings: Findings) -> None:
    """A type that the image can't be for. Whether it may bake all the same is the user's to say (R-AGREE)."""
    has = f"; it has {kind.device}" if kind.device else ""
    hint = (
        f"to bake on it an image for another type, name that one in worker.instance_type: what needs the "
        f"{lacking(profile)} is checked when the image boots there. `bake approve` agrees to it",
    )
    findings.problem(
        worker_setting(profile),
        f"{kind.name} has no {lacking(profile)}, which accelerator: {profile.base.accelerator} needs{has}",
        *(() if profile.worker.types else hint),
    )


def _check_zone(
    profile: Profile, types: tuple[InstanceType, ...], zone: str, facts: TypeFacts, findings: Findings
) -> None:
    names = [kind.name for kind in types]
    zones = findings.answered(f"whether {', '.join(names)} is offered in {zone}", facts.zones)
    if zones is None:
        return
    for name in names:
        offered = zones.get(name, ())
        if zone in offered:
            findings.confirm(f"{name} is offered in {zone}, the subnet's zone")
        else:
            findings.problem(
                setting(profile, name),
                f"{name} is not offered in {zone}, the zone of {profile.builder.subnet}",
                f"it is offered in {', '.join(offered) or 'no zone of this region'}",
            )
