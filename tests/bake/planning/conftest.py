"""An account as an object: what is in it is written down, and plans are made without a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bake.account.answers import Unanswered
from bake.account.facts import AccountFacts, NetworkFacts, TypeFacts
from bake.account.images import Ami, BaseFacts, Volume
from bake.account.network import Group, InstanceProfile, Subnet
from bake.account.prices import PriceFacts
from bake.account.quotas import Quota, quota_class
from bake.planning.plan import Plan, make
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.weights import flux

from .. import facts as usual
from ..conftest import changed
from ..instance_types import TYPES, ZONES
from ..variables import VARIABLES

REAL = Sources(sizes=flux.SIZES)
UBUNTU = replace(
    usual.AMI,
    name="ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server",
    volumes=(Volume("/dev/sda1", 15, "snap-1"),),
    content_bytes=None,
)
AMAZON_LINUX = replace(UBUNTU, id="ami-0fedcba9876543210", name="al2023-ami-ecs-hvm-2023.0-x86_64")


@dataclass
class Account:
    """What can be asked for, by its id or name; a test adds what it needs."""

    amis: dict[str, Ami] = field(default_factory=lambda: {ami.id: ami for ami in (UBUNTU, AMAZON_LINUX)})
    subnets: dict[str, Subnet] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    instance_profiles: dict[str, InstanceProfile] = field(default_factory=dict)
    quotas: dict[str, Quota | Unanswered] = field(default_factory=dict)
    prices: PriceFacts | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def profile(self, name: str = "g6e-ubuntu", **changes: dict[str, Any]) -> Profile:
        """A profile of the checkout; `root_volume={"size_gib": 40}` changes fields of a section."""
        return changed(name, self.variables, changes)

    def plan(self, name: str = "g6e-ubuntu", sources: Sources = REAL, **changes: dict[str, Any]) -> Plan:
        """The plan of a profile of the checkout."""
        return self.decide(self.profile(name, **changes), sources)

    def decide(
        self, profile: Profile, sources: Sources = REAL, origins: Mapping[str, str] | None = None
    ) -> Plan:
        """The plan of any profile."""
        return make(profile, self.answers(profile), sources, origins)

    def answers(self, profile: Profile) -> AccountFacts:
        """What asking about a profile gives here."""
        builder, names = profile.builder, (*profile.builder.types, *profile.worker_types)
        no_quota, no_price = (Unanswered(f"AWS answers {why}") for why in ("NoSuchResourceException", "500"))
        classes = filter(None, map(quota_class, names))
        return usual.facts(
            base=BaseFacts(self.amis.get(str(profile.base.ami))),
            types=TypeFacts(
                TYPES,
                {name: ZONES.get(name, ()) for name in names},
                {shared: self.quotas.get(shared, no_quota) for shared in classes},
                self.prices or PriceFacts({names[0]: no_price}),
            ),
            network=NetworkFacts(
                self.subnets.get(builder.subnet),
                self.groups.get(builder.security_group),
                self.instance_profiles.get(builder.instance_profile),
            ),
        )


@pytest.fixture
def account() -> Account:
    """An account that has what the checkout's profiles refer to; it tells neither quotas nor prices."""
    return Account(
        subnets={VARIABLES["BAKE_SUBNET_ID"]: Subnet("vpc-1", usual.ZONE, 4091)},
        groups={VARIABLES["BAKE_SECURITY_GROUP_ID"]: Group("vpc-1")},
        instance_profiles={VARIABLES["BAKE_INSTANCE_PROFILE"]: InstanceProfile(has_role=True)},
        variables={
            **VARIABLES,
            "BASE_AMI_ID_AMAZON_LINUX": AMAZON_LINUX.id,
            "BASE_AMI_ID_NEURON": UBUNTU.id,
            "BASE_AMI_ID_NEURON_AMAZON_LINUX": AMAZON_LINUX.id,
            "HF_TOKEN": "hf_canary_token",
        },
    )
