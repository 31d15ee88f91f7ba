"""Why an AMI is not fit to be served."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bake.image import unfit

NOW = datetime(2026, 11, 1, tzinfo=UTC)
TAGS = {"bake:run": "r", "bake:profile": "x", "bake:state": "good", "bake:venue": "AWS"}


def image(shown: str = "available", /, deprecated: str = "", **changed: str | None) -> Any:
    tags = {**TAGS, **{f"bake:{name}": value for name, value in changed.items()}}
    listed = [{"Key": key, "Value": value} for key, value in tags.items() if value is not None]
    more = {"DeprecationTime": deprecated} if deprecated else {}
    return {"ImageId": "ami-0123456789abcdef0", "State": shown, "Tags": listed, **more}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (image(), ""),
        (image(deprecated="2026-11-02T00:00:00.000Z"), ""),
        (image(deprecated="2026-10-31T00:00:00.000Z"), "it is deprecated since 2026-10-31T00:00:00.000Z"),
        (image("disabled"), "EC2 says that it is disabled"),
        (image("pending"), "EC2 says that it is pending"),
        (image("disabled", state="revoked", because="CVE"), "it is revoked: CVE"),
        (image(state="revoked"), "it is revoked"),
        (image(state="draft"), "it is draft, not good"),
        (image(state="unproven"), "it is unproven, not good"),
        (image(profile="y"), "it was baked from the profile y, not x"),
        (image(venue="REHEARSAL"), "it was baked in REHEARSAL: it is not for AWS"),
        (image(run=None), "bake did not make it"),
        (image(profile=None), "bake did not make it"),
        ({"ImageId": "ami-0123456789abcdef0", "State": "available"}, "bake did not make it"),
    ],
)
def test_what_is_not_fit_says_why(facts: Any, why: str) -> None:
    assert unfit(facts, profile="x", venue="AWS", now=NOW) == why


def test_images_from_before_there_were_such_tags_are_good_and_of_aws() -> None:
    assert unfit(image(state=None, venue=None), profile="x", venue="AWS") == ""
    assert "not for REHEARSAL" in unfit(image(venue=None), profile="x", venue="REHEARSAL")


def test_deprecation_counts_only_with_a_time() -> None:
    assert unfit(image(deprecated="2020-01-01T00:00:00.000Z"), profile="x", venue="AWS") == ""
