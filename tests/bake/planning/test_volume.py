"""What volumes give."""

from __future__ import annotations

from typing import Any

import pytest

from bake.planning.volume import at_start, steadily, throughput
from bake.profile.schema import RootVolume

from ..instance_types import TYPES


@pytest.mark.parametrize(
    ("volume", "mib"),
    [
        ({"type": "gp3"}, 125),
        ({"type": "gp3", "throughput": 500}, 500),
        ({"type": "gp2"}, 128),
        ({"type": "gp2", "size_gib": 500}, 250),
        ({"type": "io1", "iops": 1000}, 250),
        ({"type": "io1", "iops": 20_000, "size_gib": 400}, 500),
        ({"type": "io1", "iops": 64_000, "size_gib": 1280}, 1000),
        ({"type": "io2", "iops": 8000}, 2000),
        ({"type": "io2", "iops": 100_000, "size_gib": 100}, 4000),
    ],
)
def test_throughput_follows_from_the_volume(volume: dict[str, Any], mib: int) -> None:
    found = RootVolume(**{"size_gib": 80, **volume})
    assert throughput(found) == pytest.approx(mib * 1.048576)


def test_a_start_has_the_burst_of_its_type_and_no_more_than_the_volume() -> None:
    small, large = (RootVolume(size_gib=80, type="gp3", throughput=mib, iops=4000) for mib in (125, 1000))
    kind = TYPES["g6e.xlarge"]
    assert (steadily(large, kind), at_start(large, kind).mb_per_s) == (125.0, 625.0)
    assert at_start(large, kind).limit == "g6e.xlarge's EBS limit"
    assert at_start(small, kind).mb_per_s == pytest.approx(131.072)
    assert at_start(small, kind).limit == "the volume's throughput (gp3)"
