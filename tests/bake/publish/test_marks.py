"""What a published AMI itself says and enforces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bake.aws import Aws
from bake.errors import BakeError
from bake.image import remove
from bake.publish import marks

from .failing import refused
from .images import COPIED, Good, states

pytestmark = pytest.mark.integration

ALL: dict[str, Any] = {
    "deprecate_after": timedelta(days=30),
    "protect": True,
    "watermark": "verified flux",
    "types": ("g6e.xlarge", "g6e.2xlarge"),
}


def shown(facts: Any) -> dict[str, Any]:
    types = facts.get("InstanceTypeSpecification", {})
    created = datetime.fromisoformat(facts["CreationDate"]).replace(tzinfo=UTC)
    return {
        "days": (datetime.fromisoformat(facts["DeprecationTime"]) - created) / timedelta(days=1),
        "protect": facts["DeregistrationProtection"],
        "watermarks": [one["WatermarkKey"].partition(":")[2] for one in facts.get("ImageWatermarks", [])],
        "types": [one["InstanceType"] for one in types.get("SupportedInstanceTypes", [])],
    }


def test_all_marks_are_on_the_ami_and_on_its_copies(aws: Aws, good: Good) -> None:
    rows = good.publish(aws, regions=(COPIED,), **ALL)
    assert set(states(rows).values()) == {"published"}
    [copy] = good.copies(COPIED)
    for facts in (good.facts(), copy):
        found = shown(facts)
        assert found.pop("days") == pytest.approx(30, abs=0.01)
        assert found == {
            "protect": "enabled-without-cooldown",
            "watermarks": ["verified flux"],
            "types": ["g6e.xlarge", "g6e.2xlarge"],
        }


def test_a_second_run_sets_none_again(aws: Aws, good: Good) -> None:
    first = good.publish(aws, **ALL)
    called: list[str] = []
    aws.ec2.meta.events.register("before-call", lambda model, **_: called.append(model.name))
    assert good.publish(aws, **ALL) == first
    assert set(called) == {"DescribeImages"}


def test_one_that_is_refused_stops_no_other(aws: Aws, good: Good) -> None:
    with refused(aws.ec2, "AttachImageWatermark", "UnauthorizedOperation"):
        rows = good.publish(aws, **ALL)
    [failed] = [row for row in rows if row.state == "failed"]
    assert (failed.what, failed.id, failed.why) == (
        "watermark",
        "verified flux",
        "AWS answers UnauthorizedOperation",
    )
    assert "aws ec2 attach-image-watermark" in failed.by_hand
    assert shown(good.facts())["watermarks"] == []
    assert set(states(good.publish(aws, **ALL)).values()) == {"published"}


def test_an_ami_that_is_too_old_is_not_deprecated_in_the_past(aws: Aws, good: Good) -> None:
    [row] = good.publish(aws, deprecate_after=timedelta(days=-1))
    assert row.state == "failed"
    assert "which is over: it is too old" in row.why


def test_a_protected_ami_is_removed_all_the_same(aws: Aws, good: Good) -> None:
    good.publish(aws, protect=True)
    remove(aws, good.image.id)
    assert good.facts() is None


def test_an_inherited_watermark_is_taken_off_and_others_stay(aws: Aws, good: Good) -> None:
    good.publish(aws, watermark="verified flux")
    aws.ec2.attach_image_watermark(ImageId=good.image.id, WatermarkName="of somebody")
    assert marks.take_off(aws, good.image.id, "verified flux")
    assert not marks.take_off(aws, good.image.id, "verified flux")
    facts = good.facts()
    assert [one["WatermarkKey"].partition(":")[2] for one in facts["ImageWatermarks"]] == ["of somebody"]


def test_an_ami_that_is_gone_is_told(aws: Aws, good: Good) -> None:
    remove(good.witness, good.image.id)
    with pytest.raises(BakeError, match=f"{good.image.id} is gone from {aws.region}"):
        good.publish(aws, **ALL)
