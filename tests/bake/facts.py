"""An account as it might answer: what a plan needs to know, without AWS."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bake.account.facts import AccountFacts, NetworkFacts, TypeFacts, WiringFacts
from bake.account.images import Ami, BaseFacts, Volume
from bake.account.instance_types import Device, InstanceType
from bake.account.keys import KeyFacts
from bake.account.network import Group, InstanceProfile, Subnet
from bake.account.prices import PriceFacts
from bake.account.quotas import Quota
from bake.account.worker_code import WorkerCode
from bake.weights.flux import GIB
from bake.worker_source import WorkerSource

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


def kind(name: str, memory_mib: int, device: Device | None, **changes: Any) -> InstanceType:
    """An instance type with what matters to a test."""
    usual = InstanceType(
        name=name,
        architectures=("x86_64",),
        vcpus=4,
        memory_mib=memory_mib,
        device=device,
        markets=("on-demand", "spot"),
        instance_store_gb=250,
        ebs_baseline=125.0,
        ebs_maximum=625.0,
        network_baseline=312.5,
    )
    return replace(usual, **changes)


TYPES = {
    one.name: one
    for one in (
        kind("g6e.xlarge", 32_768, Device("cuda", "L40S", 1, 45_776)),
        kind("g6e.2xlarge", 65_536, Device("cuda", "L40S", 1, 45_776), vcpus=8),
        kind("g5.xlarge", 16_384, Device("cuda", "A10G", 1, 22_888)),
        kind("g6.xlarge", 16_384, Device("cuda", "L4", 1, 22_888)),
        kind("inf2.xlarge", 16_384, Device("neuron", "Inferentia2", 1, 32_768), instance_store_gb=0),
        kind("inf2.24xlarge", 393_216, Device("neuron", "Inferentia2", 6, 32_768), instance_store_gb=0),
        kind("m7i.xlarge", 16_384, None, instance_store_gb=0),
    )
}


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
