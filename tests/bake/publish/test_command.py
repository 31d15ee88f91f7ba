"""`bake publish`: which AMIs it takes, and how it ends."""

from __future__ import annotations

import io
import secrets
from typing import Any

import pytest

from bake.aws import Aws
from bake.commands.publish import _complain, _image, _publish
from bake.errors import EXIT_FAILED, BakeError, UsageError
from bake.planning.disk import Disk
from bake.planning.parts import ImagePlan
from bake.progress import PlainScreen, Progress
from bake.publish.wanted import Wanted

from .failing import refused
from .images import COPIED, Good

pytestmark = pytest.mark.integration


def tag(good: Good, **tags: str) -> None:
    listed: Any = [{"Key": f"bake:{key}", "Value": value} for key, value in tags.items()]
    good.witness.ec2.create_tags(Resources=[good.image.id], Tags=listed)


@pytest.mark.parametrize("state", ["draft", "unproven", "revoked"])
def test_only_good_amis_are_published(aws: Aws, good: Good, state: str) -> None:
    tag(good, state=state)
    with pytest.raises(UsageError, match=f"{good.image.id} is {state}: only good AMIs are published"):
        _image(aws, good.image.id, good.profile)


def test_other_amis_are_refused_with_the_reason(aws: Aws, good: Good) -> None:
    assert _image(aws, good.image.id, good.profile) == good.image
    with pytest.raises(UsageError, match=f"was baked from the profile {good.profile}, not another"):
        _image(aws, good.image.id, "another")
    absent = f"ami-0{secrets.token_hex(8)}"
    with pytest.raises(UsageError, match=f"there is no {absent} in {aws.region}"):
        _image(aws, absent, good.profile)
    [copy] = good.publish(aws, regions=(COPIED,))
    with pytest.raises(UsageError, match=f"{copy.id} is a copy of {good.image.id}"):
        _image(aws.within(COPIED), copy.id, good.profile)


def test_it_finishes_what_was_published_by_half(aws: Aws, good: Good) -> None:
    wanted = Wanted(regions=(COPIED,), watermark="verified")
    plan = ImagePlan(good.profile, "{profile}", (), None, 2, Disk(1, (), False), wanted=wanted)
    progress = Progress(PlainScreen(io.StringIO()))
    with refused(aws.ec2, "AttachImageWatermark", "UnauthorizedOperation"):
        rows = _publish(plan, aws, good.image, progress)
    with pytest.raises(BakeError, match="1 of 3 parts of ami-") as caught:
        _complain(good.image.id, rows)
    assert caught.value.exit_code == EXIT_FAILED
    assert "watermark in eu-north-1: AWS answers UnauthorizedOperation" in caught.value.message
    rows = _publish(plan, aws, good.image, progress)
    _complain(good.image.id, rows)
    assert len(rows) == 3
    assert len(good.copies(COPIED)) == 1
