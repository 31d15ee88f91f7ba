"""An account as it might answer: what a plan needs to know, without AWS."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bake.account.facts import AccountFacts, NetworkFacts, TypeFacts, WiringFacts
from bake.account.images import Ami, BaseFacts, Volume
from bake.account.keys import KeyFacts
from bake.account.network import Group, InstanceProfile, Subnet
from bake.account.prices import PriceFacts
from bake.account.quotas import Quota
from bake.account.worker_code import WorkerCode
from bake.weights.flux import GIB
from bake.worker_source import WorkerSource

from .instance_types import TYPES

ZONE = "eu-north-1b"
AMI = Ami(
    id="ami-0123456789abcdef0",
    name="Deep Learning Base AMI (Ubuntu 22.04)",
    description="",
    architecture="x86_64",
    owner="amazon",
    created="2026-01-01T00:00:00.000Z",
    state="available",
    root_device="/dev/sda1",
    root_device_type="ebs",
    deprecated=None,
    volumes=(Volume("/dev/sda1", 45, "snap-1"),),
    content_bytes=15 * GIB,
)


def facts(**changes: Any) -> AccountFacts:
    """An account in which the profiles of the checkout can be planned; `changes` replace whole parts."""
    usual = AccountFacts(
        region="eu-north-1",
        worker_region="eu-west-1",
        asked=datetime(2026, 6, 1, tzinfo=UTC),
        base=BaseFacts(AMI),
        types=TypeFacts(
            types=TYPES,
            zones=dict.fromkeys(TYPES, (ZONE,)),
            quotas={shared: Quota("vCPUs", 64, 0) for shared in ("g|gr|vt", "inf", "a|c|d|h|i|m|r|t|z")},
            prices=PriceFacts(dict.fromkeys(TYPES, 2.0), 0.05),
        ),
        network=NetworkFacts(Subnet("vpc-1", ZONE, 200), Group("vpc-1"), InstanceProfile(has_role=True)),
        wiring=WiringFacts(),
        taken=None,
        keys=KeyFacts(),
        hub=None,
        code=WorkerCode(WorkerSource(None, "c" * 40, "t" * 64)),
    )
    return replace(usual, **changes)
