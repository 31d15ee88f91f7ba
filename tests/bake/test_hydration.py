"""The tag that tells the next plan what a start measured."""

from __future__ import annotations

import re

import pytest

from bake.hydration import Measured, parse

FULL = Measured(93.1, 4_100_000_000, 700_000_000, 31.0, 12.4, 8.1, "gp3", 300)
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions: what all services take
ALLOWED = re.compile(r"[A-Za-z0-9 +\-=._:/@]{1,256}")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Measured(93.1, 4_100_000_000), "93.1 MB/s over 4.1 GB"),
        (Measured(1234.0, 33_740_000_000), "1234 MB/s over 33.74 GB"),
        (Measured(0.51, 716_000), "0.51 MB/s over 716 kB"),
        (Measured(100.0, 0), "100 MB/s over 0 B"),
        (
            FULL,
            "93.1 MB/s over 4.1 GB libraries=700MB boot=31.0s imports=12.4s first-draw=8.1s volume=gp3 "
            "rate=300",
        ),
    ],
)
def test_a_tag_is_read_as_it_was_written(found: Measured, text: str) -> None:
    assert found.text() == text
    assert parse(text) == found
    assert ALLOWED.fullmatch(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "93.1 MB/s",
        "0 MB/s over 4.1 GB",
        "93.1 MB/s over 4.1 GiB",
        "93.1 MB/s over -1 GB",
        "nan MB/s over 1 GB",
    ],
)
def test_what_is_no_measurement_is_none(text: str) -> None:
    assert parse(text) is None


def test_what_a_later_version_adds_hides_nothing() -> None:
    assert parse("93.1 MB/s over 4.1 GB queue=31 boot=soon rate=fast") == Measured(93.1, 4_100_000_000)
