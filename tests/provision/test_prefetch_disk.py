"""Finding the disk that the cache lies on, with files as EC2's disks and a fake /sys."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EBS = "Amazon Elastic Block Store"
STORE = "Amazon EC2 NVMe Instance Storage"
VOLUME = "vol-0123456789abcdef0"
SERIAL = "vol0123456789abcdef0"
MEMORY = Path("/dev/shm")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "provision")
    return importlib.import_module("prefetch.disk")


class Sys:
    """A /sys with disks of one's choice under real file systems."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in ("dev/block", "devices", "class/block"):
            (folder / name).mkdir(parents=True)

    def disk(self, name: str, model: str | None = None, serial: str | None = None) -> Path:
        device = self.root / "devices" / name
        (device / "device").mkdir(parents=True)
        (device / "slaves").mkdir()
        for key, value in (("model", model), ("serial", serial)):
            if value:
                (device / "device" / key).write_text(f"{value:<40}\n")
        (self.root / "class/block" / name).symlink_to(device)
        return device

    def partition(self, disk: Path) -> Path:
        device = disk / f"{disk.name}p1"
        device.mkdir()
        (device / "partition").write_text("1\n")
        (self.root / "class/block" / device.name).symlink_to(device)
        return device

    def mapping(self, name: str, *below: Path) -> Path:
        device = self.disk(name)
        for slave in below:
            (device / "slaves" / slave.name).symlink_to(slave)
        return device

    def under(self, path: Path, device: Path) -> None:
        """Have the file system of `path` lie on the device."""
        number = path.stat().st_dev
        (self.root / "dev/block" / f"{os.major(number)}:{os.minor(number)}").symlink_to(device)


@pytest.fixture
def kernel(tmp_path: Path) -> Sys:
    return Sys(tmp_path / "sys")


def judged(disk: ModuleType, kernel: Sys, path: Path, stand_in: str | None = None) -> str:
    """What is said against `path`; empty when it is taken."""
    place = disk.trace(path / "not" / "there" / "yet", kernel.root)
    try:
        disk.require_ebs(place, VOLUME, stand_in, kernel.root)
    except disk.Refused as refused:
        assert (refused.kind, "weights.cache" in refused.hint) == ("not-ebs", True)
        return str(refused.reason)
    return ""


def ebs_root(kernel: Sys) -> Path:
    return kernel.partition(kernel.disk("nvme0n1", EBS, SERIAL))


def logical_volume(kernel: Sys) -> Path:
    return kernel.mapping("dm-0", kernel.mapping("dm-1", ebs_root(kernel)))


@pytest.mark.parametrize("make", [ebs_root, logical_volume])
def test_the_root_volume_is_taken(
    disk: ModuleType, kernel: Sys, tmp_path: Path, make: Callable[[Sys], Path]
) -> None:
    kernel.under(tmp_path, make(kernel))
    assert judged(disk, kernel, tmp_path) == ""
    place = disk.trace(tmp_path, kernel.root)
    assert [(entry.name, entry.model, entry.serial) for entry in place.disks] == [("nvme0n1", EBS, SERIAL)]


def instance_store(kernel: Sys) -> Path:
    return kernel.disk("nvme1n1", STORE, "AWS12345")


def another_volume(kernel: Sys) -> Path:
    return kernel.disk("nvme1n1", EBS, "vol0fedcba9876543210")


def partly_instance_store(kernel: Sys) -> Path:
    return kernel.mapping("md0", ebs_root(kernel), instance_store(kernel))


def no_model(kernel: Sys) -> Path:
    return kernel.disk("vda")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        pytest.param(instance_store, ["/dev/nvme1n1", STORE], id="instance-store"),
        pytest.param(another_volume, ["/dev/nvme1n1", "vol0fedcba9876543210", VOLUME], id="another-volume"),
        pytest.param(partly_instance_store, ["/dev/nvme1n1", STORE], id="raid-with-instance-store"),
        pytest.param(no_model, ["/dev/vda", "no EBS volume"], id="unknown"),
    ],
)
def test_other_disks_are_refused_by_name(
    disk: ModuleType, kernel: Sys, tmp_path: Path, make: Callable[[Sys], Path], named: list[str]
) -> None:
    kernel.under(tmp_path, make(kernel))
    said = judged(disk, kernel, tmp_path)
    assert all(part in said for part in named), said


def test_memory_is_refused_by_name(disk: ModuleType, kernel: Sys) -> None:
    said = judged(disk, kernel, MEMORY)
    assert "tmpfs" in said and str(MEMORY) in said


def test_on_xen_only_the_disk_of_the_root_file_system_is_taken(disk: ModuleType, kernel: Sys) -> None:
    kernel.under(Path("/"), kernel.disk("xvda"))
    kernel.under(MEMORY, kernel.disk("xvdb"))
    assert judged(disk, kernel, Path("/")) == ""
    assert "/dev/xvdb (a Xen disk beside the root volume)" in judged(disk, kernel, MEMORY)


def test_a_local_clouds_disk_is_taken_only_where_it_stands_in(disk: ModuleType, kernel: Sys) -> None:
    kernel.under(MEMORY, kernel.disk("loop7"))
    assert judged(disk, kernel, MEMORY, stand_in="loop") == ""
    assert "/dev/loop7" in judged(disk, kernel, MEMORY)


def test_a_real_disk_does_not_pass_for_a_local_clouds(disk: ModuleType, kernel: Sys) -> None:
    kernel.under(MEMORY, instance_store(kernel))
    said = judged(disk, kernel, MEMORY, stand_in="loop")
    assert "/dev/nvme1n1" in said and STORE in said


def test_btrfs_is_followed_by_its_source(
    disk: ModuleType, kernel: Sys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its device number is of its own. The command that is stood in for is one that knows of a btrfs."""
    kernel.partition(kernel.disk("nvme0n1", EBS, SERIAL))
    fake = tmp_path / "bin" / "findmnt"
    fake.parent.mkdir()
    entry = '{"source": "/dev/nvme0n1p1[/root]", "fstype": "btrfs", "target": "/"}'
    fake.write_text(f"#!/bin/sh\necho '{{\"filesystems\": [{entry}]}}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    assert judged(disk, kernel, tmp_path) == ""


def judged_as_scratch(disk: ModuleType, kernel: Sys, path: Path, stand_in: str | None = None) -> str:
    """What is said against `path` where an instance store is wanted; empty when it is taken."""
    try:
        disk.require_instance_store(disk.trace(path / "not/there/yet", kernel.root), stand_in)
    except disk.Refused as refused:
        assert (refused.kind, "weights.scratch" in refused.hint) == ("not-scratch", True)
        return str(refused.reason)
    return ""


def test_what_int8_is_made_of_may_lie_on_an_instance_store_alone(
    disk: ModuleType, kernel: Sys, tmp_path: Path
) -> None:
    kernel.under(tmp_path, kernel.mapping("dm-0", instance_store(kernel)))
    assert judged_as_scratch(disk, kernel, tmp_path) == ""
    assert "which is no instance store" in judged_as_scratch(disk, kernel, MEMORY)
    assert judged_as_scratch(disk, kernel, MEMORY, stand_in="tmpfs") == ""
    assert "/dev/nvme1n1" in judged_as_scratch(disk, kernel, tmp_path, stand_in="tmpfs")


@pytest.mark.parametrize("make", [ebs_root, partly_instance_store, no_model])
def test_what_goes_into_a_snapshot_is_no_instance_store(
    disk: ModuleType, kernel: Sys, tmp_path: Path, make: Callable[[Sys], Path]
) -> None:
    kernel.under(tmp_path, make(kernel))
    assert "which is no instance store" in judged_as_scratch(disk, kernel, tmp_path)
