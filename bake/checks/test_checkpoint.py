"""The int8 checkpoint exists if the profile says so, is complete and proven, and belongs to root."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bake.checks.expectations import Expectations

RecordProperty = Callable[[str, object], None]
ROOT = 0
LOWEST_PSNR = 20.0  # two unrelated images have about 10 dB


def test_int8_is_there_if_wanted(checkpoint: dict[str, Any], expect: Expectations) -> None:
    """An int8 checkpoint of the pinned revision is there if the profile says int8, else none (R-MODEL)."""
    found = checkpoint["revision"] if checkpoint["there"] else None
    assert found == (expect.revision if expect.precision == "int8" else None)


def test_int8_is_whole(checkpoint: dict[str, Any]) -> None:
    """An int8 checkpoint has every file that its provenance names, in its size, and no other (R-MODEL)."""
    if checkpoint["there"]:
        assert (checkpoint["missing"], checkpoint["wrong_size"], checkpoint["extra"]) == ([], {}, [])


def test_int8_draws_like_bf16(checkpoint: dict[str, Any], record_property: RecordProperty) -> None:
    """An int8 checkpoint drew what bfloat16 draws: their difference has a PSNR of 20 dB or more (R-MODEL)."""
    if checkpoint["there"]:
        record_property("psnr_db", checkpoint["psnr"])
        assert checkpoint["psnr"] is None or checkpoint["psnr"] >= LOWEST_PSNR


def test_int8_is_roots(checkpoint: dict[str, Any]) -> None:
    """Everybody can read an int8 checkpoint and only root can change it (R-SYSTEMD)."""
    if checkpoint["there"]:
        assert checkpoint["owners"] == [ROOT]
        assert (checkpoint["writable"], checkpoint["unreadable"]) == ([], [])
