"""The local cloud's API with machines that are records."""

from __future__ import annotations

from tests.bake.publish.conftest import aws, served, witness

__all__ = ["aws", "served", "witness"]
