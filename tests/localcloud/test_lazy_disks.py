"""Disks that fill while they are read, on real machines: how far the kernel reads ahead decides how fast."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from bake.errors import UsageError
from bake.localcloud import host
from bake.localcloud.lifecycle import cloud as localcloud
from bake.localcloud.lifecycle.sweep import leftovers
from bake.localcloud.machines import disks, lazy, udev
from bake.localcloud.machines.filling import BLOCK, Bandwidth, Filling, Speeds, parse_speeds
from bake.localcloud.machines.lazy import LazyDisk
from bake.localcloud.network.control import over_socket
from bake.localcloud.settings import Settings
from bake.ssh import Session, connect

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
RULE = "etc/udev/rules.d/60-bake-read-ahead.rules"
ROOTFS = ROOT / "provision/rootfs"
RATE = 8.0  # MB/s: 66 ms a block, so that reading ahead shows on a busy host, too
MAPPED = """
import mmap, sys, time
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
    started = time.monotonic()
    for place in range(0, len(content), 4096):
        content[place]
    print(len(content) / (time.monotonic() - started) / 1e6)
"""

GET = """
import sys, time, urllib.request
started = time.monotonic()
size = len(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1]).read())
print(size / (time.monotonic() - started) / 1e6)
"""
S3_RATE = 1.0  # MB/s


def mapped(file: Path) -> float:
    """MB/s at which a mapping of the file is read, as the worker's weights are, by a process of its own."""
    shown = subprocess.run(
        [sys.executable, "-c", MAPPED, str(file)], capture_output=True, check=True, text=True
    )
    return float(shown.stdout)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk of 200 MB that holds `model`, 24 MB."""
    disk, where = tmp_path / "disk.img", tmp_path / "filling"
    with disk.open("wb") as file:
        file.truncate(200 << 20)
    host.run("mkfs.ext4", "-q", disk)
    disks.mount(disk, where)
    (where / "model").write_bytes(os.urandom(24 << 20))
    (where / "etc/udev/rules.d").mkdir(parents=True)
    disks.unmount(where)
    return disk


@pytest.fixture
def mounted(disk: Path, tmp_path: Path) -> Iterator[Path]:
    """It, mounted as one that fills lazily."""
    filling, where = LazyDisk(disk, Filling.in_sequence(RATE)), tmp_path / "root"
    filling.mount(where)
    yield where
    disks.unmount(where)
    filling.unmount()
    assert str(tmp_path) not in " ".join(disks.mounted())


def read_ahead(where: Path) -> int:
    """KiB that the kernel reads ahead of the device that is mounted there."""
    return int(host.run("blockdev", "--getra", disks.mounted()[str(where)])) // 2


def test_without_a_rule_the_first_read_is_slow_and_the_second_is_not(mounted: Path) -> None:
    assert read_ahead(mounted) == lazy.READ_AHEAD == 128
    assert mapped(mounted / "model") < 2 * RATE
    os.posix_fadvise(file := os.open(mounted / "model", os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    assert mapped(mounted / "model") > 3 * RATE


def test_what_is_filled_stays_filled_and_what_is_written_is_kept(disk: Path, tmp_path: Path) -> None:
    where = tmp_path / "root"
    for text in ("first", "second"):
        filling = LazyDisk(disk, Filling.in_sequence(RATE))
        filling.mount(where)
        rate = mapped(where / "model")
        assert (rate > 3 * RATE) == (text == "second")
        with (where / "log").open("a") as log:
            log.write(f"{text}\n")
        disks.unmount(where)
        filling.unmount()
    disks.mount(disk, where)
    assert (where / "log").read_text() == "first\nsecond\n"
    disks.unmount(where)


def test_the_images_own_rule_makes_it_fast(disk: Path, tmp_path: Path) -> None:
    where = tmp_path / "root"
    disks.mount(disk, where)
    (where / RULE).write_text((ROOTFS / RULE).read_text())
    disks.unmount(where)
    filling = LazyDisk(disk, Filling.in_sequence(RATE))
    filling.mount(where)
    try:
        assert read_ahead(where) == 2560
        assert mapped(where / "model") > 2 * RATE
    finally:
        disks.unmount(where)
        filling.unmount()


def test_freed_blocks_go_back_to_the_host(mounted: Path, disk: Path) -> None:
    (mounted / "model").unlink()
    os.sync()
    host.run("fstrim", mounted)
    assert disks.used(disk) < 16 << 20


def test_a_disk_without_its_process_fails_and_goes(disk: Path, tmp_path: Path) -> None:
    filling, where = LazyDisk(disk, Filling.in_sequence(RATE)), tmp_path / "root"
    filling.mount(where)
    assert filling._server is not None
    filling._server.kill()
    with pytest.raises(OSError, match="error"):
        (where / "model").read_bytes()
    disks.unmount(where)
    filling.unmount()
    assert str(tmp_path) not in " ".join(disks.mounted())


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        *((rate, "rate of lazy disks is 0.1 to 10,000 MB/s") for rate in ("fast", "0", "-1", "nan", "inf")),
        ("latency=0", "latency of lazy disks is 0.1 to 60,000 ms, not '0'"),
        ("latency=30,celing=100", "no setting 'celing': ceiling, flow"),
        ("latency=30,100", "'100' is no setting"),
        ("latency=30,latency=60", "'latency=60' is no setting of lazy disks, or is there twice"),
        ("rate=17,latency=30", "rate and latency of lazy disks say the same"),
        ("s3=", "s3 of lazy disks is 0.1 to 10,000 MB/s, not ''"),
    ],
)
def test_settings_that_there_are_not(spec: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_speeds(spec)


def test_what_is_not_set_is_as_on_ebs() -> None:
    assert parse_speeds("") == Speeds(Filling(30, 100, None), Bandwidth(None, None))
    assert parse_speeds("latency=60, s3=400") == Speeds(Filling(60, 100, None), Bandwidth(400, None))
    assert parse_speeds("17").filling == Filling.in_sequence(17) == Filling(BLOCK / 17e3, 136.0)
    asked = "latency=5,ceiling=7,initialization_rate=300,s3=9,flow=8"
    told = {"latency": 5, "ceiling": 7, "initialization_rate": 300, "s3": 9, "flow": 8}
    assert parse_speeds(asked).described() == told


DEVICE_RULE = 'KERNEL=="nvme*", ATTR{queue/read_ahead_kb}="4096"'


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"usr/lib/udev/rules.d/a.rules": DEVICE_RULE}, 4096, id="a-package's"),
        pytest.param({"etc/udev/rules.d/a.txt": DEVICE_RULE}, None, id="no-rules-file"),
        pytest.param({"etc/udev/rules.d/a.rules": f"# {DEVICE_RULE}"}, None, id="a-comment"),
        pytest.param({"etc/udev/rules.d/a.rules": f"{DEVICE_RULE} oops"}, None, id="malformed"),
        pytest.param(
            {"etc/udev/rules.d/a.rules": DEVICE_RULE.replace(", ", ", \\\n  ")}, 4096, id="two-lines"
        ),
        pytest.param({"etc/udev/rules.d/a.rules": DEVICE_RULE.replace("==", "!=")}, None, id="another-disk"),
        pytest.param(
            {"etc/udev/rules.d/a.rules": DEVICE_RULE.replace("nvme*", "sd*|nvme?n1")}, 4096, id="one-of-two"
        ),
        pytest.param(
            {"etc/udev/rules.d/a.rules": f'ATTRS{{model}}=="Amazon EC2 NVMe*", {DEVICE_RULE}'},
            None,
            id="instance-store",
        ),
        pytest.param(
            {"etc/udev/rules.d/a.rules": f'ENV{{DEVTYPE}}=="partition", {DEVICE_RULE}'},
            None,
            id="a-partition",
        ),
        pytest.param(
            {"etc/udev/rules.d/a.rules": f'PROGRAM=="/bin/true", {DEVICE_RULE}'}, None, id="not-understood"
        ),
        pytest.param(
            {"etc/udev/rules.d/a.rules": DEVICE_RULE.replace("queue", "bdi")}, 4096, id="by-its-other-name"
        ),
        pytest.param(
            {
                "usr/lib/udev/rules.d/a.rules": DEVICE_RULE,
                "etc/udev/rules.d/b.rules": DEVICE_RULE.replace("4096", "64"),
            },
            64,
            id="the-last-holds",
        ),
        pytest.param(
            {"usr/lib/udev/rules.d/a.rules": DEVICE_RULE, "etc/udev/rules.d/a.rules": ""}, None, id="hidden"
        ),
        pytest.param(
            {"etc/udev/rules.d/a.rules": f'SUBSYSTEM=="block", GOTO="end"\n{DEVICE_RULE}\nLABEL="end"'},
            None,
            id="jumped-over",
        ),
        pytest.param(
            {"etc/udev/rules.d/a.rules": f'SUBSYSTEM=="net", GOTO="end"\n{DEVICE_RULE}\nLABEL="end"'},
            4096,
            id="not-jumped-over",
        ),
    ],
)
def test_what_rules_say_of_the_read_ahead(files: dict[str, str], wanted: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert udev.read_ahead(tmp_path, udev.EBS_DISK) == wanted


def test_a_link_on_the_disk_leads_to_none_of_the_hosts_rules(tmp_path: Path) -> None:
    (tmp_path / "hosts.rules").write_text(DEVICE_RULE)
    rules = tmp_path / "root/etc/udev/rules.d"
    rules.mkdir(parents=True)
    (rules / "a.rules").symlink_to(tmp_path / "hosts.rules")
    os.mkfifo(rules / "b.rules")
    assert udev.read_ahead(tmp_path / "root", udev.EBS_DISK) is None


@pytest.mark.parametrize(
    ("name", "model", "wanted"),
    [
        pytest.param("nvme0n1", "Amazon Elastic Block Store", 2560, id="ebs"),
        pytest.param("nvme12n1", "Amazon Elastic Block Store", 2560, id="a-data-volume"),
        pytest.param("nvme1n1", "Amazon EC2 NVMe Instance Storage", None, id="instance-store"),
        pytest.param("xvda", None, 2560, id="xen"),
        pytest.param("loop0", None, None, id="loop"),
        pytest.param("sda", "QEMU HARDDISK", None, id="another"),
    ],
)
def test_the_images_rule_is_for_ebs_disks(name: str, model: str | None, wanted: int | None) -> None:
    device = {**udev.EBS_DISK, ("KERNEL", ""): name}
    del device["ATTRS", "model"]
    if model:
        device["ATTRS", "model"] = model
    assert udev.read_ahead(ROOTFS, device) == wanted
    assert udev.read_ahead(ROOTFS, {**device, ("ACTION", ""): "change"}) == wanted
    assert udev.read_ahead(ROOTFS, {**device, ("ACTION", ""): "remove"}) is None
    assert udev.read_ahead(ROOTFS, {**device, ("ENV", "DEVTYPE"): "partition"}) is None


def seen_inside(session: Session) -> int:
    """KiB of read-ahead of the root disk, as the machine itself sees it."""
    script = 'cat "/sys/dev/block/$(findmnt -no MAJ:MIN --target / | tr -d " ")/queue/read_ahead_kb"'
    return int(session.run("sh", "-c", script).stdout)


def test_a_machine_boots_from_one_and_follows_its_own_rule(own: Settings, account_of: Any) -> None:
    account, ask = account_of(localcloud.up(lazy_disks="40")), over_socket(own)
    machine = account.launch()
    account.reach(machine.id, "running")
    with connect(machine.login) as session:
        assert seen_inside(session) == 128
        told = ask("GET", f"/-/lazy-disks/{machine.id}", None)
        assert told["held"] > told["touched"] > 0
        assert told["ranges"][0][0] == 0, "the file system begins there"
        [volume] = account.ec2.describe_volumes(
            Filters=[{"Name": "attachment.instance-id", "Values": [machine.id]}]
        )["Volumes"]
        assert told["progress"] <= initialized(account, volume["VolumeId"]) < 100
        changed = ask("POST", f"/-/lazy-disks/{volume['VolumeId']}?latency=1&stall=0", None)
        assert (changed["latency"], changed["ceiling"]) == (1, 320)
        assert "lazy disk's process" in " ".join(leftovers(own))
        session.run("mkdir", "-p", f"/{Path(RULE).parent}", sudo=True)
        rule = (ROOTFS / RULE).read_bytes()
        session.run("sh", "-c", f"cat > /{RULE}; sync", stdin=rule, sudo=True)
    image = account.image_of(machine.id, "with-the-rule")
    account.terminate(machine.id)
    assert leftovers_of_disks(own) == []
    root = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeInitializationRate": 300}}]
    again = account.launch(image, BlockDeviceMappings=root)
    account.reach(again.id, "running")
    with connect(again.login) as session:
        assert seen_inside(session) == 2560
        ask("POST", f"/-/lazy-disks?rate=40&s3={S3_RATE}", None)
        assert from_s3(account, session) < 1.1 * S3_RATE
        [volume] = account.ec2.describe_volumes(
            Filters=[{"Name": "attachment.instance-id", "Values": [again.id]}]
        )["Volumes"]
        account.wait(
            "its volume's initialization", lambda: initialized(account, volume["VolumeId"]) == 100 or None
        )
        assert ask("GET", f"/-/lazy-disks/{again.id}", None)["background"] > told["touched"]
    ask("DELETE", "/-/lazy-disks", None)
    whole = account.launch(image)
    account.reach(whole.id, "running")
    assert len(list(own.instances.glob("*/lazy.img"))) == 1
    os.kill(int(json.loads((own.state / "cloud.json").read_text())["pid"]), signal.SIGKILL)
    account.wait("the daemon's end", lambda: True if localcloud.current() is None else None)
    said: list[str] = []
    localcloud.down(said.append)
    assert leftovers(own) == []
    assert any("lazy disk's process" in line for line in said)


def initialized(account: Any, volume: str) -> int:
    """The percent that DescribeVolumeStatus tells."""
    [status] = account.ec2.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"]
    return int(status["InitializationStatusDetails"]["Progress"])


def from_s3(account: Any, session: Session) -> float:
    """MB/s at which a machine gets an object."""
    s3, bucket = account.client("s3", config=Config(signature_version="s3v4")), "from-s3-of-lazy-disks"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name})
    s3.put_object(Bucket=bucket, Key="object", Body=bytes(2_000_000))
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "object"})
    return float(session.run("python3", "-c", GET, url).stdout)


def leftovers_of_disks(settings: Settings) -> list[str]:
    deadline = time.monotonic() + 60  # the kernel takes a loop device down a little later
    while (
        found := [line for line in leftovers(settings) if line.startswith(("lazy", "mount", "loop"))]
    ) and (time.monotonic() < deadline):
        time.sleep(0.1)
    return found
