"""The root volume is the agreed one, has room, and holds the weights."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

from bake import layout
from bake.checks.expectations import Expectations

GIB = 1 << 30
# ext4 keeps about 2 % for itself; Ubuntu's /boot and EFI partitions take another GiB.
FILESYSTEM_SHARE = 0.93
# Logs, a core dump and a compile cache of the worker fit in it.
FREE_GIB = 2
DISK_FILESYSTEMS = {"ext4", "xfs"}
READ_AHEAD_RULE = "/etc/udev/rules.d/60-bake-read-ahead.rules"
READ_AHEAD_KIB = 2560
# One rule of udev(7): terms such as ATTR{queue/read_ahead_kb}="2560", with commas between them.
_TERM = r'[A-Z]+(\{[^}]+\})?(==|=)"[^"]*"'
_RULE = re.compile(rf"{_TERM}(, *{_TERM})*")
# The read-ahead of the whole disk, which its partitions share; nothing where the root is no EBS disk.
_ROOT_DISK = """
number=$(findmnt --noheadings --output MAJ:MIN --target / | tr -d ' ')
disk=$(readlink -f "/sys/dev/block/$number")
[ -e "$disk/partition" ] && disk=$(dirname "$disk")
case $(basename "$disk"):$(cat "$disk/device/model" 2>/dev/null) in
  xvd*:* | nvme*:"Amazon Elastic Block Store"*) cat "$disk/queue/read_ahead_kb" ;;
esac
"""


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


def test_what_was_removed_is_gone(
    host: Host, expect: Expectations, record_property: Callable[[str, object], None]
) -> None:
    """What the profile removes from the base AMI is not on the image, nor the disk lent to int8 (R-DISK)."""
    record_property("base_removed", ", ".join(expect.removed))
    tops = ("/usr/local", "/opt", "/usr/lib", "/root", expect.home)
    places = [layout.SCRATCH, *(f"{top}/{name}" for top in tops for name in expect.removed)]
    look = f"for place in {shlex.join(places)}; do [ ! -e $place ] || echo $place; done; echo looked"
    assert host.check_output(look).split() == ["looked"]


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


def test_read_ahead_rule(host: Host) -> None:
    """EBS disks are read ahead of far enough that a start from a fresh volume is not slow (R-SPOT)."""
    text = host.file(READ_AHEAD_RULE).content_string
    rules = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert [rule for rule in rules if not _RULE.fullmatch(rule)] == []
    for disk in ('KERNEL=="nvme*n*", ATTRS{model}=="Amazon Elastic Block Store*"', 'KERNEL=="xvd*"'):
        assert any(disk in rule and f'read_ahead_kb}}="{READ_AHEAD_KIB}"' in rule for rule in rules), disk
    if "verify" in host.run("udevadm --help").stdout:  # systemd 254 and newer
        host.check_output("udevadm verify %s", READ_AHEAD_RULE)


def test_read_ahead_of_the_root_disk(host: Host) -> None:
    """Where udev runs, the root disk is read ahead of as the rule says (R-SPOT)."""
    if host.file("/run/udev/control").exists and (found := host.check_output(_ROOT_DISK)):
        assert int(found) == READ_AHEAD_KIB
