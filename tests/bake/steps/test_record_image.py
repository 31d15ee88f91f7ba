"""The report has what EC2 says of the AMI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bake.report.image_facts import image_facts
from bake.steps.record_image import FACTS, record_image

if TYPE_CHECKING:
    from tests.bake.one_run import OneRun


def told(one_run: OneRun) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((one_run.run.directory / FACTS).read_text())
    return found


def test_a_published_image_is_told_as_ec2_has_it(one_run: OneRun) -> None:
    image = one_run.kept_image()
    share: Any = {"Add": [{"UserId": "210987654321"}]}
    one_run.witness.ec2.modify_image_attribute(ImageId=image.id, LaunchPermission=share)
    record_image(one_run.aws, one_run.run, image, "good", published=True)
    facts = image_facts(told(one_run))
    assert facts is not None
    assert (facts.id, facts.public, facts.launch_permissions) == (image.id, False, ("210987654321",))
    assert (facts.volumes[0].snapshot, facts.volumes[0].encrypted) == (image.snapshot, False)
    assert facts.tags["bake:venue"] == "AWS"


def test_what_is_bad_or_still_changes_is_not_asked_for(one_run: OneRun) -> None:
    image = one_run.kept_image()
    one_run.fault("*", "refuse", times=None)
    for state in ("bad", "good"):
        record_image(one_run.aws, one_run.run, image, state)  # type: ignore[arg-type]
        assert told(one_run).keys() == {"state", "image"}


def test_a_right_that_is_missing_costs_its_answer_alone(one_run: OneRun) -> None:
    image = one_run.kept_image()
    one_run.fault("DescribeImageAttribute", "refuse", code="UnauthorizedOperation", times=None)
    record_image(one_run.aws, one_run.run, image, "unproven")
    found = told(one_run)
    assert (found["state"], found["launch_permissions"]) == ("unproven", None)
    assert found["described"]["ImageId"] == image.id
    facts = image_facts(found)
    assert facts is not None and facts.public is False
