"""The local cloud's parts that need no machine: disks, wheels, settings, sources, status."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bake.errors import UsageError
from bake.localcloud import host
from bake.localcloud.images import base
from bake.localcloud.images.store import ImageStore, StoredImage, StoredSnapshot
from bake.localcloud.lifecycle import cloud
from bake.localcloud.lifecycle import render as table
from bake.localcloud.lifecycle.owners import Owners
from bake.localcloud.lifecycle.state import ImageStatus, InstanceStatus, Status, images
from bake.localcloud.machines import disks, udev
from bake.localcloud.network.server import serve
from bake.localcloud.packages import wheels
from bake.localcloud.packages.index import WheelIndex
from bake.localcloud.settings import Delays, Settings


def test_a_sparse_copy_is_equal_and_stays_sparse(tmp_path: Path) -> None:
    source = tmp_path / "disk.img"
    with source.open("wb") as file:
        file.truncate(64 << 20)
        for offset in (0, 30 << 20, (64 << 20) - 4096):
            file.seek(offset)
            file.write(os.urandom(4096))
    heard: list[int] = []
    disks.clone(source, tmp_path / "copy.img", heard.append)
    copy = tmp_path / "copy.img"
    assert copy.stat().st_size == 64 << 20
    assert disks.used(copy) <= disks.used(source) + (1 << 20)
    assert subprocess.run(["cmp", source, copy], check=False).returncode == 0
    assert heard == sorted(heard)
    assert heard[-1] == 100
    assert list(tmp_path.glob("*.partial")) == []


def test_an_empty_disk_can_be_copied(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", 1 << 20)
    disks.clone(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").stat().st_size == 1 << 20


def wheel(directory: Path, name: str, version: str) -> Path:
    """A wheel that pip takes: one module and its metadata."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.integration
def test_the_lock_of_the_wheels_installs_from_the_index(tmp_path: Path) -> None:
    found = [wheel(tmp_path, "zed_b", "1.0+cpu"), wheel(tmp_path, "alpha", "2.1")]
    text = wheels.lock(found)
    digest = hashlib.sha256(found[1].read_bytes()).hexdigest()
    assert text.splitlines()[0] == f"alpha==2.1 --hash=sha256:{digest}"
    assert text.splitlines()[1].startswith("zed-b==1.0+cpu --hash=sha256:")
    lock = tmp_path / "lock.txt"
    lock.write_text(text)
    server = serve("127.0.0.1", 0, WheelIndex(tmp_path), "the wheel index")
    try:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--require-hashes"),
                *("--index-url", f"http://127.0.0.1:{server.server_port}/simple"),
                *("--target", tmp_path / "site", "--requirement", lock),
            ],
            check=True,
            env={"PATH": os.environ["PATH"], "no_proxy": "*"},
        )
    finally:
        server.shutdown()
    assert (tmp_path / "site" / "zed_b.py").read_text() == "version = '1.0+cpu'\n"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    server = serve("127.0.0.1", 0, WheelIndex(tmp_path), "the wheel index")
    try:
        with pytest.raises(UsageError, match=f"port {server.server_port} on 127.0.0.1 is taken") as refused:
            serve("127.0.0.1", server.server_port, WheelIndex(tmp_path), "the API")
        assert str(server.server_port) in (refused.value.hint or "")
    finally:
        server.shutdown()


def test_a_lock_without_torch_is_a_list_of_constraints(tmp_path: Path) -> None:
    lock = tmp_path / "worker.txt"
    lock.write_text(
        "# made by uv\n"
        "diffusers==0.42.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "nvidia-cublas-cu12==12.8 --hash=sha256:cc\n"
        "    # via torch\n"
        "torch==2.13.0 \\\n    --hash=sha256:dd\n"
        "torchao==0.15 --hash=sha256:ee\n"
        "triton==3.5 ; platform_system == 'Linux' \\\n    --hash=sha256:ff\n"
    )
    assert wheels.unpinned(lock) == ["diffusers==0.42.1", "torchao==0.15"]
    assert wheels.unpinned(tmp_path / "none.txt") == []


@pytest.mark.parametrize(
    "network", ["10.214.0.1/24", "8.8.8.0/24", "nonsense", "10.0.0.0/8", "127.0.0.0/24", "10.0.0.0/30"]
)
def test_an_impossible_network_is_refused(network: str) -> None:
    with pytest.raises(UsageError, match="BAKE_LOCAL_NETWORK"):
        Settings.load({"BAKE_LOCAL_NETWORK": network})


def test_names_fit_an_interface_and_differ_between_networks() -> None:
    one = Settings.load({"BAKE_LOCAL_NETWORK": "10.214.0.0/24"})
    two = Settings.load({"BAKE_LOCAL_NETWORK": "10.214.1.0/24"})
    assert one.bridge != two.bridge
    assert not two.bridge.startswith(one.bridge)
    assert len(f"{one.bridge}-254") <= 15  # IFNAMSIZ
    assert Settings.load(one.environment()) == one


def test_delays_reach_the_clouds_process() -> None:
    there = {"BAKE_LOCAL_SEED": "7", "BAKE_LOCAL_LENIENT": "yes"}
    loaded = Settings.load(there)
    assert (loaded.seed, loaded.lenient) == (7, True)
    assert Settings.load(loaded.environment()) == loaded
    assert Settings.load({}).with_delays(Delays(9, lenient=True)) == replace(
        Settings.load({}), seed=9, lenient=True
    )
    assert Settings.load(there).with_delays(Delays()) == loaded


@pytest.mark.parametrize("seed", ["-1", "x", "1.5", "٣"])
def test_a_seed_that_is_none_is_refused(seed: str) -> None:
    with pytest.raises(UsageError, match="BAKE_LOCAL_SEED"):
        Settings.load({"BAKE_LOCAL_SEED": seed})


@pytest.mark.parametrize(
    ("has", "wanted", "asked", "told"),
    [
        pytest.param(Delays(1), Delays(1), Delays(), None, id="alike"),
        pytest.param(Delays(5), Delays(1), Delays(), None, id="no-seed-asked"),
        pytest.param(Delays(5), Delays(1), Delays(1), "the delays of seed 5", id="another-seed"),
        pytest.param(Delays(5, True), Delays(1), Delays(), "no delays", id="lenient"),
        pytest.param(Delays(5), Delays(1, True), Delays(None, True), "the delays of seed 5", id="strict"),
    ],
)
def test_a_cloud_that_is_up_says_that_it_keeps_its_delays(
    has: Delays, wanted: Delays, asked: Delays, told: str | None
) -> None:
    running = {"seed": has.seed, "lenient": has.lenient}
    found = cloud._other_delays(running, Settings.load({}).with_delays(wanted), asked)
    assert (found is None) == (told is None)
    assert (told or "") in (found or "")


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="needs root") as refused:
        host.require_root()
    assert "sudo" in (refused.value.hint or "")


def test_missing_tools_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(host.TOOLS, "no-such-tool", "no-such-package")
    with pytest.raises(UsageError, match="no-such-tool") as refused:
        host.require_tools()
    assert refused.value.hint == "apt-get install no-such-package"


def test_only_the_distributions_own_sources_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_codename", lambda: "bookworm")
    (tmp_path / "sources.list").write_text(
        "deb http://old.example/debian bookworm main\n# deb x bookworm y\n"
    )
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "own.sources").write_text(
        "Types: deb deb-src\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By: /usr/share/keyrings/own.gpg\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n"
    )
    (parts / "other.list").write_text("deb https://third.example/apt cloud-sdk-bookworm main\n")
    assert base.own_sources(tmp_path) == [
        "deb http://old.example/debian bookworm main",
        "deb [signed-by=/usr/share/keyrings/own.gpg] http://a.example/debian bookworm main",
        "deb [signed-by=/usr/share/keyrings/own.gpg] http://a.example/debian bookworm-updates main",
    ]


def stored(store: ImageStore, number: int) -> StoredImage:
    snapshot = StoredSnapshot(f"snap-{number}", "vol-1", 80, "", f"2026-01-0{number}T00:00:00")
    image = StoredImage(
        f"ami-{number}", f"image {number}", "", snapshot.created, snapshot.id, "gp3", 3000, 125
    )
    store.disk(snapshot.id).touch()
    os.truncate(store.disk(snapshot.id), 80 << 30)
    store.save(snapshot)
    store.save(image)
    return image


def test_images_survive_and_the_newest_are_kept(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    made = [stored(store, number) for number in range(1, 6)]
    assert ImageStore(tmp_path).images() == made
    (tmp_path / "snap-9.img.partial").touch()
    said: list[str] = []
    store.prune(said.append, kept=3)
    assert store.images() == made[2:]
    assert len(said) == 2
    assert "ami-1" in said[0]
    assert len(list(tmp_path.iterdir())) == 9
    assert [image.volume_gib for image in images(store)] == [80, 80, 80]


def test_disks_are_named_as_mapped_where_rules_of_amazons_ask_them(tmp_path: Path) -> None:
    rules = tmp_path / "usr/lib/udev/rules.d"
    rules.mkdir(parents=True)
    (rules / "60-other.rules").write_text('KERNEL=="nvme*", SYMLINK+="disk/x"\n')
    assert not udev.names_as_mapped(tmp_path)
    (rules / "70-ec2-nvme-devices.rules").write_text('PROGRAM="/sbin/ebsnvme-id -u /dev/%k", SYMLINK+="%c"\n')
    assert udev.names_as_mapped(tmp_path)


def test_nobody_joins_what_its_last_owner_has_left() -> None:
    owners = Owners(threading.Event())
    assert owners.add(os.getpid())
    assert owners.release(os.getpid())
    assert not owners.add(os.getpid())
    assert not owners.keep()


def test_the_status_reads_well() -> None:
    instance = InstanceStatus("i-1", "g6e.xlarge", "running", "10.0.0.10", "ami-1", "builder", 80, 1 << 30)
    image = ImageStatus("ami-2", "baked", "2026-01-02T03:04:05", 80, 3 << 29)
    status = Status(
        "http://a", "http://h", "http://w", 7, "2026-01-01T00:00:00+00:00", 3, False, (instance,), (image,)
    )
    text = table.render(status)
    assert "i-1  running  g6e.xlarge  10.0.0.10  ami-1  80 GiB (1.0 used)  builder" in text
    assert "ami-2  2026-01-02 03:04  80 GiB (1.5 used)  baked" in text
    assert table.render(None) == "the local cloud is down"
