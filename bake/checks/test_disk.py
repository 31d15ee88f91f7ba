"""The root volume is the agreed one, has room, and holds the weights."""

from __future__ import annotations

import shlex

from bake import layout
from bake.checks.declare import check
from bake.checks.evidence import Compare
from bake.checks.expectations import Expectations
from bake.checks.gathered import Answers, Facts

GIB = 1 << 30
# ext4 keeps about 2 % for itself; Ubuntu's /boot and EFI partitions take another GiB.
FILESYSTEM_SHARE = 0.93
# Logs, a core dump and a compile cache of the worker fit in it.
FREE_GIB = 2
DISK_FILESYSTEMS = {"ext4", "xfs"}
VOLUME = "DescribeVolumes, of the builder's root volume"
DISK_IS_AGREED = "The size and type of a disk never change unless its owner agrees."
AGREE = "Put the volume into the profile as it should be, and agree to it with `bake approve`."
INSTANCE_STORE = "An image holds its EBS volume alone: what lies elsewhere is not in the snapshot."


def _asked(expect: Expectations) -> str | None:
    return "nobody asked AWS about the volume" if expect.volume_gib is None else None


@check("critical", DISK_IS_AGREED, AGREE, applies=_asked)
def test_volume_size_as_agreed(compare: Compare, expect: Expectations) -> None:
    """AWS reports the root volume in the agreed size (R-DISK)."""
    compare.equal(VOLUME, f"{expect.root_volume_gib} GiB", f"{expect.volume_gib} GiB")


@check("critical", DISK_IS_AGREED, AGREE, applies=_asked)
def test_volume_type_as_agreed(compare: Compare, expect: Expectations) -> None:
    """AWS reports the root volume as the agreed type (R-DISK)."""
    compare.equal(VOLUME, expect.root_volume_type, expect.volume_type)


@check(
    "high",
    "Room that the file system does not use is paid for, and the weights may not fit.",
    "Let cloud-init grow the root partition: growpart and resize_rootfs in the base AMI.",
)
def test_filesystem_fills_volume(system: Facts, compare: Compare, expect: Expectations) -> None:
    """The root file system has grown to the whole volume (R-DISK)."""
    gib, size = system["root_bytes"] / GIB, expect.root_volume_gib
    expected = f"{FILESYSTEM_SHARE * size:.1f} to {size} GiB"
    compare.holds(system, FILESYSTEM_SHARE * size <= gib <= size, expected, f"{gib:.1f} GiB")


def _removed(expect: Expectations) -> dict[str, str]:
    tops = ("/usr/local", "/opt", "/usr/lib", "/root", expect.home)
    places = [layout.SCRATCH, *(f"{top}/{name}" for top in tops for name in expect.removed)]
    look = f"for place in {shlex.join(places)}; do [ ! -e $place ] || echo $place; done; echo looked"
    return {"there": look}


@check(
    "high",
    "The plan's sum counts on the room; an image with it is larger than what was agreed.",
    "Remove it in the base AMI, or leave it out of `base.remove`.",
    asks=_removed,
)
def test_what_was_removed_is_gone(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """What the profile removes from the base AMI is not on the image, nor the disk lent to int8 (R-DISK)."""
    there = answers["there"]
    compare.holds(there, there.words[-1:] == ["looked"], "a look at all places", there.said)
    expected = f"nothing of {', '.join([layout.SCRATCH, *expect.removed])}"
    compare.none(there, [word for word in there.words if word != "looked"], expected)


@check(
    "high",
    "A full disk ends the worker in the middle of a job.",
    "Agree to a larger `root_volume.size_gib`, or remove something by `base.remove` (docs/fit.md).",
    booted=True,
)
def test_space_is_left(system: Facts, compare: Compare) -> None:
    """The booted image has room to work in (R-DISK)."""
    gib = system["root_free_bytes"] / GIB
    compare.holds(system, gib >= FREE_GIB, f"{FREE_GIB} GiB or more", f"{gib:.1f} GiB free")


def _places(expect: Expectations) -> list[str]:
    return [expect.cache_dir, *([expect.model_dir] if expect.precision == "int8" else [])]


@check(
    "critical",
    INSTANCE_STORE,
    "Unmount what is mounted there, or choose a `weights.cache` on the root volume.",
    asks=lambda expect: {"devices": f"stat --format=%d / {shlex.join(_places(expect))}"},
)
def test_cache_on_root_volume(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The model lies on the root EBS volume, which the snapshot holds (R-DISK, R-EBS)."""
    devices, places = answers["devices"], _places(expect)
    of_root, *found = devices.words or [""]
    compare.holds(devices, len(found) == len(places), "an answer for each place", devices.said)
    elsewhere = [place for place, device in zip(places, found, strict=False) if device != of_root]
    compare.none(devices, elsewhere, "no place on another file system than /")


@check(
    "critical",
    INSTANCE_STORE,
    "Choose a `weights.cache` on the root volume.",
    asks=lambda expect: {
        "kind": f"findmnt --noheadings --output FSTYPE --target {shlex.quote(expect.cache_dir)}"
    },
)
def test_cache_on_a_disk(answers: Answers, compare: Compare) -> None:
    """The model lies on a disk, neither in memory nor on an overlay (R-EBS)."""
    kind = answers["kind"].out.strip()
    compare.holds(answers["kind"], kind in DISK_FILESYSTEMS, " or ".join(sorted(DISK_FILESYSTEMS)), kind)


@check("critical", INSTANCE_STORE, "Choose a `weights.cache` on the root volume.")
def test_cache_not_on_instance_store(cache: Facts, compare: Compare) -> None:
    """The model is not on instance store, which a stop of the machine empties (R-EBS)."""
    # Both kinds of disk are NVMe and tell by their model; a loop device has none.
    model = cache["disk_model"]
    compare.equal(cache, "a cache", "a cache" if cache["there"] else "no cache")
    compare.holds(
        cache,
        "Instance Storage" not in model,
        "a disk that is no instance store",
        model or "a disk without a model",
    )


@check(
    "low",
    "A copy is paid for in each snapshot and volume, and is read at each hydration.",
    "Find what put the copy there, and remove it on the base AMI or in the scripts.",
)
def test_one_copy_of_each_weight(start: Facts, compare: Compare) -> None:
    """The cache, and the int8 checkpoint, hold one copy of each large file (R-CACHE, R-DISK)."""
    compare.none(start, start["copies"], "no two files of the same content")
