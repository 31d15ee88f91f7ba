"""A whole bake on a full base: it removes a toolkit and keeps the source of int8 on the instance store."""

from __future__ import annotations

import json
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
    manifest = outcome.manifest
    (removed,) = manifest["base"]["removed"]
    assert (removed["name"], round(removed["bytes"] / GIB)) == ("cuda-12.6", 10)
    assert any("cuda-12.6 (/usr/local/cuda-12.6) is gone" in note for note in manifest["notes"])
    assert manifest["weights"]["disk"]["filesystem"] == "tmpfs"
    assert manifest["int8"]["source_removed"] == 0
    assert json.loads((outcome.directory / "base-content.json").read_text()) == manifest["base"]
    files = manifest["weights"]["files"]
    gone, kept = (words(cloud, name) for name in (largest(files, "transformer"), largest(files, "vae")))
    disk = ImageStore(cloud_settings.images).disk(manifest["image"]["snapshot"])
    assert found_in(disk, gone | kept) == kept
