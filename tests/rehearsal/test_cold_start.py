"""What the boot check of the shared bake measured of the start: printed, in the report, and a tag."""

from __future__ import annotations

from typing import Any

import pytest

from bake import hydration
from bake.aws import Aws
from bake.creation import tag_of

from ..report.test_schema import VALIDATOR
from .bakes import Outcome

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def report(baked: Outcome) -> dict[str, Any]:
    return baked.report


def test_the_stages_of_the_start_are_printed_and_in_the_report(
    baked: Outcome, report: dict[str, Any]
) -> None:
    start = report["cold_start"]
    VALIDATOR.validate(report)
    stages = {one["name"]: one for one in start["stages"]}
    names = ["kernel", "userspace", "warm", "imports", "load", "first draw", "other", "first image"]
    assert [name for name in names if name in stages] == list(stages)
    measured = [one for one in stages.values() if one["name"] != "warm"]
    assert all(one["seconds"] is not None for one in measured)
    assert stages["kernel"]["seconds"] == pytest.approx(0, abs=2) and stages["kernel"]["note"]
    assert start["seconds"] == pytest.approx(sum(one["seconds"] for one in measured), abs=0.5)
    assert start["max_seconds"] is None and start["floor_mb_per_s"] > 0
    [printed] = baked.of("cold_start")
    assert all(name in printed["text"] for name in stages)
    assert f"it took {start['seconds']:.1f} s" in printed["text"]


def test_what_the_start_measured_is_a_tag_of_the_image(aws: Aws, report: dict[str, Any]) -> None:
    start = report["cold_start"]
    facts = aws.ec2.describe_images(ImageIds=[report["image"]["id"]])["Images"][0]
    tagged = hydration.parse(tag_of(facts["Tags"], hydration.TAG))
    assert (tagged.mb_per_s if tagged else None) == start["hydration_mb_per_s"]
