"""`weights.stream` in the plan: its bucket, the way there, and what the booted worker is told."""

from __future__ import annotations

from typing import Any

import pytest

from bake.account.answers import Unanswered
from bake.account.facts import WiringFacts
from bake.account.preflight import PreflightFacts
from bake.account.routes import Route, Routes
from bake.account.wiring import Bucket
from bake.errors import UsageError
from bake.planning.plan import Plan

from .test_pure import loaded, planned

STREAM = "s3://some-weights/flux"


def streaming(
    routes: Routes | Unanswered | None = None,
    bucket: Bucket | Unanswered | None = Bucket("eu-north-1"),  # noqa: B008  frozen
    **sections: Any,
) -> Plan:
    profile = loaded(weights={"stream": STREAM}, **sections)
    return planned(profile, wiring=WiringFacts(stream=bucket), preflight=PreflightFacts(routes=routes))


def about_s3(plan: Plan) -> list[str]:
    return [text for text in plan.warnings if text.startswith("weights.stream: ")]


def test_the_booted_worker_is_told_where_to_read_and_no_other_is() -> None:
    assert streaming().launch.settings["FLUX_STREAM"] == STREAM
    assert "FLUX_STREAM" not in planned().launch.settings


def test_a_bucket_that_is_not_there_is_a_problem() -> None:
    with pytest.raises(UsageError, match=r"weights\.stream: there is no bucket some-weights"):
        streaming(bucket=None)


def test_a_bucket_in_another_region_than_the_instances_is_a_problem() -> None:
    with pytest.raises(UsageError) as caught:
        streaming(bucket=Bucket("eu-west-1"))
    first, *details = caught.value.message.splitlines()
    assert first.endswith(
        "weights.stream: the bucket some-weights is in eu-west-1, the instances in eu-north-1"
    )
    assert "33.7 GB" in details[0]


def test_a_bucket_that_nobody_told_of_is_not_checked() -> None:
    plan = streaming(bucket=Unanswered("AWS answers AccessDenied"))
    assert "bucket some-weights (AWS answers AccessDenied)" in plan.unchecked


def test_an_endpoint_for_s3_is_all_that_is_needed() -> None:
    plan = streaming(Routes(Route("nat-1"), endpoints=("dynamodb", "s3")))
    assert not about_s3(plan)
    assert any(
        text.endswith("has an endpoint for S3, by which workers read weights") for text in plan.checked
    )


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        (Routes(Route("nat-1")), "each start takes up to 33.7 GB through nat-1, at $0.045 a GB"),
        (Routes(Route("igw-1")), "workers reach S3 by their public addresses"),
        (Routes(Route("tgw-1"), endpoints=("dynamodb",)), "33.7 GB through tgw-1, if that leads there"),
    ],
    ids=["NAT", "internet gateway", "transit gateway"],
)
def test_a_subnet_without_an_endpoint_is_warned_of_with_what_it_costs(routes: Routes, expected: str) -> None:
    (text,) = about_s3(streaming(routes))
    assert expected in text
    assert "a gateway endpoint in its route table costs nothing" in text


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        (Unanswered("AWS answers UnauthorizedOperation"), "to S3 (AWS answers UnauthorizedOperation)"),
        (Routes(Route("nat-1"), endpoints=None), "has a gateway endpoint for S3 (nobody told its endpoints)"),
    ],
    ids=["routes", "endpoints"],
)
def test_a_way_that_nobody_told_is_not_checked(routes: Routes | Unanswered, expected: str) -> None:
    plan = streaming(routes)
    assert any(text.endswith(expected) for text in plan.unchecked)
    assert not about_s3(plan)


def test_without_the_key_nothing_is_said_of_s3() -> None:
    plan = planned(preflight=PreflightFacts(routes=Routes(Route("nat-1"))))
    assert not about_s3(plan)
    assert not any("S3" in text for text in plan.unchecked)


def test_the_builder_reaches_the_bucket_that_it_fills() -> None:
    hosts = [host for one in streaming().provision.egress for host in one.hosts]
    assert hosts.count("some-weights.s3.*.amazonaws.com") == 1
    same = loaded(weights={"stream": STREAM, "mirror": "s3://some-weights/others"})
    found = WiringFacts(stream=Bucket("eu-north-1"), mirror=Bucket("eu-north-1"))
    hosts = [host for one in planned(same, wiring=found).provision.egress for host in one.hosts]
    assert hosts.count("some-weights.s3.*.amazonaws.com") == 1
