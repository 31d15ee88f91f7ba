"""A plan follows from a profile and an account's answers alone: no cloud, no network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bake import profile
from bake.account.answers import Unanswered
from bake.account.facts import NetworkFacts, TypeFacts, WiringFacts
from bake.account.images import BaseFacts
from bake.account.network import Group, InstanceProfile, Subnet
from bake.account.prices import PriceFacts
from bake.account.wiring import Bucket, Queue
from bake.errors import UsageError
from bake.planning.plan import Plan, make
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.weights import flux

from ..facts import AMI, TYPES, ZONE, facts
from ..variables import VARIABLES

PROFILES = Path(__file__).parents[3] / "profiles"
DENIED = Unanswered("AWS answers AccessDenied")


def loaded(name: str = "g6e-ubuntu", **changes: dict[str, Any]) -> Profile:
    found = profile.load(name, PROFILES, {**VARIABLES, "BASE_AMI_ID_NEURON": AMI.id})
    sections = {
        section: getattr(found, section).model_copy(update=fields) for section, fields in changes.items()
    }
    return found.model_copy(update=sections)


def planned(found: Profile | None = None, **changes: Any) -> Plan:
    return make(found or loaded(), facts(**changes), Sources(sizes=flux.SIZES))


def refused(found: Profile | None = None, **changes: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        planned(found, **changes)
    return caught.value.message.splitlines()


def test_the_same_answers_give_the_same_plan() -> None:
    assert planned() == planned()


@pytest.mark.parametrize(
    ("name", "verdict"), [("g6e-ubuntu", "fits"), ("g5-ubuntu", "tight"), ("g6-ubuntu", "tight")]
)
def test_each_profile_of_a_gpu_is_planned(name: str, verdict: str) -> None:
    assert planned(loaded(name)).verify.memory[0].verdict == verdict


def test_types_of_the_same_family_are_the_ways_out() -> None:
    lines = refused(loaded("inf2-ubuntu"))
    assert any(line.split()[0] == "inf2.24xlarge" for line in lines)
    assert lines[-1].strip() == "choose in the profile: builder.instance_type"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"base": BaseFacts(None)},
            "base.ami: ami-0123456789abcdef0 does not exist in eu-north-1, "
            "or is not shared with this account",
            id="no AMI",
        ),
        pytest.param(
            {"base": BaseFacts(None, elsewhere=True)},
            "base.ami: ami-0123456789abcdef0 exists in eu-west-1 (AWS_REGION) only; AMIs are looked up in "
            "eu-north-1 (SPOT_AWS_REGION)",
            id="an AMI elsewhere",
        ),
        pytest.param(
            {"network": NetworkFacts(None, Group("vpc-1"), InstanceProfile(has_role=True))},
            "builder.subnet: subnet-0123456789abcdef0 does not exist in eu-north-1",
            id="no subnet",
        ),
        pytest.param(
            {"network": NetworkFacts(Subnet("vpc-1", ZONE, 0), Group("vpc-1"), InstanceProfile(True))},
            "builder.subnet: subnet-0123456789abcdef0 has no free address",
            id="a full subnet",
        ),
        pytest.param(
            {"network": NetworkFacts(Subnet("vpc-1", ZONE, 9), Group("vpc-2"), InstanceProfile(True))},
            "builder.security_group: sg-0123456789abcdef0 is in vpc-2, but the subnet is in vpc-1",
            id="another VPC",
        ),
        pytest.param(
            {"network": NetworkFacts(Subnet("vpc-1", ZONE, 9), Group("vpc-1"), None)},
            "builder.instance_profile: there is no instance profile flux-worker in this account",
            id="no instance profile",
        ),
    ],
)
def test_what_is_not_there_is_a_problem(changes: dict[str, Any], expected: str) -> None:
    assert refused(**changes)[0] == expected


def test_what_was_not_answered_is_noted_in_a_fixed_order() -> None:
    types = TypeFacts(TYPES, DENIED, {"g|gr|vt": DENIED}, PriceFacts({"g6e.xlarge": DENIED}))
    network = NetworkFacts(Subnet("vpc-1", ZONE, 9), Group("vpc-1"), DENIED)
    assert planned(types=types, network=network).unchecked == (
        "instance profile flux-worker in this account (AWS answers AccessDenied)",
        "the on-demand quota L-DB2E81BA of g6e.xlarge (AWS answers AccessDenied)",
        f"whether g6e.xlarge is offered in {ZONE} (AWS answers AccessDenied)",
        "prices (AWS answers AccessDenied)",
    )


def test_a_deprecated_ami_is_warned_of() -> None:
    old = replace(AMI, deprecated="2026-05-31T00:00:00.000Z")
    assert planned(base=BaseFacts(old)).warnings == (
        f"{AMI.id} is deprecated since 2026-05-31T00:00:00.000Z",
    )
    later = replace(AMI, deprecated="2027-05-31T00:00:00.000Z")
    assert planned(base=BaseFacts(later)).warnings == ()


def test_a_bucket_far_away_and_a_queue_without_dead_letters_are_warned_of() -> None:
    queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"
    wired = loaded(worker={"queue": queue, "bucket": "pictures"})
    plan = planned(wired, wiring=WiringFacts(queue=Queue(dead_letters=False), bucket=Bucket("eu-central-1")))
    assert len(plan.warnings) == 2
    assert f"the queue {queue} is in eu-west-1" in plan.checked
