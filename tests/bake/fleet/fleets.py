"""Fleets to render: profiles of the checkout with a section `fleet`."""

from __future__ import annotations

from typing import Any

from bake import profile
from bake.fleet import Fleet, Part, fleet_of, template
from bake.localcloud import EXAMPLES
from bake.profile import Profile
from bake.profile.fleet import Fleet as Section
from tests.bake.conftest import PROFILES
from tests.bake.variables import VARIABLES

ACCOUNT = "123456789012"
IMAGE = "ami-0fedcba9876543210"
SPOT, HOME = VARIABLES["SPOT_AWS_REGION"], VARIABLES["AWS_REGION"]
SECTION: dict[str, Any] = {
    "subnets": ("subnet-0123456789abcdef0", "subnet-0123456789abcdef1"),
    "security_groups": ("sg-0123456789abcdef0",),
    "max_size": 3,
    "messages_per_instance": 20,
}
TOPICS = tuple(f"arn:aws:sns:{region}:{ACCOUNT}:alarms" for region in (HOME, SPOT))


def with_fleet(
    name: str = "g6e-ubuntu",
    *,
    worker: Any = None,
    volume: Any = None,
    start: Any = None,
    weights: Any = None,
    **changes: Any,
) -> Profile:
    """A profile with a fleet; `changes` are keys of the fleet, the others those of their sections."""
    found = profile.load(name, PROFILES, {**EXAMPLES, **VARIABLES})
    sections: dict[str, Any] = {"fleet": Section(**{**SECTION, **changes})}
    given = {"worker": worker, "root_volume": volume, "cold_start": start, "weights": weights}
    for section, values in given.items():
        if values:
            sections[section] = getattr(found, section).model_copy(update=values)
    return found.model_copy(update=sections)


def fleet(name: str = "g6e-ubuntu", more: dict[str, str] | None = None, **changes: Any) -> Fleet:
    """The fleet of a profile's channel `stable`."""
    return fleet_of(with_fleet(name, **changes), "stable", ACCOUNT, IMAGE, "/dev/sda1", more)


def resources(part: Part = "all", *names: str, **changes: Any) -> Any:
    """The resources of a template: all, or the properties of the one that is named."""
    found = template(fleet(**changes), part)["Resources"]
    return found[names[0]]["Properties"] if names else found
