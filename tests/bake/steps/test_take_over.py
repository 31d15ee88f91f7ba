"""What a resumed run does with an AMI that it can't go on with."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2 import ec2_backends

from bake.creation import tag_of
from bake.errors import BakeError
from bake.image import Image
from bake.lifecycle.holding import Holding
from bake.lifecycle.sweep import preview
from bake.steps.take_over import AlreadyDone, take_over
from bake.undo import Undo

if TYPE_CHECKING:
    from tests.bake.one_run import OneRun


@pytest.fixture
def image(one_run: OneRun) -> Image:
    """The AMI of a run that was cut, in a run directory that says of another plan."""
    one_run.run.journal.begin("run", plan="another plan")
    return one_run.kept_image()


def backend(one_run: OneRun, image: Image) -> Any:
    return ec2_backends[DEFAULT_ACCOUNT_ID][one_run.plan.profile.builder.region].amis[image.id]


def resumed(one_run: OneRun) -> BakeError:
    later = replace(one_run.run, attempt=2)
    with pytest.raises(BakeError) as caught, Undo() as undo:
        take_over(one_run.plan, one_run.aws, later, undo)
    assert "can't be taken over" in caught.value.message or "failed" in caught.value.message
    return caught.value


def states(one_run: OneRun, *ids: str) -> set[tuple[str, bool]]:
    """The state of these things, and whether they expire."""
    found = one_run.witness.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": list(ids)}])["Tags"]
    tags = [[tag for tag in found if tag["ResourceId"] == one] for one in ids]
    return {(tag_of(some, "bake:state"), tag_of(some, "bake:expires") != "") for some in tags}


def sweepable(one_run: OneRun) -> set[str]:
    """What a sweep would remove of the run after any lease."""
    seen = preview(one_run.witness, one_run.run.id, prices=False)
    from bake.lifecycle.verdict import judge

    late = seen.inventory.at + timedelta(days=300)
    held: list[Holding] = [one.held for one in seen.verdicts]
    return {one.held.kind for one in judge(held, late) if one.outcome == "sweep"}


def test_an_ami_of_another_plan_is_kept_as_unproven(one_run: OneRun, image: Image) -> None:
    error = resumed(one_run)
    assert "kept as unproven" in (error.hint or "")
    assert states(one_run, image.id, image.snapshot) == {("unproven", False)}
    assert sweepable(one_run) == set()


def test_a_pending_ami_of_another_plan_is_unproven_at_once_and_waited_for(
    one_run: OneRun, image: Image
) -> None:
    made = backend(one_run, image)
    made.state = "pending"
    assert "AMI" in sweepable(one_run)
    caught: list[BakeError] = []
    thread = threading.Thread(target=lambda: caught.append(resumed(one_run)))
    thread.start()
    end = time.monotonic() + 60
    while states(one_run, image.id) != {("unproven", False)}:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert sweepable(one_run) == set()
    assert thread.is_alive()
    made.state = "available"
    thread.join(60)
    assert "kept as unproven" in (caught[0].hint or "")
    assert states(one_run, image.id, image.snapshot) == {("unproven", False)}


def test_a_pending_ami_that_fails_is_told_as_failed(one_run: OneRun, image: Image) -> None:
    made = backend(one_run, image)
    made.state = "pending"
    thread = threading.Timer(8.0, lambda: setattr(made, "state", "failed"))
    thread.start()
    error = resumed(one_run)
    thread.join()
    assert error.message.startswith(f"{image.id} failed: ")
    assert image.id in (error.hint or "")


def test_an_ami_that_is_good_stays_good(one_run: OneRun, image: Image) -> None:
    one_run.witness.ec2.create_tags(Resources=[image.id], Tags=[{"Key": "bake:state", "Value": "good"}])
    later = replace(one_run.run, attempt=2)
    with pytest.raises(AlreadyDone, match=f"{image.id} is there, and good: the run is done"), Undo() as undo:
        take_over(one_run.plan, one_run.aws, later, undo)
    assert {state for state, _ in states(one_run, image.id)} == {"good"}


def test_an_ami_that_can_not_be_tagged_is_told_as_a_draft_with_its_end(one_run: OneRun, image: Image) -> None:
    one_run.fault("CreateTags", "refuse", code="UnauthorizedOperation", times=None)
    later = replace(one_run.run, attempt=2)
    with pytest.raises(BakeError, match="could not be made unproven") as caught, Undo() as undo:
        take_over(one_run.plan, one_run.aws, later, undo)
    one_run.cloud.faults.clear()
    [tags] = [one["Tags"] for one in one_run.witness.ec2.describe_images(ImageIds=[image.id])["Images"]]
    assert f"`bake sweep` removes it after {tag_of(tags, 'bake:expires')}" in (caught.value.hint or "")
    assert f"create-tags --region {one_run.aws.region}" in (caught.value.hint or "")
