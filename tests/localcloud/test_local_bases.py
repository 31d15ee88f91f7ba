"""The bases of the local cloud: Debian's packages as rpms, and images that a user gives."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from werkzeug.exceptions import NotFound
from werkzeug.middleware.shared_data import SharedDataMiddleware

from bake.errors import BakeError, UsageError
from bake.localcloud.images import amazon_linux, rpms, user_image
from bake.localcloud.network.server import serve
from bake.localcloud.settings import Settings


@pytest.mark.parametrize(
    ("debian", "rpm"),
    [
        ("1:2.36-9+deb12u4", ("1", "2.36", "9+deb12u4")),
        ("4.14.0-3", ("", "4.14.0", "3")),
        ("12.4+deb12u12", ("", "12.4+deb12u12", "1")),
        ("2.0-beta-1", ("", "2.0_beta", "1")),
    ],
)
def test_a_version_keeps_its_order(debian: str, rpm: tuple[str, str, str]) -> None:
    assert rpms.rpm_version(debian) == rpm


@pytest.mark.parametrize(
    ("debian", "rpm"),
    [
        ("libc6", "glibc"),
        ("python3.11-minimal", "python3"),
        ("libpython3.11-stdlib", "python3-libs"),
        ("dnf", "dnf"),
    ],
)
def test_names_are_amazon_linuxs(debian: str, rpm: str) -> None:
    assert rpms.rpm_name(debian) == rpm


def test_a_spec_names_files_that_mean_something_in_a_pattern() -> None:
    package = rpms.Package("coreutils", "9.1-1", "100% of it", files={"/usr/bin/[", "/usr/lib/a b"})
    package.folders.add("/usr/share/doc")
    spec = package.spec()
    assert "\n/usr/bin/?\n/usr/lib/a?b\n" in spec
    assert "%dir /usr/share/doc\n" in spec
    assert "Summary: 100%% of it\n" in spec


def test_the_place_of_the_base_follows_from_what_it_is_made_of(tmp_path: Path) -> None:
    image = tmp_path / "al2023.tar"
    image.write_bytes(b"one")
    stand_in, given = amazon_linux.find(tmp_path, ""), amazon_linux.find(tmp_path, str(image))
    assert stand_in.place != given.place
    assert "stand-in for Amazon Linux" in stand_in.what
    assert f"is made of {image}" in given.what
    image.write_bytes(b"another")
    assert amazon_linux.find(tmp_path, str(image)).place != given.place


def test_an_image_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"BAKE_AMAZON_LINUX_IMAGE: /nowhere/al2023\.qcow2: No such file"):
        amazon_linux.find(tmp_path, "/nowhere/al2023.qcow2")


def test_a_path_is_made_absolute_and_a_url_is_left_alone() -> None:
    path = Settings.load({"BAKE_AMAZON_LINUX_IMAGE": "x.tar"}).amazon_linux
    assert path == str(Path("x.tar").absolute())
    url = "https://cdn.example/al2023.tar.xz"
    assert Settings.load({"BAKE_AMAZON_LINUX_IMAGE": url}).amazon_linux == url


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The root of another system."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/os-release").write_text('ID="fedora"\nPRETTY_NAME="Fedora Linux 43"\n')
    return tree


@pytest.fixture
def archive(tree: Path) -> Path:
    path = tree.with_name("root.tar.xz")
    with tarfile.open(path, "w:xz") as tar:
        tar.add(tree, ".")
    return path


def test_an_archive_is_unpacked_from_a_url_with_its_hash(archive: Path, tmp_path: Path) -> None:
    server = serve("127.0.0.1", 0, SharedDataMiddleware(NotFound(), {"/": str(archive.parent)}), "an image")
    url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
    wanted = hashlib.sha256(archive.read_bytes()).hexdigest()
    try:
        user_image.unpack(f"{url}#sha256={wanted}", tmp_path / "right")
        with pytest.raises(BakeError, match=f"has sha256 {wanted}, not 00"):
            user_image.unpack(f"{url}#sha256=00", tmp_path / "wrong")
        with pytest.raises(BakeError, match="could not be downloaded: HTTP Error 404"):
            user_image.unpack(f"{url}.gone", tmp_path / "gone")
    finally:
        server.shutdown()
    assert "Fedora" in (tmp_path / "right/etc/os-release").read_text()


@pytest.mark.root
@pytest.mark.parametrize("partitions", [False, True], ids=["plain", "partitioned"])
def test_the_largest_file_system_of_a_disk_is_taken(tree: Path, tmp_path: Path, partitions: bool) -> None:
    disk, volume = tmp_path / "disk.raw", tmp_path / "volume"
    with volume.open("wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, volume], check=True)
    if partitions:
        with disk.open("wb") as file:
            file.truncate(32 << 20)
            file.seek(4 << 20)
            file.write(volume.read_bytes())
        # A DOS partition table: two entries of type, first sector and number of sectors.
        entries = [
            struct.pack("<4xB3xII", 0x83, start, count) for start, count in ((2048, 4096), (8192, 49152))
        ]
        with disk.open("r+b") as file:
            file.seek(446)
            file.write(b"".join(entries).ljust(64, b"\0") + b"\x55\xaa")
    user_image.unpack(str(disk if partitions else volume), tmp_path / "root")
    assert "Fedora" in (tmp_path / "root/etc/os-release").read_text()


@pytest.mark.root
def test_an_image_of_another_system_is_refused(archive: Path, tmp_path: Path) -> None:
    wanted = amazon_linux.find(tmp_path, str(archive))
    with pytest.raises(UsageError, match="is Fedora Linux 43, not Amazon Linux"):
        amazon_linux.build(wanted, print)
    assert not wanted.disk.exists()
