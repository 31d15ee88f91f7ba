"""The table in docs/fit.md is what the code works out, for each profile and the base AMI that it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake import profile as profiles
from bake.planning import capacity, hardware
from bake.planning import disk as disk_of
from bake.planning.base_image import BaseImage
from bake.planning.capacity import Content, Thing
from bake.planning.disk import FILE_SYSTEM_SHARE
from bake.planning.findings import Findings
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.weights import flux
from bake.weights.flux import GIB, WeightFile

from .conftest import Account

ROOT = Path(__file__).parents[3]
PROFILES = ROOT / "profiles"
WEIGHTS = WeightFiles({path: WeightFile(size) for path, size in flux.SIZES.items()}, "known sizes")
# What is told of Deep Learning AMIs: GiB of root volume, bytes used, bytes of a CUDA toolkit.
ROOT_GIB = {"cuda": 75, "neuron": 100}
USED, TOOLKIT = 50 * 10**9, 10 * 10**9
TOOLKITS = tuple(
    Thing(f"cuda-{name}", "toolkit", (f"/usr/local/cuda-{name}",), TOOLKIT)
    for name in ("12.6", "12.8", "12.9")
)


def amazons(profile: Profile) -> tuple[BaseImage, Content]:
    """The base AMI that a profile is for, and what its builder would measure."""
    gib = ROOT_GIB[profile.base.accelerator]
    size = round(profile.root_volume.size_gib * GIB * (1 - FILE_SYSTEM_SHARE))
    return BaseImage("ami-1", "", "x86_64", "", gib), Content(size, USED, size - USED, TOOLKITS)


def row(profile: Profile, types: hardware.Types) -> str:
    """A line of the table."""
    base, found = amazons(profile)
    planned, findings = disk_of.estimate(profile, base, WEIGHTS), Findings()
    disk_of.check(profile, base, planned, findings)
    leaves = (planned.free + planned.parts[0].bytes) / GIB
    cells = [f"`{profile.name}`", profile.weights.precision, f"{leaves:.1f}"]
    if findings.problems:
        return line(
            *cells, f"no: {base.root_gib} GiB do not go onto {planned.volume_gib}", "refused by the plan"
        )
    disk = capacity.measured(planned, found)
    if disk.free >= 0:
        return line(*cells, f"{disk.free / GIB:.1f} to spare", "nothing to choose")
    enough = [
        offer.strip().replace("   # gives ", "` gives ").removesuffix(": enough")
        for offer in capacity.choices(profile, types.builder, WEIGHTS, disk, found)
        if offer.endswith(": enough")
    ]
    return line(*cells, f"{-disk.free / GIB:.1f} missing", "; or ".join(f"`{offer}" for offer in enough))


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", profiles.names(PROFILES))
def test_the_table_is_the_codes(account: Account, name: str) -> None:
    profile = account.profile(name)
    types = hardware.find(profile, account.answers(profile), Findings())
    assert row(profile, types) in ((ROOT / "docs/fit.md").read_text(encoding="utf-8").splitlines())


def test_the_sum_in_the_text_is_the_codes(account: Account) -> None:
    profile = account.profile()
    base, found = amazons(profile)
    planned = disk_of.estimate(profile, base, WEIGHTS)
    text = (ROOT / "docs/fit.md").read_text(encoding="utf-8")
    for told in disk_of.arithmetic(capacity.measured(planned, found)):
        assert told in text
