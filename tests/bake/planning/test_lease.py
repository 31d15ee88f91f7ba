"""How long a bake may make no progress before what it created counts as left over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bake.planning import estimates


@pytest.mark.parametrize(
    ("seconds", "hours"), [(60, 2), (2 * 3600, 6), (0, 2), (2400, 2), (2402, 2 + 6 / 3600)], ids=str
)
def test_a_lease_is_three_times_the_estimate(seconds: int, hours: float) -> None:
    assert estimates.lease(seconds) == timedelta(hours=hours)
