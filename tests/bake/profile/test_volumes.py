"""What EBS takes for a root volume: at each limit, and one beyond it."""

from __future__ import annotations

from typing import get_args

import pytest

from bake.profile.schema import RootVolume
from bake.profile.volumes import LIMITS, refused


@pytest.mark.parametrize(
    ("kind", "gib", "iops", "throughput"),
    [
        ("gp3", 1, None, None),
        ("gp3", 1, 3000, 750),
        ("gp3", 80, None, 750),
        ("gp3", 80, 8000, 2000),
        ("gp3", 16, 8000, None),
        ("gp3", 65_536, 80_000, 2000),
        ("gp2", 16_384, None, None),
        ("io1", 4, 200, None),
        ("io1", 1_280, 64_000, None),
        ("io2", 256, 256_000, None),
    ],
)
def test_what_ebs_takes(kind: str, gib: int, iops: int | None, throughput: int | None) -> None:
    assert list(refused(kind, gib, iops, throughput)) == []


@pytest.mark.parametrize(
    ("kind", "gib", "iops", "throughput", "expected"),
    [
        ("gp3", 80, None, 751, "throughput: 751 MiB/s need 3,004 iops, not 3,000"),
        ("gp3", 80, 7_999, 2_000, "throughput: 2,000 MiB/s need 8,000 iops, not 7,999"),
        ("gp3", 16, 8_001, None, "iops: 8,001 need 17 GiB, not 16: gp3 has 500 for each"),
        ("gp3", 1_000, 80_001, None, "iops: gp3 has 3,000 to 80,000, not 80,001"),
        ("gp3", 65_537, None, None, "size_gib: gp3 has 1 to 65,536 GiB, not 65,537"),
        ("gp2", 16_385, None, None, "size_gib: gp2 has 1 to 16,384 GiB, not 16,385"),
        ("io1", 3, 100, None, "size_gib: io1 has 4 to 16,384 GiB, not 3"),
        ("io1", 80, 4_001, None, "iops: 4,001 need 81 GiB, not 80: io1 has 50 for each"),
        ("io1", 16_384, 64_001, None, "iops: io1 has 100 to 64,000, not 64,001"),
        ("io2", 80, 80_001, None, "iops: 80,001 need 81 GiB, not 80: io2 has 1,000 for each"),
    ],
)
def test_what_ebs_refuses(
    kind: str, gib: int, iops: int | None, throughput: int | None, expected: str
) -> None:
    (text,) = refused(kind, gib, iops, throughput)
    assert text.startswith(expected)
    assert "https://docs.aws.amazon.com/ebs/" in text


def test_each_type_of_the_schema_has_limits() -> None:
    assert set(get_args(RootVolume.model_fields["type"].annotation)) == set(LIMITS)
