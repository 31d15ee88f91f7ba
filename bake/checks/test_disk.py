"""The root volume: the agreed one, with room, and the weights on it."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host

from bake.checks.expectations import Expectations

GIB = 1 << 30
# ext4 keeps about 2 % for itself; Ubuntu's /boot and EFI partitions take another GiB.
FILESYSTEM_SHARE = 0.93
# Logs, a core dump and a compile cache of the worker fit in it.
FREE_GIB = 2
DISK_FILESYSTEMS = {"ext4", "xfs"}


def test_volume_size_as_agreed(expect: Expectations) -> None:
    """AWS reports the root volume in the agreed size (R-DISK)."""
    assert expect.volume_gib == expect.root_volume_gib


def test_volume_type_as_agreed(expect: Expectations) -> None:
    """AWS reports the root volume as the agreed type (R-DISK)."""
    assert expect.volume_type == expect.root_volume_type


def test_filesystem_fills_volume(system: dict[str, Any], expect: Expectations) -> None:
    """The root file system has grown to the whole volume (R-DISK)."""
    gib = system["root_bytes"] / GIB
    assert FILESYSTEM_SHARE * expect.root_volume_gib <= gib <= expect.root_volume_gib


def test_space_is_left(system: dict[str, Any]) -> None:
    """The booted image has room to work in (R-DISK)."""
    assert system["root_free_bytes"] / GIB >= FREE_GIB


def test_cache_on_root_volume(host: Host, expect: Expectations) -> None:
    """The model lies on the root EBS volume, which the snapshot holds (R-DISK, R-EBS)."""
    places = [expect.cache_dir, *([expect.model_dir] if expect.precision == "int8" else [])]
    of_root, *found = host.check_output("stat -c %%d %s" + " %s" * len(places), "/", *places).split()
    elsewhere = [place for place, device in zip(places, found, strict=True) if device != of_root]
    assert elsewhere == [], f"{', '.join(elsewhere)}: on another file system than /"


def test_cache_on_a_disk(host: Host, expect: Expectations) -> None:
    """The model lies on a disk, neither in memory nor on an overlay (R-EBS)."""
    kind = host.check_output("findmnt --noheadings --output FSTYPE --target %s", expect.cache_dir)
    assert kind in DISK_FILESYSTEMS


def test_cache_not_on_instance_store(cache: dict[str, Any]) -> None:
    """The model is not on instance store, which a stop of the machine empties (R-EBS)."""
    # Both kinds of disk are NVMe and tell by their model; a loop device has none.
    assert "Instance Storage" not in cache["disk_model"]
    assert cache["there"]
