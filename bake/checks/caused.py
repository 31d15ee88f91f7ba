"""Parts what a check found into what the bake caused and what its base AMI brought."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bake.checks.baseline import CALLED
from bake.checks.expectations import Expectations

BASE = "base"
"""The property of a check, in the JUnit report too, with what the base AMI brought."""


class Caused:
    """Tells what the bake caused of what a check found; the rest is reported as the base's own."""

    def __init__(self, expect: Expectations, item: pytest.Item) -> None:
        self._expect, self._item = expect, item

    def __call__(
        self, kind: str, found: Mapping[str, str], changed: Mapping[str, float] | None = None
    ) -> list[str]:
        """The names of the findings that the base AMI did not bring."""
        caused = self._expect.baseline.caused(kind, found, changed)
        brought = [name for name in found if name not in caused]
        self._item.user_properties += [(BASE, f"{CALLED[kind]} {name}") for name in brought]
        return list(caused)
