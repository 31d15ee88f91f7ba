"""The root volume's arithmetic: told, never changed."""

from __future__ import annotations

import pytest

from bake.errors import UsageError
from bake.planning import disk as disk_of
from bake.planning.base_image import BaseImage
from bake.planning.disk import Disk
from bake.planning.findings import Findings
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.weights import flux
from bake.weights.flux import GIB, WeightFile

from .conftest import Account

WEIGHTS = WeightFiles({path: WeightFile(size) for path, size in flux.SIZES.items()}, "known sizes")


def base(root_gib: int = 8, content: int | None = None) -> BaseImage:
    return BaseImage(
        "ami-1", "ubuntu", "x86_64", "/dev/sda1", root_gib, snapshot="snap-1", content_bytes=content
    )


def check(profile: Profile, image: BaseImage) -> tuple[Disk, Findings]:
    findings = Findings()
    disk = disk_of.estimate(profile, image, WEIGHTS)
    disk_of.check(profile, image, disk, findings)
    return disk, findings


def test_the_sum_of_80_gib(account: Account) -> None:
    disk, findings = check(account.profile(), base(content=20 * GIB))
    assert disk_of.arithmetic(disk) == [
        "   20.0 GiB  base AMI     snap-1: written blocks",
        "   31.4 GiB  weights      known sizes",
        "    5.1 GiB  worker       its environment, measured",
        "    5.6 GiB  file system  7% of the volume",
        "    2.0 GiB  kept free    logs, caches",
        "   64.2 GiB  of 80 GiB; 15.8 GiB to spare",
    ]
    assert disk.verdict == "fits"
    assert not findings.problems


def test_too_small_is_an_error_with_the_arithmetic(account: Account) -> None:
    with pytest.raises(UsageError) as caught:
        account.plan(root_volume={"size_gib": 40})
    first, *rest = caught.value.message.splitlines()
    assert first == (
        "root_volume.size_gib: 40 GiB is too small: 56.4 GiB are needed; nothing is resized for you"
    )
    assert rest[-1].strip() == "56.4 GiB  of 40 GiB; 16.4 GiB missing"
    assert len(rest) == 6


def test_a_base_whose_content_is_not_known_may_not_fit(account: Account) -> None:
    """The size of the base's volume is an upper bound: a volume that is half empty may well do."""
    disk, findings = check(account.profile(), base(root_gib=45))
    assert disk.verdict == "may not fit"
    assert not findings.problems
    assert findings.warnings == [
        "root_volume.size_gib: 80 GiB leave 35.8 GiB for what the base AMI holds. EC2 does not say how much "
        "that is; its volume has 45 GiB"
    ]


def test_a_base_whose_content_is_known_to_be_too_large(account: Account) -> None:
    disk, findings = check(account.profile(), base(root_gib=45, content=40 * GIB))
    assert disk.verdict == "does not fit"
    assert len(findings.problems) == 1


def test_a_volume_smaller_than_its_snapshot(account: Account) -> None:
    _, findings = check(account.profile(root_volume={"size_gib": 60}), base(root_gib=75, content=GIB))
    assert findings.problems == [
        "root_volume.size_gib: 60 GiB is less than the base AMI's own 75 GiB\n"
        "    a volume can't be smaller than its snapshot; nothing is resized for you\n"
        "    name a base AMI whose root volume has 60 GiB at most, or agree to 75 GiB"
    ]


def test_int8_is_made_beside_the_weights(account: Account) -> None:
    disk, _ = check(account.profile(weights={"precision": "int8"}), base())
    copy = next(part for part in disk.parts if part.name == "int8 copy")
    # quantize.py's 11.98 and 4.90 GB, CLIP, the VAE and vocabularies: the checkpoint needs nothing beside it.
    assert round(copy.bytes / 1e9, 1) == 17.3
    assert disk.removed == 0
    assert copy.bytes < disk.beside_weights  # the download leaves room for it


def test_a_source_that_is_removed_counts_at_the_peak_and_not_in_the_snapshot(account: Account) -> None:
    image, int8 = base(content=15 * GIB), {"precision": "int8"}
    kept, _ = check(account.profile(weights=int8), image)
    gone, findings = check(account.profile(weights={**int8, "keep_source": False}), image)
    assert gone.needed == kept.needed
    assert kept.stored - gone.stored == WEIGHTS.bytes
    assert not findings.problems
    assert any("which are removed then" in line for line in disk_of.arithmetic(gone))


def test_the_snapshot_holds_the_files_alone(account: Account) -> None:
    disk, _ = check(account.profile(), base(content=20 * GIB))
    assert round(disk.stored / GIB, 1) == 56.6
    assert disk.free == 80 * GIB - disk.needed
