"""Separate findings that the bake caused from those of its base AMI."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bake.checks.baseline import CALLED
from bake.checks.expectations import Expectations

BASE = "base"
"""The property of a check, in JUnit too, with the base AMI's own findings."""


class Caused:
    """Selects the findings that the bake caused; reports the others as the base AMI's."""

    def __init__(self, expect: Expectations, item: pytest.Item) -> None:
        self._expect, self._item = expect, item

    def __call__(
        self, kind: str, found: Mapping[str, str], changed: Mapping[str, float] | None = None
    ) -> list[str]:
        """Return the names of the findings that the base AMI did not have."""
        caused = self._expect.baseline.caused(kind, found, changed)
        brought = [name for name in found if name not in caused]
        self._item.user_properties += [(BASE, f"{CALLED[kind]} {name}") for name in brought]
        return list(caused)
