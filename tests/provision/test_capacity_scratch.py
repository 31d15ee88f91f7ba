"""The instance store in place of the root volume; its disks are loop devices under a fake /sys."""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.root

STORE = "Amazon EC2 NVMe Instance Storage"
EBS = "Amazon Elastic Block Store"
MIB = 1 << 20


class Disks:
    """Loop devices of `mib`, which /sys shows as NVMe disks of a model."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sys, self.made = folder, folder / "sys", []
        (self.sys / "block").mkdir(parents=True)
        (self.sys / "dev/block").mkdir(parents=True)

    def add(self, model: str, mib: int = 64) -> str:
        file = self.folder / f"disk{len(self.made)}"
        with file.open("wb") as stream:
            stream.truncate(mib * MIB)
        device = run("losetup", "--find", "--show", str(file)).strip()
        self.made.append(device)
        name = Path(device).name
        shown = self.sys / "block" / name
        (shown / "device").mkdir(parents=True)
        (shown / "slaves").mkdir()
        (shown / "device/model").write_text(f"{model:<40}\n")
        (shown / "size").write_text(f"{mib * MIB // 512}\n")
        number = Path(device).stat().st_rdev
        (self.sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}").symlink_to(shown)
        return device


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    made = Disks(tmp_path)
    yield made
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(str(tmp_path)):
            run("umount", line.split()[4])
    for device in made.made:
        run("losetup", "--detach", device)


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch, disks: Disks) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "provision" / "capacity")
    module = importlib.import_module("scratch")
    monkeypatch.setattr(module, "SYS", str(disks.sys))
    return module


def given(disks: Disks, mib: int = 20, **more: Any) -> dict[str, Any]:
    at = str(disks.folder / "at")
    return {"at": at, "user": "nobody", "needed": mib * MIB, "stand_in": None, **more}


def test_an_unused_one_is_formatted_and_mounted(scratch: ModuleType, disks: Disks) -> None:
    disks.add(EBS)
    device = disks.add(STORE)
    told = scratch.mount(given(disks))
    assert (told["device"], told["model"], told["filesystem"]) == (device, STORE, "ext4")
    assert told["free"] > 20 * MIB
    assert Path(disks.folder, "at").owner() == "nobody"


def test_mounting_again_keeps_what_is_there(scratch: ModuleType, disks: Disks) -> None:
    """A restart takes the mount away, and not what the download has brought so far."""
    disks.add(STORE)
    scratch.mount(given(disks))
    Path(disks.folder, "at/part").write_text("half of it")
    run("umount", str(disks.folder / "at"))
    scratch.mount(given(disks))
    scratch.mount(given(disks))
    assert Path(disks.folder, "at/part").read_text() == "half of it"


def test_unmounting_leaves_nothing(scratch: ModuleType, disks: Disks) -> None:
    disks.add(STORE)
    fstab = Path("/etc/fstab").read_bytes()
    scratch.mount(given(disks))
    scratch.unmount(given(disks))
    assert not Path(disks.folder, "at").exists()
    assert str(disks.folder) not in Path("/proc/self/mountinfo").read_text()
    assert Path("/etc/fstab").read_bytes() == fstab
    assert scratch.unmount(given(disks)) == {}


def test_one_that_the_base_has_mounted_is_used_and_not_formatted(scratch: ModuleType, disks: Disks) -> None:
    device = disks.add(STORE)
    place = disks.folder / "dlami"
    place.mkdir()
    run("mkfs.ext4", "-q", device)
    run("mount", device, str(place))
    (place / "theirs").write_text("stays")
    told = scratch.mount(given(disks))
    assert (told["model"], (place / "theirs").read_text()) == (STORE, "stays")
    Path(disks.folder, "at/blob").write_text("ours")
    scratch.unmount(given(disks))
    assert sorted(path.name for path in place.iterdir()) == ["lost+found", "theirs"]


def file_system(device: str) -> None:
    run("mkfs.ext4", "-q", "-L", "data", device)


def swap(device: str) -> None:
    run("mkswap", device)


@pytest.mark.parametrize(
    ("model", "fill", "mib", "said"),
    [
        pytest.param(EBS, None, 64, "has no disk whose model is", id="EBS"),
        pytest.param(STORE, file_system, 64, "holds something", id="somebody's"),
        pytest.param(STORE, swap, 64, "holds something", id="swap"),
        pytest.param(STORE, None, 8, "is too small", id="small"),
    ],
)
def test_any_other_disk_is_left_alone(
    scratch: ModuleType, disks: Disks, model: str, fill: Any, mib: int, said: str
) -> None:
    device = disks.add(model, mib)
    if fill:
        fill(device)
    before = Path(disks.folder, "disk0").read_bytes()
    with pytest.raises(scratch.Refused, match=said):
        scratch.mount(given(disks))
    assert Path(disks.folder, "disk0").read_bytes() == before


def test_partitions_and_mappings_are_seen(scratch: ModuleType, disks: Disks) -> None:
    name = Path(disks.add(STORE)).name
    shown = disks.sys / "block" / name
    (shown / "holders/dm-0").mkdir(parents=True)
    with pytest.raises(scratch.Refused, match="belongs to a mapping"):
        scratch.mount(given(disks))
    (shown / f"{name}p1").mkdir()
    with pytest.raises(scratch.Refused, match="has partitions"):
        scratch.mount(given(disks))


def test_a_full_one_that_is_mounted_is_not_formatted(scratch: ModuleType, disks: Disks) -> None:
    device = disks.add(STORE, 32)
    place = disks.folder / "full"
    place.mkdir()
    run("mkfs.ext4", "-q", device)
    run("mount", device, str(place))
    with pytest.raises(scratch.Refused, match="is mounted already, without room"):
        scratch.mount(given(disks, mib=30))


def test_a_stand_in_is_what_the_local_cloud_says(scratch: ModuleType, disks: Disks) -> None:
    told = scratch.mount(given(disks, stand_in="tmpfs"))
    assert (told["filesystem"], told["model"]) == ("tmpfs", None)
