"""The bake's step: everything is published, older AMIs go with their copies, and the report knows."""

from __future__ import annotations

import io
import json
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bake.aws import Aws
from bake.creation import stamp
from bake.lifecycle import sweep
from bake.planning.disk import Disk
from bake.planning.parts import ImagePlan
from bake.progress import PlainScreen, Progress
from bake.publish.wanted import Wanted
from bake.run import Run
from bake.steps.publish import FACTS, publish

from .failing import refused
from .images import COPIED, Good, younger

pytestmark = pytest.mark.integration


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(secrets.token_hex(6), tmp_path, Progress(PlainScreen(io.StringIO())))


def plan(good: Good, keep: int | None = None, **wanted: Any) -> ImagePlan:
    return ImagePlan(good.profile, "{profile}", (), keep, 2, Disk(1, (), False), wanted=Wanted(**wanted))


def parts(run: Run) -> list[Any]:
    return list(json.loads((run.directory / FACTS).read_text())["parts"])


def test_what_is_published_is_kept_for_the_report(aws: Aws, good: Good, run: Run) -> None:
    publish(plan(good, watermark="verified"), aws, run, good.image)
    [part] = parts(run)
    assert (part["what"], part["region"], part["id"], part["state"]) == (
        "watermark",
        aws.region,
        "verified",
        "published",
    )


def test_a_profile_without_the_section_publishes_nothing(aws: Aws, good: Good, run: Run) -> None:
    publish(plan(good), aws, run, good.image)
    assert not (run.directory / FACTS).exists()
    assert run.progress.notes == []


def test_what_fails_is_a_note_with_the_command_and_the_way_to_finish_it(
    aws: Aws, good: Good, run: Run
) -> None:
    with refused(aws.ec2, "AttachImageWatermark", "UnauthorizedOperation"):
        assert publish(plan(good, watermark="verified"), aws, run, good.image) == good.image
    first, second = run.progress.notes
    assert "not published in eu-north-1: watermark verified (AWS answers UnauthorizedOperation)" in first
    assert "aws ec2 attach-image-watermark" in first
    assert f"bake publish {good.image.id} --profile {good.profile} --rehearse" in second


def test_older_amis_go_with_their_copies_also_protected_ones(aws: Aws, good: Good, run: Run) -> None:
    asked = plan(good, keep=1, regions=(COPIED,), protect=True)
    publish(asked, aws, run, good.image)
    [copy] = good.copies(COPIED)
    assert good.facts()["DeregistrationProtection"] == copy["DeregistrationProtection"]
    assert copy["DeregistrationProtection"] == "enabled-without-cooldown"
    newest = younger(good)
    publish(asked, aws, run, newest.image)
    assert good.facts() is None
    assert good.copies(COPIED) == []
    assert newest.facts() is not None
    assert len(newest.copies(COPIED)) == 1


def test_a_copy_whose_bake_died_is_swept_where_the_profile_copies_to(aws: Aws, good: Good) -> None:
    there = aws.within(COPIED)
    aws.within = lambda region: there  # type: ignore[method-assign]
    with refused(there.ec2, "CreateTags", "UnauthorizedOperation"):
        good.publish(aws, regions=(COPIED,))
    [draft] = good.copies(COPIED)
    snapshot = draft["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    aws.copied = (COPIED,)

    def swept() -> set[str]:
        return {one.held.id for one in sweep.preview(aws, profile=good.profile, prices=False).swept}

    assert swept() == set()  # a day is left to finish it
    tags: Any = [{"Key": "bake:expires", "Value": stamp(aws.now() - timedelta(hours=1))}]
    ids = [draft["ImageId"], snapshot]
    good.witness.within(COPIED).ec2.create_tags(Resources=ids, Tags=tags)
    assert swept() == {*ids}
    seen = sweep.preview(aws, profile=good.profile, prices=False)
    assert sweep.sweep(aws, seen=seen).leaks == []
    assert good.copies(COPIED) == []
    assert good.facts() is not None
