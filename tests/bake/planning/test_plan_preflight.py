"""What follows from the preflight's answers: the credentials' end, routes, and the download's limit."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bake.account.answers import Unanswered
from bake.account.credentials import Credentials
from bake.account.facts import NetworkFacts, WiringFacts
from bake.account.launches import LaunchAnswer
from bake.account.network import Group, InstanceProfile, Subnet
from bake.account.preflight import PreflightFacts
from bake.account.routes import Route, Routes
from bake.account.wiring import Bucket
from bake.errors import UsageError
from bake.planning import estimates
from bake.planning.plan import Plan
from bake.planning.render import as_dict, as_text

from ..facts import ZONE, facts
from ..instance_types import TYPES
from .test_pure import loaded, planned

ASKED = facts().asked


def with_credentials(kind: Any, minutes: float | None = None) -> Plan:
    end = None if minutes is None else ASKED + timedelta(minutes=minutes)
    return planned(preflight=PreflightFacts(credentials=Credentials(kind, "SSO", end)))


def test_credentials_that_end_before_the_bake_can_be_planned_and_not_baked() -> None:
    seconds = with_credentials("static").estimates.seconds
    plan = with_credentials("fixed", seconds / 60 - 1)
    assert plan.unbakeable is not None
    assert plan.unbakeable.startswith("the credentials of SSO end in ")
    assert "not baked yet" in as_text(plan)


def test_credentials_that_end_before_the_snapshot_are_warned_of() -> None:
    seconds = with_credentials("static").estimates.seconds
    plan = with_credentials("fixed", seconds / 60 + 10)
    assert plan.unbakeable is None
    (text,) = [text for text in plan.warnings if "credentials" in text]
    assert "and the time of its snapshot" in text
    assert with_credentials("fixed", seconds / 60 + 61).warnings == ()


@pytest.mark.parametrize("kind", ["static", "renewed"])
def test_credentials_without_an_end_are_no_matter(kind: str) -> None:
    plan = with_credentials(kind, 1)  # until the next renewal
    assert (plan.unbakeable, plan.warnings) == (None, ())
    assert "credentials" in [one.question for one in plan.preflight]


def test_a_session_whose_end_nobody_says_is_not_checked() -> None:
    plan = with_credentials("unknown")
    assert any(text.startswith("whether the credentials of SSO outlive the bake") for text in plan.unchecked)
    assert plan.unbakeable is None


def routed(routes: Routes | Unanswered, *, public: bool = True, ssh: bool = True, **builder: Any) -> Plan:
    network = NetworkFacts(
        Subnet("vpc-1", ZONE, 9, public=public), Group("vpc-1", ssh), InstanceProfile(True)
    )
    found = loaded(builder=builder) if builder else None
    return planned(found, network=network, preflight=PreflightFacts(routes=routes))


@pytest.mark.parametrize("target", ["nat-1", "tgw-1", "eni-1", "vgw-1"])
def test_what_translates_addresses_needs_no_public_one(target: str) -> None:
    plan = routed(Routes(Route(target)), public=False)
    assert plan.warnings == ()
    assert f"0.0.0.0/0 to {target}; no endpoints" in [one.answer for one in plan.preflight]


def test_a_default_route_to_what_is_gone_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"builder\.subnet: the default route of .* leads to nat-1, which is gone"
    ):
        routed(Routes(Route("nat-1", active=False)))


def test_a_subnet_whose_only_routes_lead_to_some_networks_is_warned_of() -> None:
    (text,) = routed(Routes(others=("tgw-1",)), public=False).warnings
    assert "has no default route, only routes to tgw-1" in text


def test_a_mirror_and_an_endpoint_alone_do_not_replace_the_hub() -> None:
    with pytest.raises(UsageError, match="the Hub is needed in any case"):
        routed(Routes(endpoints=("s3",)))


def test_a_public_address_that_is_asked_for_is_said_once() -> None:
    with pytest.raises(UsageError) as caught:
        routed(Routes(Route("igw-1")), public=False, address="public")
    assert "builder.address" in caught.value.message
    assert "builder.subnet:" not in caught.value.message


def test_routes_that_nobody_told_are_not_checked() -> None:
    plan = routed(Unanswered("AWS answers UnauthorizedOperation"))
    assert any(text.startswith("the routes of subnet-") for text in plan.unchecked)


def test_a_group_that_admits_nobody_is_a_warning_unless_a_command_leads_in() -> None:
    (text,) = routed(Routes(Route("nat-1")), ssh=False).warnings
    assert "lets nobody in on port 22" in text
    assert "builder.ssh_from" in text
    assert routed(Routes(Route("nat-1")), ssh=False, proxy_command=("ssm", "{instance}")).warnings == ()


def test_what_another_check_has_said_is_not_said_again_by_ec2() -> None:
    no_room = NetworkFacts(Subnet("vpc-1", ZONE, 0), Group("vpc-1"), InstanceProfile(True))
    asked = PreflightFacts({"g6e.xlarge": LaunchAnswer("InsufficientFreeAddressesInSubnet", "no")})
    with pytest.raises(UsageError) as caught:
        planned(network=no_room, preflight=asked)
    assert caught.value.message == "builder.subnet: subnet-0123456789abcdef0 has no free address"


def test_the_plan_as_json_has_the_answers() -> None:
    plan = routed(Routes(Route("nat-1")))
    assert {"question": "the way out of the subnet", "answer": "0.0.0.0/0 to nat-1; no endpoints"} in as_dict(
        plan
    )["preflight"]


# --- 5 Gbit/s through an internet gateway ------------------------------------------------------


def test_a_type_below_32_vcpus_downloads_at_5_gbits_at_most() -> None:
    """Its disk and its network could do more."""
    kind = replace(TYPES["g6e.xlarge"], ebs_baseline=2000.0, network_baseline=3000.0)
    assert estimates.gateway(kind) == 625.0
    large = replace(kind, vcpus=32)
    assert estimates.gateway(large) == 1500.0
    assert estimates.gateway(replace(large, network_baseline=0.0)) == float("inf")


def test_the_estimate_says_what_limits_the_download() -> None:
    fast = replace(TYPES["g6e.xlarge"], ebs_baseline=2000.0, network_baseline=3000.0)
    types = replace(facts().types, types={**TYPES, "g6e.xlarge": fast})
    volume = {"iops": 8000, "throughput": 2000}
    plan = planned(loaded(root_volume=volume), types=types)
    assert plan.estimates.download_note.startswith("the download at 625 MB/s")
    assert "the download at 625 MB/s" in as_text(plan)
    mirrored = loaded(root_volume=volume, weights={"mirror": "s3://mirror"})
    assert not planned(
        mirrored, types=types, wiring=WiringFacts(mirror=Bucket("eu-north-1"))
    ).estimates.download_note
    assert not planned().estimates.download_note
