"""A whole bake on a full base: it removes a toolkit and keeps the source of int8 on the instance store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bake.localcloud import ImageStore, LocalCloud, Settings
from bake.weights.flux import GIB

from .bakes import ROOT, rehearse
from .test_int8 import found_in, largest, words

pytestmark = [pytest.mark.root, pytest.mark.long]

MINE = """
extends: g5-ubuntu
attest: false
base:
  ami: ~
  name: Hostile base full (Ubuntu)
  owner: amazon
  remove: [cuda-12.6]
weights:
  scratch: instance-store
"""


def test_it_bakes_and_the_image_has_neither(
    cloud: LocalCloud, cloud_settings: Settings, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "profiles/mine.yaml").write_text(MINE)
    outcome = rehearse(tmp_path, "mine", profiles=tmp_path / "profiles")
    assert outcome.code == 0, outcome.errors
    report, fetched = outcome.report, outcome.kept("facts/weights.json")
    (removed,) = outcome.kept("base-content.json")["removed"]
    assert (removed["name"], round(removed["bytes"] / GIB)) == ("cuda-12.6", 10)
    assert any("cuda-12.6 (/usr/local/cuda-12.6) is gone" in note["text"] for note in report["notes"])
    assert fetched["disk"]["filesystem"] == "tmpfs"
    assert outcome.kept("facts/int8.json")["source_removed"] == 0
    files = fetched["files"]
    gone, kept = (words(cloud, name) for name in (largest(files, "transformer"), largest(files, "vae")))
    disk = ImageStore(cloud_settings.images).disk(report["image"]["volumes"][0]["snapshot"])
    assert found_in(disk, gone | kept) == kept
